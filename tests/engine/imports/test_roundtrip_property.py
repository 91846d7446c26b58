"""Random tables with random rows: out in any format and in again into the emptied table, and every row is the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from engine.imports.model import FieldMapping
from tests.engine.exports.kit import export
from tests.every_type import EVERY_TYPE, LONG, TypeCase, make_types
from tests.fuzzing import examples
from tests.world import World

pytestmark = pytest.mark.timeout(600)  # a failure is made smaller for up to 300 s, and must be told then

NAMES = (
    "id", "Name", "größe", "名前", "a b", " x ", 'q"uo"te', "it's", "%s", "select", "a.b", "=1+1", "'x", "-1",
    "{x}", "NULL", "\\N", "a,b", "a;b", "line\nbreak", "tab\there", "😀", "t", "s", "d", "v", "m", "g", "q", "f", "row",
    "new", "old", "excluded", "user", "value", "key", "x" * 63, "a\u00a0", "b\ufeff", "$1", "\\", "[0]", '"', "'",
    "#l0", "#o0", "1", "Ⅷ",
)  # fmt: skip
"""No two that differ in case only, which a header may not have without a mapping; none that is blank or a byte order
mark, which a CSV file cannot begin with; none that looks like a credential."""

KEYS = {
    "smallint", "integer", "bigint", "numeric", "numeric(5,2)", "real", "double precision", "money", "boolean", "text",
    "character varying", "character(5)", "bytea", "uuid", "jsonb", "bit varying", "date", "timestamp", "timestamptz",
    "time", "timetz", "interval", "inet", "macaddr", "int4range", "numrange", "int4multirange", "integer[]", "text[]",
    "public.mood", "public.pair", "public.short", "public.numbers", "public.document", "public.citext", "name",
    '"char"', "tsvector",
}  # fmt: skip
"""Types that a unique index can have."""

INTEGER = next(case for case in EVERY_TYPE if case.type == "integer")
LAYOUTS: list[dict[str, Any]] = [
    {"format": "JSON"},
    {"format": "JSON_LINES"},
    {"format": "CSV", "formula_guard": True},
    {"format": "CSV", "formula_guard": False},
    {"format": "CSV", "formula_guard": True, "delimiter": ";"},
    {"format": "CSV", "formula_guard": False, "delimiter": "\t"},
]


@dataclass(frozen=True)
class Column:
    name: str
    case: TypeCase
    required: bool
    default: bool
    """Whether a row without a value would get one: NULL in the file must not become it."""
    clause: str = ""

    def definition(self) -> str:
        words = [_quoted(self.name), self.case.type, self.clause]
        if self.default:
            words.append("DEFAULT " + sql.Literal(self.case.values[0]).as_string())
        return " ".join([*words, "NOT NULL" * self.required])


@dataclass(frozen=True)
class Table:
    """What a test makes: a table called `t`, and rows of texts."""

    columns: list[Column]
    constraints: list[str]
    parent: bool
    """Whether the rows refer to one another, in any order, by a last column."""
    generated: str
    keyed: bool
    rows: list[list[str | None]]

    def ddl(self) -> str:
        parts = [*(c.definition() for c in self.columns), *self.constraints]
        key = _quoted(self.columns[0].name)
        if self.parent:
            parts.append(f'"of parent" {self.columns[0].case.type} REFERENCES public.t ({key}) DEFERRABLE')
        if self.generated:
            parts.append(f'"Made" int GENERATED ALWAYS AS (num_nulls({key}) + 7) {self.generated}')
        return f"CREATE TABLE public.t ({', '.join(parts)})"


class Bench:
    """A world whose server can have `types`."""

    def __init__(self, world: World, types: set[str]) -> None:
        self.world = world
        self.types = types

    def __repr__(self) -> str:
        return "Bench"

    def make(self, table: Table) -> None:
        """The table with those of its rows that its unique keys let in together."""
        with psycopg.connect(self.world.resources.platform.dsn, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS public.t")
            connection.execute(table.ddl().encode())
            names = sql.SQL(", ").join(sql.Identifier(c.name) for c in table.columns)
            insert = sql.SQL("INSERT INTO public.t ({}) OVERRIDING SYSTEM VALUE VALUES ({}) ON CONFLICT DO NOTHING")
            for row in table.rows:
                connection.execute(insert.format(names, sql.SQL(", ").join(map(sql.Literal, row))))
            if table.parent:
                key = sql.Identifier(table.columns[0].name)
                connection.execute(
                    sql.SQL(
                        'UPDATE public.t SET "of parent" = o.other FROM (SELECT {0} AS k, lead({0}) OVER (ORDER BY {0}'
                        " DESC) AS other FROM public.t) o WHERE t.{0} = o.k"
                    ).format(key)
                )
        self.world.resources.catalogs.forget()

    def lacks(self, table: Table) -> bool:
        """Whether the server cannot have the table."""
        return any(column.case.type not in self.types for column in table.columns)

    def take_back(self, entity: str, data: bytes, **options: Any) -> None:
        """Imports the file into the emptied table."""
        self.world.sql("TRUNCATE public.t")
        row = self.world.plan(entity, data, **options)
        assert row.status == "AWAITING_APPROVAL", row.error
        assert self.world.errors(row) == []
        row = self.world.apply(row)
        assert row.status == "COMPLETED", row.error

    def rows(self) -> list[str]:
        with self.world.resources.platform.connect("test") as connection:
            query = b'SELECT (t.*)::text FROM public.t ORDER BY (t.*)::text COLLATE "C"'
            return [row[0] for row in connection.execute(query)]


@pytest.fixture(scope="module")
def bench(shared_world) -> Bench:
    with psycopg.connect(shared_world.resources.platform.dsn, autocommit=True) as connection:
        return Bench(shared_world, {case.type for case in make_types(connection)})


def values_of(case: TypeCase) -> st.SearchStrategy[str]:
    known = st.sampled_from([v for v in case.values if len(v) < LONG])
    if case.type in ("text", "character varying", "public.citext"):
        return known | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
    if case.type in ("numeric", "double precision"):
        return known | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    if case.type in ("integer", "bigint"):
        return known | st.integers(-(1 << 31), (1 << 31) - 1).map(str)
    if case.type == "bytea":
        return known | st.binary(max_size=8).map(lambda data: "\\x" + data.hex())
    return known


@st.composite
def tables(draw: st.DrawFn) -> Table:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
    key = draw(st.sampled_from(["none", "one", "one", "two", "identity", "always"]))
    columns: list[Column] = []
    for at, name in enumerate(names):
        in_key = at < {"none": 0, "two": 2}.get(key, 1)
        cases = [c for c in EVERY_TYPE if c.type in KEYS] if in_key else EVERY_TYPE
        case = draw(st.sampled_from(cases))
        if in_key and key in ("identity", "always"):
            by = "BY DEFAULT" if key == "identity" else "ALWAYS"
            columns.append(Column(name, INTEGER, required=True, default=False, clause=f"GENERATED {by} AS IDENTITY"))
            continue
        default = case.type != "regrole" and draw(st.booleans())  # PostgreSQL takes no such constant as a default
        columns.append(Column(name, case, in_key or draw(st.booleans()), default))
    constraints = []
    key_names = ", ".join(_quoted(n) for n in names[: 2 if key == "two" else 1])
    if key != "none":
        constraints.append(f"{draw(st.sampled_from(['PRIMARY KEY', 'UNIQUE']))} ({key_names})")
    if columns[-1].case.type in KEYS and draw(st.booleans()):
        nulls = draw(st.sampled_from(["", "NULLS NOT DISTINCT", "NULLS DISTINCT"]))
        constraints.append(f"UNIQUE {nulls} ({_quoted(columns[-1].name)})")
    cells = [values_of(c.case) if c.required else st.none() | values_of(c.case) for c in columns]
    rows = draw(st.lists(st.tuples(*cells), max_size=8))
    parent = key not in ("none", "two") and draw(st.booleans())
    kinds = ["", "", "STORED"] if columns[0].case.type.startswith("public.") else ["", "STORED", "VIRTUAL"]
    generated = draw(st.sampled_from(kinds))  # VIRTUAL may not use types of the installation's own
    return Table(columns, constraints, parent, generated, key != "none", [list(row) for row in rows])


@examples(25, 4_000)  # one takes some 0.4 s, alone on the machine
@given(table=tables(), layout=st.sampled_from(LAYOUTS), compression=st.sampled_from(["NONE", "GZIP", "ZSTD"]))
def test_every_row_comes_back(bench, table, layout, compression):
    if bench.lacks(table):
        return
    bench.make(table)
    before = bench.rows()

    _, data = export(bench.world, "t", compression=compression, **layout)
    if not before and layout["format"] == "JSON_LINES":  # no bytes at all, as of an upload that went wrong
        row = bench.world.plan("t", data, format="JSON_LINES")
        assert bench.world.reason(row) == "FILE_EMPTY"
        return
    bench.take_back("t", data, **_reading(layout, table))

    assert bench.rows() == before


@examples(12, 2_000)
@given(table=tables())
def test_every_row_comes_back_in_a_bundle_and_once_more_nothing_differs(bench, table):
    if bench.lacks(table):
        return
    bench.make(table)
    before = bench.rows()

    _, data = export(bench.world, "t", format="BUNDLE")
    bench.take_back("", data, format="BUNDLE")

    assert bench.rows() == before
    if table.keyed:
        again = bench.world.plan("", data, format="BUNDLE", import_type="UPSERT")
        assert again.plan_summary, again.error
        assert again.plan_summary["counts"]["unchanged"] == len(before)


def _reading(layout: dict[str, Any], table: Table) -> dict[str, Any]:
    options: dict[str, Any] = {"format": layout["format"]}
    if layout["format"] == "CSV":
        options["csv"] = {
            "delimiter": layout.get("delimiter", ","),
            "undo_formula_guard": layout["formula_guard"],
        }
    if table.generated:  # a file of one entity may be anybody's: what the database computes must be left out by name
        options["mapping"] = (FieldMapping("", column="Made"),)
    return options


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
