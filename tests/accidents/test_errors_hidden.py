"""A short cut that hides an error: a row that would not change is not looked at, a statement for many names no row."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest

from tests.world import World

SCHEMA = (
    "CREATE TABLE public.k (id int PRIMARY KEY); INSERT INTO public.k VALUES (1);"
    "CREATE TABLE public.t (id int PRIMARY KEY, v text, n int, d date, k int REFERENCES public.k, CHECK (n < 100));"
    "INSERT INTO public.t SELECT i, 'v' || i, i, '2024-01-01', 1 FROM generate_series(1, 50) i"
)
GOOD = "{0},v{0},{0},2024-01-01,1\n"
BAD = {
    "n": ("7,v7,seven,2024-01-01,1\n", "INVALID_VALUE"),
    "d": ("7,v7,7,2024-02-30,1\n", "INVALID_DATE"),
    "k": ("7,v7,7,2024-01-01,9\n", "REFERENCE_MISSING"),
    "id": ("7.5,v7,7,2024-01-01,1\n", "INVALID_VALUE"),
    "": ("7,v7,7,2024-01-01\n", "WRONG_FIELD_COUNT"),
}


def rejected(world: World, row: Any) -> list[list[str]]:
    """The reject file's records, as far as their number; one of another length has kept its length."""
    lines = list(csv.reader(io.StringIO(world.read(row.rejects_artifact_id).decode(), newline="")))
    return [cells[:-3] for cells in lines[1:]]


@pytest.mark.parametrize("field", BAD)
def test_an_invalid_value_in_a_row_that_is_otherwise_as_it_was_is_counted_with_its_number(fresh, field):
    world = fresh(SCHEMA)
    bad, code = BAD[field]
    data = "id,v,n,d,k\n" + "".join(GOOD.format(i) if i != 7 else bad for i in range(1, 51))
    row = world.load("t", data.encode(), import_type="UPSERT")

    assert [(e.row, e.field, e.code) for e in world.errors(row)] == [(8, field, code)]
    assert (row.report["unchanged"], row.report["failed"], row.failed_records) == (49, 1, 1)
    assert rejected(world, row) == [[*bad.strip().split(","), "8"]]


def test_the_check_of_a_row_counts_even_where_the_row_changes_nothing_of_it(fresh: Callable[[str], World]) -> None:
    """The table itself holds what its rule forbids (NOT VALID): a row that only repeats it is no new fault."""
    world = fresh(
        "CREATE TABLE public.t (id int PRIMARY KEY, n int, v text); INSERT INTO public.t VALUES (1, 500, 'a');"
        "ALTER TABLE public.t ADD CHECK (n < 100) NOT VALID"
    )
    row = world.plan("t", b"id,n,v\n1,500,b\n", import_type="UPSERT")

    assert [(e.row, e.code) for e in world.errors(row)] == [(2, "CHECK_VIOLATED")]


@pytest.mark.parametrize("refused", [1, 3, 150])
def test_rows_that_the_table_refuses_only_at_apply_are_named_one_by_one(fresh, refused):
    world = fresh(
        SCHEMA + ";CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.v LIKE 'bad%' THEN"
        " RAISE 'no'; END IF; RETURN new; END $$;"
        "CREATE TRIGGER f BEFORE INSERT OR UPDATE ON public.t FOR EACH ROW EXECUTE FUNCTION public.f()"
    )
    lines = [f"{i},{'bad' if i % (5_000 // refused) == 1 else 'good'},1\n" for i in range(1, 5_001)]
    data = "id,v,n\n" + "".join(lines)
    row = world.load("t", data.encode(), import_type="UPSERT")

    expected = [number for number, line in enumerate(lines, 2) if "bad" in line]
    assert [(e.row, e.code) for e in world.errors(row)] == [(n, "REFUSED_AT_APPLY") for n in expected]
    assert row.report["failed"] == len(expected)
    assert row.report["inserted"] + row.report["updated"] == 5_000 - len(expected)
    assert [cells[3] for cells in rejected(world, row)] == [str(n) for n in expected]
