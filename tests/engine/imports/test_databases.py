"""Databases that nobody here wrote: exported in full, taken back into an empty copy, and equal row for row."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from examples.stack.servers import PostgresServer
from tests.engine.exports.kit import export
from tests.engine.formats.reading import DATA
from tests.fix_stack import skip_or_fail
from tests.world import World

NAMES = ("chinook", "chinook_autoincrementpks", "clubdata", "northwind", "pagila_neon")
SECRET = {"pagila_neon": ("staff", "password")}
"""The only field of each whose name looks like a credential's."""

TABLES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname IN ('public', 'cd') ORDER BY 1, 2
"""
SEQUENCES = """
SELECT s.oid::regclass::text, a.attrelid::regclass::text, quote_ident(a.attname)
FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace
LEFT JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.refobjid = s.oid -- a default calls nextval
LEFT JOIN pg_attrdef e ON e.oid = d.objid
LEFT JOIN pg_depend i ON i.objid = s.oid AND i.classid = 'pg_class'::regclass AND i.deptype = 'i' -- an identity
LEFT JOIN pg_attribute a ON (a.attrelid, a.attnum) IN ((e.adrelid, e.adnum), (i.refobjid, i.refobjsubid))
LEFT JOIN pg_class t ON t.oid = a.attrelid
WHERE s.relkind = 'S' AND n.nspname IN ('public', 'cd') AND NOT coalesce(t.relispartition, false) ORDER BY 1
"""


@dataclass
class Database:
    """One of them: with its rows, and a copy without any."""

    name: str
    full: str
    empty: str
    make_world: Callable[..., World]

    def world(self, dsn: str, catalog_file: Path | None = None) -> World:
        return self.make_world(dsn, platform_schemas="public,cd", catalog_file=catalog_file)

    def rows(self, dsn: str, *, without: tuple[str, str] | None = None) -> dict[str, bytes]:
        """Each table in COPY's text form, in an order of its own that no key and no collation decides."""
        with psycopg.connect(dsn, options="-c timezone=UTC") as connection:
            return {
                f"{schema}.{table}": _copied(connection, schema, table, without)
                for schema, table in connection.execute(TABLES).fetchall()
            }


@pytest.fixture(scope="module", params=NAMES)
def loaded(request, postgres) -> Iterator[str]:
    """The name of a database with its rows; nobody is connected to it between tests."""
    yield from _loaded(request.param, postgres)


@pytest.fixture
def database(loaded, postgres, make_world) -> Iterator[Database]:
    yield from _with_a_copy(loaded, postgres, make_world)


def test_every_row_comes_back_into_an_empty_copy_and_the_next_insert_works(database):
    here, there = database.world(database.full), database.world(database.empty)
    found = [(e.name, f.name) for e in here.resources.catalogs.load().entities() for f in e.fields if f.secret]
    secret = SECRET.get(database.name)
    assert found == ([secret] if secret else []), "a table below is compared without it"

    _take_back(here, there)

    there_rows, here_rows = (database.rows(dsn, without=secret) for dsn in (database.empty, database.full))
    assert there_rows == here_rows
    assert any(here_rows.values())
    for sequence, table, column in there.sql(SEQUENCES):
        if column is not None:
            following = there.sql(f"SELECT nextval(%s), max({column}) + 1 FROM {table}", sequence)
            assert following[0][0] == following[0][1], f"the next insert into {table} by {sequence}"


def test_the_same_rows_once_more_change_nothing(database):
    here = database.world(database.full)
    before = database.rows(database.full)
    _, data = export(here, format="BUNDLE", kind="FULL")

    row = here.load("", data, format="BUNDLE", import_type="UPSERT")

    report = row.report
    assert row.status == "COMPLETED", row.error
    assert report["unchanged"] == report["total_records"] == sum(len(t.splitlines()) for t in before.values())
    assert database.rows(database.full) == before


def test_what_is_left_out_is_named(database):
    here = database.world(database.full)
    row, _ = export(here, format="BUNDLE", kind="FULL")

    query = "SELECT format('%s.%s', n.nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    views = {name for (name,) in here.sql(query + " WHERE relkind IN ('v', 'm') AND nspname IN ('public', 'cd')")}
    left_out = [n["metadata"]["entity"] for n in (row.options or {})["notices"] if n["code"] == "NOT_COVERED"]
    assert sorted(left_out) == sorted(views)


@pytest.mark.parametrize("loaded", SECRET, indirect=True)
@pytest.mark.parametrize(
    ("rule", "stored"),
    [('secrets.{field} = {{ fill = "!" }}', [("!",)]), ('plain = ["{field}"]', None)],
    ids=["filled", "declared no secret"],
)
def test_a_field_whose_name_looks_secret_is_filled_or_comes_back(database, tmp_path, rule, stored):
    entity, field = SECRET[database.name]
    file = tmp_path / "catalog.toml"
    file.write_text(f"[entities.{entity}]\n{rule.format(field=field)}\n")
    here, there = database.world(database.full, file), database.world(database.empty, file)

    _take_back(here, there)

    without = None if stored is None else (entity, field)
    assert database.rows(database.empty, without=without) == database.rows(database.full, without=without)
    if stored is not None:
        assert there.sql(f"SELECT DISTINCT {field} FROM {entity}") == stored


def _take_back(here: World, there: World) -> None:
    """A bundle of everything, imported as it is."""
    _, data = export(here, format="BUNDLE", kind="FULL")
    row = there.plan("", data, format="BUNDLE", auto_apply=True)
    assert row.status == "COMPLETED", row.error
    assert there.errors(row) == []
    report = row.report or {}
    assert report["inserted"] == report["total_records"] > 0


def _loaded(name: str, postgres: PostgresServer) -> Iterator[str]:
    file = DATA / "databases" / f"{name}.sql.gz"
    if not file.is_file():
        skip_or_fail(f"DATAOPS_TEST_DATA names no folder with databases/{file.name}")
    _psql(postgres, postgres.create_database(name), gzip.decompress(file.read_bytes()))
    yield name
    postgres.drop_database(name)


def _with_a_copy(name: str, postgres: PostgresServer, make_world: Callable[..., World]) -> Iterator[Database]:
    empty = postgres.create_database(f"{name}_empty", name)
    with psycopg.connect(empty, autocommit=True) as connection:
        tables = [sql.Identifier(*row) for row in connection.execute(TABLES).fetchall()]
        connection.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(tables)))
        for sequence, *_ in connection.execute(SEQUENCES).fetchall():
            connection.execute(f"ALTER SEQUENCE {sequence} RESTART".encode())
    yield Database(name, postgres.dsn(name), empty, make_world)
    postgres.drop_database(f"{name}_empty")


def _psql(postgres: PostgresServer, dsn: str, script: bytes) -> None:
    command: list[str | Path] = [postgres.bin / "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-o", os.devnull, dsn]
    subprocess.run(command, input=script, check=True)


def _copied(connection: psycopg.Connection, schema: str, table: str, without: tuple[str, str] | None) -> bytes:
    names = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        (sql.Identifier(schema, table).as_string(),),
    ).fetchall()
    columns = sql.SQL(", ").join(sql.Identifier(name) for (name,) in names if (table, name) != without)
    query = sql.SQL('COPY (SELECT t.* FROM (SELECT {} FROM {}) t ORDER BY (t.*)::text COLLATE "C") TO STDOUT')
    with connection.cursor().copy(query.format(columns, sql.Identifier(schema, table))) as copy:
        return b"".join(copy)
