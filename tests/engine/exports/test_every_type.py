"""Every type of PostgreSQL, with its edges, through every format: read back, the rows are equal byte for byte."""

from __future__ import annotations

import io

import psycopg
import pytest

from engine.catalog import Entity
from engine.formats.arrays import array_literal
from engine.formats.csv import CsvReader
from engine.imports.decode import without_guard
from tests.engine.exports.kit import export, load_json, text_of
from tests.every_type import TypeCase, make_types, unlisted_types
from tests.world import World


class Everything:
    """A table with a column for each type and one for an array of each, and an empty copy."""

    def __init__(self, world: World, cases: list[TypeCase]) -> None:
        self.world = world
        arrays = [case for case in cases if case.arrays]
        self.columns = [f"c{n}" for n in range(len(cases))] + [f"a{n}" for n in range(len(arrays))]
        self.types = [case.type for case in cases] + [f"{case.type}[]" for case in arrays]
        self.values = [list(case.values) for case in cases]
        self.arrays = [_array_of(case) for case in arrays]

    def fill(self) -> None:
        columns = ", ".join(f"{c} {t}" for c, t in zip(self.columns, self.types, strict=True))
        for table in ("everything", "copy"):
            self._run(f"CREATE TABLE public.{table} (id int PRIMARY KEY, {columns})")
        height = max(map(len, self.values)) + 1
        for row in range(height):
            scalars = [values[row] if row < len(values) else None for values in self.values]
            arrays: list[str | None] = [None] * len(self.arrays)
            if row == 0:
                arrays = list(self.arrays)
            self.insert("everything", [str(row), *scalars, *arrays])

    def insert(self, table: str, values: list[str | None]) -> None:
        places = ", ".join(["%s"] * len(values))
        self._run(f"INSERT INTO public.{table} VALUES ({places})", values)

    def rows(self, table: str) -> list[str]:
        with self.world.resources.platform.connect("test") as connection:
            return [r[0] for r in connection.execute(f"SELECT (t.*)::text FROM public.{table} t ORDER BY id".encode())]

    def entity(self) -> Entity:
        return self.world.resources.catalogs.load().entity("everything")

    def _run(self, query: str, values: list[str | None] | None = None) -> None:
        with self.world.resources.platform.connect("test", autocommit=True) as connection:
            connection.execute(query.encode(), values)


def _array_of(case: TypeCase) -> str:
    quoted = ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in case.values)
    return "{" + (";" if case.type == "box" else ",").join(["NULL", *quoted]) + "}"


@pytest.fixture
def everything(made) -> Everything:
    world = made("SELECT 1")
    with psycopg.connect(world.resources.platform.dsn, autocommit=True) as connection:
        found = Everything(world, make_types(connection))
    found.fill()
    return found


def test_the_list_has_every_type_that_the_server_has(empty_dsn):
    with psycopg.connect(empty_dsn) as connection:
        assert unlisted_types(connection) == []


@pytest.mark.parametrize("layout", ["JSON", "JSON_LINES"])
def test_json_brings_every_type_back(everything, layout):
    row, data = export(everything.world, "everything", format=layout)

    found = load_json(data) if layout == "JSON" else [load_json(line) for line in data.decode().split("\n")[:-1]]
    fields = everything.entity().fields
    for item in found:
        assert list(item) == [field.name for field in fields]
        texts = [text_of(item[field.name]) for field in fields]
        everything.insert(
            "copy", [array_literal(t) if f.element and t else t for f, t in zip(fields, texts, strict=True)]
        )
    assert row.record_count == len(found)
    assert everything.rows("copy") == everything.rows("everything")


@pytest.mark.parametrize("guard", [True, False])
def test_csv_brings_every_type_back(everything, guard):
    _, data = export(everything.world, "everything", formula_guard=guard)

    for batch in CsvReader(lambda: io.BytesIO(data)).batches():
        assert not batch.broken
        for record in (without_guard(batch) if guard else batch).cells.to_pylist():
            everything.insert("copy", list(record.values()))
    assert everything.rows("copy") == everything.rows("everything")


def test_json_says_of_each_type_what_it_can(everything):
    _, data = export(everything.world, "everything", format="JSON")

    first = load_json(data)[0]
    kinds = {
        type_: type(first[column]).__name__ for column, type_ in zip(everything.columns, everything.types, strict=True)
    }
    numbers = ("smallint", "integer", "bigint", "numeric", "real", "double precision")
    assert {kinds[name] for name in numbers} == {"Digits"}
    assert (kinds["boolean"], kinds["date"], kinds["public.mood"], kinds["bytea"]) == ("bool", "str", "str", "str")
    assert {kinds[f"{name}[]"] for name in (*numbers, "text", "boolean", "uuid", "date", "public.mood")} == {"list"}
    assert {kinds[f"{name}[]"] for name in ("json", "jsonb", "bytea", "public.pair", "int4range")} == {"str"}
