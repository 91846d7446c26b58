"""Every type of PostgreSQL, out in every format and in again by an import: the rows are equal byte for byte."""

from __future__ import annotations

import psycopg
import pytest

from tests.engine.exports.kit import export
from tests.engine.exports.test_every_type import Everything
from tests.every_type import TypeCase, make_types

LONG = 10_000
"""Values above it go alone: a record is 2 MiB at the most, and several types have a text of 1 MB."""


@pytest.fixture
def everything(made) -> Everything:
    world = made("SELECT 1")
    with psycopg.connect(world.resources.platform.dsn, autocommit=True) as connection:
        cases = make_types(connection)
    short = [TypeCase(c.type, tuple(v for v in c.values if len(v) < LONG), arrays=c.arrays) for c in cases]
    found = Everything(world, short)
    found.fill()
    return found


@pytest.mark.parametrize("mode", ["ADDITIVE", "UPSERT"])
@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("CSV", {"formula_guard": False}),
        ("CSV", {"formula_guard": True}),
        ("JSON", {}),
        ("JSON_LINES", {"compression": "ZSTD"}),
    ],
)
def test_an_import_brings_every_type_back(everything, layout, options, mode):
    world = everything.world
    _, data = export(world, "everything", format=layout, **options)
    read = {"csv": {"undo_formula_guard": options.get("formula_guard", False)}}
    row = world.load("copy", data, format=layout, import_type=mode, **read)

    assert row.status == "COMPLETED", row.error
    assert world.errors(row) == []
    assert everything.rows("copy") == everything.rows("everything")

    again = world.plan("copy", data, format=layout, import_type="UPSERT", **read)
    assert again.plan_summary["counts"]["unchanged"] == row.report["inserted"], "nothing differs from itself"


@pytest.mark.parametrize("layout", ["CSV", "JSON_LINES"])
def test_a_text_of_a_megabyte_comes_back(made, layout):
    world = made(
        "CREATE TABLE public.a (id int PRIMARY KEY, v text); CREATE TABLE public.b (LIKE public.a INCLUDING ALL);"
        "INSERT INTO public.a SELECT n, repeat(chr(233) || chr(10), 500000) FROM generate_series(1, 3) n"
    )
    _, data = export(world, "a", format=layout)
    assert world.load("b", data, format=layout).report["inserted"] == 3
    assert world.sql("SELECT * FROM public.b ORDER BY id") == world.sql("SELECT * FROM public.a ORDER BY id")
