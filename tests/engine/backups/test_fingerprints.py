"""Fingerprints of rows: what differs at all has another, and what is the same has the same wherever it stands."""

from __future__ import annotations

import pytest
from psycopg import sql

from engine.backups.manifest import Column
from engine.backups.rows import counted
from engine.db.platform import Connection

SEED = -77


@pytest.fixture
def connection(fresh):
    """Of an empty database, as our own sessions are."""
    with fresh("SELECT 1").resources.platform.connect("test") as connection:
        yield connection


def sum_of(connection: Connection, rows: str, *columns: tuple[str, str]) -> int:
    """Of the fingerprints of `VALUES rows`, whose columns are named and typed."""
    listed = [Column(name, kind, kind, False) for name, kind in columns]
    cast = ", ".join(f"{name}::{kind} AS {name}" for name, kind in columns)
    names = ", ".join(name for name, _ in columns)
    relation = sql.SQL(f"(SELECT {cast} FROM (VALUES {rows}) v({names}))")
    return counted(connection, relation, listed, SEED)[1]


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("text", "NULL", "''"),
        ("text", "'a'", "'a '"),
        ("character varying(9)", "NULL", "''"),
        ("character(3)", "NULL", "''"),
        ("numeric", "'1.0'", "'1.00'"),
        ("numeric", "NULL", "'0'"),
        ("double precision", "'0'", "'-0'"),
        ("real", "'0'", "'-0'"),
        ("jsonb", "'{\"a\": 1.0}'", "'{\"a\": 1.00}'"),
        ("json", "'{}'", "'{ }'"),
        ("interval", "'1 day'", "'24 hours'"),
        ("time with time zone", "'12:00+00'", "'13:00+01'"),
        ("uuid", "NULL", "'00000000-0000-0000-0000-000000000000'"),
        ("bigint", "NULL", "'0'"),
        ("bigint", "'1'", "'-1'"),
        ("smallint", "'1'", "'2'"),
        ("timestamp without time zone", "'infinity'", "'-infinity'"),
        ("timestamp(3) with time zone", "'2020-01-01'", "'2020-01-01 00:00:00.001'"),
        ("text[]", "'{}'", "NULL"),
        ("text[]", "'{NULL}'", "'{\"NULL\"}'"),
        ("bytea", "''", "NULL"),
        ("inet", "'10.0.0.1'", "'10.0.0.1/24'"),
    ],
)
def test_values_that_differ_at_all(connection, kind, one, other):
    first, second = (sum_of(connection, f"({value})", ("v", kind)) for value in (one, other))

    assert first != second
    assert first == sum_of(connection, f"({one})", ("v", kind))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("('ab', 'c')", "('a', 'bc')"),
        ("('a', NULL)", "(NULL, 'a')"),
        ("('a', 'a')", "('b', 'b')"),
        ("(NULL, NULL)", "('', '')"),
        ("('a', 'b'), ('c', 'd')", "('a', 'd'), ('c', 'b')"),
        ("('a', 'b'), ('a', 'b')", "('a', 'b')"),
        ("('a', 'a'), ('b', 'b')", "('a', 'b'), ('b', 'a')"),
    ],
)
@pytest.mark.parametrize("kind", ["text", "name"])
def test_values_in_other_places(connection, kind, one, other):
    first, second = (sum_of(connection, rows, ("v", kind), ("w", kind)) for rows in (one, other))

    assert first != second


def test_the_order_of_rows_does_not_count(connection):
    columns = (("v", "integer"), ("w", "text"))

    assert sum_of(connection, "(1, 'a'), (2, 'b')", *columns) == sum_of(connection, "(2, 'b'), (1, 'a')", *columns)


def test_as_many_columns_as_a_table_can_have(connection):
    connection.execute(f"CREATE TABLE public.t ({', '.join(f'c{n} int' for n in range(1600))})")
    connection.execute("INSERT INTO public.t (c7) VALUES (1)")
    columns = [Column(f"c{n}", "integer", "integer", False) for n in range(1600)]

    assert counted(connection, sql.SQL("public.t"), columns, SEED)[0] == 1


def test_no_column_at_all(connection):
    connection.execute("CREATE TABLE public.t ()")
    connection.execute("INSERT INTO public.t SELECT FROM generate_series(1, 2)")

    rows, total = counted(connection, sql.SQL("public.t"), [], SEED)

    assert (rows, total % 2) == (2, 0)
