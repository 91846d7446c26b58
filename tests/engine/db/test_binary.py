"""A value of COPY's binary format is told as PostgreSQL itself would write it, for every type that can be told."""

from __future__ import annotations

import random
import struct

import psycopg
import pytest
from psycopg import sql

from engine.catalog.introspect import read_tables
from engine.db.binary import NUMBER, READERS, TRAILER, cells, field_count, rows_only
from engine.db.copy import CopyOut
from engine.db.platform import Platform
from engine.imports.planfile import split_line
from tests.every_type import make_types

RANDOM = {
    "int8": "(random() * 1.8e19 - 9e18)::numeric::bigint",
    "float4": "((random() - 0.5) * power(10, (random() * 70 - 35)::int))::real",
    "float8": "(random() - 0.5) * power(10::float8, (random() * 600 - 300)::int)",
    "numeric": "round((random()::numeric - 0.5) * power(10::numeric, (random() * 60 - 30)::int), (random() * 30)::int)",
    "date": "'2000-01-01'::date + ((random() - 0.3) * 4000000)::int",
    "time": "'00:00'::time + random() * interval '24 hours'",
    "timestamp": "'2000-01-01'::timestamp + (random() - 0.02) * interval '200000 years'",
    "timestamptz": "'2000-01-01'::timestamptz + (random() - 0.02) * interval '200000 years'",
}


@pytest.fixture
def connection(empty_dsn):
    with Platform(empty_dsn).connect("test", autocommit=True) as connection:
        yield connection


def in_both_forms(connection, select, base):
    """The rows of one column as the binary format tells them, and as the text format does."""
    query = sql.SQL("COPY ({}) TO STDOUT {}")
    binary = CopyOut(connection, query.format(sql.SQL(select), sql.SQL("(FORMAT binary)")))
    text = CopyOut(connection, query.format(sql.SQL(select), sql.SQL("")))
    told = [cells(row, [READERS[base]]) for rows in rows_only(iter(binary)) for row in rows]
    return told, [split_line(line) for lines in text for line in lines]


def test_edge_values_of_every_type_that_can_be_told(connection):
    with psycopg.connect(connection.info.dsn, password=connection.info.password, autocommit=True) as owner:
        cases = make_types(owner)
        seen = set()
        for case in cases:
            owner.execute("DROP TABLE IF EXISTS public.t")
            owner.execute(f"CREATE TABLE public.t (v {case.type})".encode())
            (field,) = read_tables(connection, ["public"])[0][0].fields
            base = "enum" if field.labels else field.base
            if base not in READERS:
                continue
            seen.add(base)
            for value in (*case.values, None):
                owner.execute(sql.SQL("INSERT INTO public.t VALUES ({})").format(sql.Literal(value)))
            told, text = in_both_forms(connection, "SELECT v FROM public.t", base)
            assert told == text, case.type
    assert seen == set(READERS)


@pytest.mark.parametrize(("base", "expression"), RANDOM.items())
def test_values_anywhere(connection, base, expression):
    connection.execute(sql.SQL("SELECT setseed({})").format(random.random()))
    connection.execute(
        sql.SQL("CREATE TEMP TABLE v AS SELECT {} AS v FROM generate_series(1, 5000)").format(sql.SQL(expression))
    )
    told, text = in_both_forms(connection, "SELECT v FROM pg_temp.v", base)
    assert [pair for pair in zip(told, text, strict=True) if pair[0] != pair[1]] == []


def test_a_number_before_all_fields_is_left_out_again(connection):
    select = (
        "SELECT g::bigint, g::int, CASE WHEN g > 1 THEN repeat('x', g) END, NULL::text FROM generate_series(1, 3) g"
    )
    out = CopyOut(connection, sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(sql.SQL(select)))
    rows = [row for block in rows_only(iter(out)) for row in block]
    readers = [READERS[name] for name in ("int8", "int4", "text", "text")]

    assert [cells(row, readers) for row in rows] == [
        ["1", "1", None, None],
        ["2", "2", "xx", None],
        ["3", "3", "xxx", None],
    ]
    bare = [field_count(3) + row[NUMBER:] for row in rows]
    assert [cells(row, readers[1:]) for row in bare] == [["1", None, None], ["2", "xx", None], ["3", "xxx", None]]


def test_no_rows_are_no_rows(connection):
    out = CopyOut(connection, sql.SQL("COPY (SELECT 1 WHERE {}) TO STDOUT (FORMAT binary)").format(False))
    assert list(rows_only(iter(out))) == []
    assert struct.unpack("!h", TRAILER) == (-1,)
