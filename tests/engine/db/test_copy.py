"""COPY out is every row once, and an error of the server is an error of ours, at the start and in the middle."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from engine.db.copy import CopyOut
from engine.db.platform import Platform


@pytest.fixture
def connection(empty_dsn):
    with Platform(empty_dsn).connect("test", autocommit=True) as connection:
        yield connection


def copy(connection, select):
    out = CopyOut(connection, sql.SQL("COPY ({}) TO STDOUT").format(sql.SQL(select)))
    return out, [line for lines in out for line in lines]


def test_every_row_comes_once_and_is_counted(connection):
    out, lines = copy(connection, "SELECT g, repeat('x', 100) FROM generate_series(1, 30000) g")

    assert [int(line.split(b"\t")[0]) for line in lines] == list(range(1, 30001))
    assert out.rows == 30_000
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_no_rows_are_no_rows(connection):
    assert copy(connection, "SELECT 1 WHERE false")[1] == []


@pytest.mark.parametrize(
    ("select", "error"),
    [
        ("SELECT 1/0", psycopg.errors.DivisionByZero),
        ("SELECT 1 / (20000 - g) FROM generate_series(1, 30000) g", psycopg.errors.DivisionByZero),
        ("SELECT nothing", psycopg.errors.UndefinedColumn),
    ],
)
def test_an_error_is_raised_and_the_session_goes_on(connection, select, error):
    with pytest.raises(error):
        copy(connection, select)
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_what_is_no_copy_is_refused(connection):
    with pytest.raises(psycopg.ProgrammingError):
        list(CopyOut(connection, sql.SQL("SELECT {}").format(1)))
