"""Every type of PostgreSQL, out in every format and in again by an import: the rows are equal byte for byte."""

from __future__ import annotations

import psycopg
import pytest

from tests.engine.exports.kit import export
from tests.engine.exports.test_every_type import Everything
from tests.every_type import LONG, NO_INPUT, TypeCase, make_types

LAYOUTS = [
    ("CSV", {"formula_guard": False}),
    ("CSV", {"formula_guard": True}),
    ("JSON", {}),
    ("JSON_LINES", {"compression": "ZSTD"}),
]
MEGABYTE = {
    "text": "SELECT repeat(chr(233) || chr(10), 500000)",
    "character varying": "SELECT repeat('\"', 1000000)",
    "bytea": "SELECT decode(repeat('00ff5c27', 250000), 'hex')",
    "json": "SELECT to_json(repeat(chr(8232), 340000))",
    "jsonb": "SELECT jsonb_agg(n) FROM generate_series(1, 130000) n",
    "text[]": "SELECT array_agg(n || ',') FROM generate_series(1, 130000) n",
    "numeric": "SELECT repeat('9', 131072)::numeric + 0.5",
    "bit varying": "SELECT repeat('10', 500000)::varbit",
    "tsvector": "SELECT array_to_tsvector(array_agg(n::text)) FROM generate_series(1, 100000) n",
}
"""By type: a value whose text has a megabyte, or as much as the type holds."""


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
@pytest.mark.parametrize(("layout", "options"), LAYOUTS)
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


def test_a_bundle_brings_every_type_back(everything):
    world, before = everything.world, everything.rows("everything")
    _, data = export(world, "everything", format="BUNDLE")
    world.sql("TRUNCATE public.everything")
    row = world.load("", data, format="BUNDLE")

    assert row.status == "COMPLETED", row.error
    assert world.errors(row) == []
    assert everything.rows("everything") == before

    again = world.plan("", data, format="BUNDLE", import_type="UPSERT")
    assert again.plan_summary["counts"]["unchanged"] == len(before)


@pytest.mark.parametrize("layout", ["CSV", "JSON", "JSON_LINES", "BUNDLE"])
def test_a_value_of_a_megabyte_comes_back(made, layout):
    columns = ", ".join(f"c{n} {name}" for n, name in enumerate(MEGABYTE))
    world = made(f"CREATE TABLE public.a (id int PRIMARY KEY, {columns})")
    for n, query in enumerate(MEGABYTE.values()):  # a row for each: a record is 2 MiB at the most
        world.sql(f"INSERT INTO public.a (id, c{n}) VALUES ({n}, ({query}))")
    rows = "SELECT (t.*)::text FROM public.a t ORDER BY id"
    before = world.sql(rows)
    assert max(len(text) for (text,) in before) > 1_000_000

    _, data = export(world, "a", format=layout)
    world.sql("TRUNCATE public.a")
    row = world.load("" if layout == "BUNDLE" else "a", data, format=layout)

    assert row.status == "COMPLETED", row.error
    assert world.sql(rows) == before


@pytest.mark.parametrize("layout", ["CSV", "JSON"])
def test_a_record_that_is_too_large_is_refused_by_name(made, layout):
    world = made(
        "CREATE TABLE public.a (id int PRIMARY KEY, v text); INSERT INTO public.a VALUES (1, repeat('x', 5000000))"
    )
    _, data = export(world, "a", format=layout)
    assert world.reason(world.plan("a", data, format=layout)) == "FILE_RECORD_TOO_LARGE"


@pytest.mark.parametrize("name", sorted(NO_INPUT))
def test_a_type_without_input_is_refused_by_name_and_its_nulls_are_not(made, name):
    world = made(f"CREATE TABLE public.a (id int PRIMARY KEY, v {name}); INSERT INTO public.a VALUES (1)")
    _, data = export(world, "a", format="JSON")
    world.sql("TRUNCATE public.a")
    assert world.load("a", data, format="JSON").report["inserted"] == 1

    row = world.plan("a", b"id,v\n2,x\n")
    assert world.reason(row) == "ENTITY_NOT_IMPORTABLE" or [e.code for e in world.errors(row)] == ["INVALID_VALUE"]
