"""Unique values that move along chains: as long as the file, judged and written in a time that grows with it only."""

from __future__ import annotations

import time

import psycopg
import pytest
from psycopg import sql


@pytest.fixture
def shelf(made):
    """Makes a table of `n` rows with the places 1 to n."""

    def make(n: int):
        return made(
            "CREATE TABLE public.shelf (id int PRIMARY KEY, place int UNIQUE, mark int UNIQUE);"
            f"INSERT INTO public.shelf SELECT g, g, g FROM generate_series(1, {n}) g"
        )

    return make


def raised(rows: int) -> bytes:
    """Each of the rows goes to the next place."""
    return b"id,place\n" + b"".join(b"%d,%d\n" % (i, i + 1) for i in range(1, rows + 1))


def counts(row):
    return {name: n for name, n in row.plan_summary["counts"].items() if n}


def test_of_a_chain_that_ends_at_a_row_which_stays_each_pass_refused_one(shelf):
    world = shelf(2_001)
    started = time.monotonic()
    row = world.plan("shelf", raised(2_000), import_type="UPSERT")

    assert time.monotonic() - started < 15  # it took 55 s
    assert counts(row) == {"total": 2_000, "failed": 2_000}
    assert {e.code for e in world.errors(row)} == {"UNIQUE_TAKEN"}


def test_a_chain_falls_across_two_unique_keys_and_tells_each_fault_by_its_own(shelf):
    world = shelf(5)
    # 4 wants the place of 5, which stays; 3 the mark of 4, 2 the place of 3
    data = b"id,place,mark\n2,3,2\n3,13,4\n4,5,14\n"
    row = world.plan("shelf", data, import_type="UPSERT")

    found = [(e.row, e.code, e.field, e.value) for e in world.errors(row)]
    assert found == [
        (2, "UNIQUE_TAKEN", "place", "3"), (3, "UNIQUE_TAKEN", "mark", "4"), (4, "UNIQUE_TAKEN", "place", "5"),
    ]  # fmt: skip


def test_new_rows_that_want_what_is_taken_are_refused_where_nothing_moves(shelf):
    world = shelf(3)
    row = world.load("shelf", b"id,place\n7,2\n8,8\n", import_type="ADDITIVE")

    assert [(e.row, e.code) for e in world.errors(row)] == [(2, "UNIQUE_TAKEN")]
    assert row.report["inserted"] == 1


def statements(world, monkeypatch):
    """The UPDATEs of the table that apply gives, from here on."""
    found: list[str] = []
    execute = psycopg.Connection.execute

    def listened(self, query, *args, **options):
        text = query.as_string(self) if isinstance(query, sql.Composable) else str(query)
        if 'shelf" t SET' in text:
            found.append(text)
        return execute(self, query, *args, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", listened)
    return found


PLAIN = "CREATE TABLE public.shelf (id int PRIMARY KEY, place int UNIQUE);"
INHERITED = PLAIN + "CREATE TABLE public.more () INHERITS (public.shelf); INSERT INTO public.more VALUES (1, 2);"


@pytest.mark.parametrize("n", [2, 20, 8_000])
@pytest.mark.parametrize("tables", [PLAIN, INHERITED])
def test_a_chain_is_written_by_one_statement(made, monkeypatch, tables, n):
    world = made(tables + f"INSERT INTO public.shelf SELECT g, g FROM generate_series(1, {n}) g")
    row = world.plan("shelf", raised(n), import_type="UPSERT")
    world.sql("ANALYZE public.shelf")  # a table known to be small is rather read as a whole
    given = statements(world, monkeypatch)
    started = time.monotonic()
    row = world.apply(row)

    assert time.monotonic() - started < 10  # 8,000 rows took 51 s
    assert (row.status, row.report["updated"]) == ("COMPLETED", n), row.error
    assert world.sql("SELECT count(*) FROM ONLY public.shelf WHERE place = id + 1") == [(n,)]
    assert [text.count("UPDATE") for text in given] == [1, 1]  # what EXPLAIN says, and the statement itself


@pytest.mark.parametrize("n", [2, 500])
def test_a_chain_in_each_part_of_a_table_is_written_by_one_statement(made, monkeypatch, n):
    world = made(
        "CREATE TABLE public.shelf (room text, id int, place int, PRIMARY KEY (room, id), UNIQUE (room, place))"
        " PARTITION BY LIST (room); CREATE TABLE public.b PARTITION OF public.shelf FOR VALUES IN ('b');"
        "CREATE TABLE public.a PARTITION OF public.shelf FOR VALUES IN ('a');"
        f"INSERT INTO public.shelf SELECT r, g, g FROM generate_series(1, {n}) g, (VALUES ('a'), ('b')) r (r)"
    )
    data = b"room,id,place\n" + b"".join(b"%c,%d,%d\n" % (r, i, i + 1) for i in range(1, n + 1) for r in b"ba")
    row = world.plan("shelf", data, import_type="UPSERT")
    given = statements(world, monkeypatch)
    row = world.apply(row)

    assert (row.status, row.report["updated"]) == ("COMPLETED", 2 * n), row.error
    assert world.sql("SELECT count(*) FROM public.shelf WHERE place = id + 1") == [(2 * n,)]
    assert [text.count("UPDATE") for text in given] == [1, 1]


def test_a_chain_that_no_plan_comes_to_in_order_is_written_round_by_round(made, monkeypatch):
    world = made(
        "CREATE TABLE public.shelf (id int[] PRIMARY KEY, place int UNIQUE);"  # `= ANY` says something else of arrays
        "INSERT INTO public.shelf SELECT ARRAY[g], g FROM generate_series(1, 1200) g"
    )
    data = b"id,place\n" + b"".join(b"{%d},%d\n" % (i, i + 1) for i in range(1, 1_201))
    row = world.plan("shelf", data, import_type="UPSERT")
    given = statements(world, monkeypatch)
    row = world.apply(row)

    assert (row.status, row.report["updated"]) == ("COMPLETED", 1_200), row.error
    assert world.sql("SELECT count(*) FROM public.shelf WHERE place = id[1] + 1") == [(1_200,)]
    assert max(text.count("UPDATE") for text in given) == 1_200


def test_beside_a_refused_row_a_chain_is_written_in_chunks_in_its_order(shelf):
    world = shelf(3_000)
    world.sql(
        "ALTER TABLE public.shelf ADD note text;"
        "CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 9999 THEN RETURN NULL;"
        " END IF; RETURN NEW; END $$; CREATE TRIGGER no BEFORE INSERT ON public.shelf FOR EACH ROW"
        " EXECUTE FUNCTION public.no()"
    )
    world.resources.catalogs.forget()
    row = world.load("shelf", raised(3_000) + b"9999,9999\n", import_type="UPSERT", on_refused="SKIP")

    assert (row.status, row.report["updated"]) == ("COMPLETED", 3_000), row.error
    assert [(e.row, e.code) for e in world.errors(row)] == [(3_002, "REFUSED_AT_APPLY")]


def test_a_row_changes_its_parent_for_one_that_comes_beside_a_chain_of_any_length(made):
    world = made(
        "CREATE TABLE public.t (id int PRIMARY KEY, pos int UNIQUE, boss int REFERENCES public.t);"
        "INSERT INTO public.t SELECT g, g FROM generate_series(1, 150) g;"
        "INSERT INTO public.t VALUES (1001, 5001, NULL), (1000, 5000, 1001)"
    )
    data = (
        b"id,pos,boss\n" + b"".join(b"%d,%d,\n" % (i, i + 1) for i in range(1, 151)) + b"1000,5000,1002\n1002,5002,\n"
    )
    row = world.apply(world.plan("t", data, import_type="REPLACE", max_deletes=5))

    assert row.status == "COMPLETED", row.error  # with over 100 parts it was PLAN_STALE for ever
    assert world.sql("SELECT id, boss FROM public.t WHERE id > 999 ORDER BY id") == [(1000, 1002), (1002, None)]
