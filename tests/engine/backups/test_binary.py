"""What PostgreSQL writes as COPY text and reads as COPY's binary format is the same value, whatever its type."""

from __future__ import annotations

import json
import re
from datetime import UTC
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from engine.backups import binary
from engine.backups.binary import pieces_of, turn_of
from engine.db.binary import HEADER, TRAILER
from engine.db.platform import Platform
from tests.every_type import make_types

TURNED = {
    "smallint", "integer", "bigint", "oid", "numeric(5,2)", "numeric(38,10)", "real", "double precision", "boolean",
    "text", "character varying", "character varying(3)", "character(5)", "bpchar", "name", "bytea", "uuid", "json",
    "jsonb", "date", "timestamp", "timestamp(0)", "timestamptz", "timestamptz(3)", "time", "time(0)", "public.mood",
    'public."Ünï ""q"", %s {x}"', "public.short", "public.shorter", "public.document", "public.plain_json",
}  # fmt: skip
"""Types whose tables need not go as text."""

AS_TEXT = re.compile(rb"^(-?infinity|.* BC|[0-9]{5,}-.*|24:00:00|4294967295|NaN)$")
"""Values of these types that go as text. A NaN of a float need not."""

CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
VALUES = {
    "smallint": st.integers(-(1 << 15), (1 << 15) - 1),
    "integer": st.integers(-(1 << 31), (1 << 31) - 1),
    "bigint": st.integers(-(1 << 63), (1 << 63) - 1),
    "real": st.floats(width=32, allow_nan=False),
    "double precision": st.floats(allow_nan=False),
    "boolean": st.booleans(),
    "numeric(5,2)": st.decimals(-999, 999, places=2),
    "numeric(38,20)": st.decimals(-(10**17), 10**17, places=20),
    "text": st.text(CHARACTERS, max_size=20) | st.text("\\nrtbfvN.\n\t\r\b\f\v\x1c\x85\u2028\ufeff\"'", max_size=8),
    "char(5)": st.text(CHARACTERS, max_size=5),
    "bytea": st.binary(max_size=20),
    "uuid": st.uuids(),
    "date": st.dates(),
    "timestamp": st.datetimes(),
    "timestamp(3)": st.datetimes(),
    "timestamptz": st.datetimes(timezones=st.just(UTC)),
    "time": st.times(),
    "json": st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(CHARACTERS, max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(CHARACTERS, max_size=3), inner, max_size=3),
        max_leaves=5,
    ).map(json.dumps),
}  # fmt: skip


@pytest.fixture
def connection(empty_dsn):
    with Platform(empty_dsn).connect("test", autocommit=True) as connection:
        yield connection


class Table:
    """A table that is read as text, and one like it that is filled in the binary format."""

    def __init__(self, connection, columns):
        self._connection = connection
        connection.execute("DROP TABLE IF EXISTS public.read, public.filled")
        connection.execute(f"CREATE TABLE public.read ({columns})".encode())
        connection.execute("CREATE TABLE public.filled (LIKE public.read)")
        names = connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'public.read'::regclass AND attnum > 0 ORDER BY attnum"
        ).fetchall()
        self.names = [name for (name,) in names]

    def turn(self):
        return turn_of(self._connection, sql.Identifier("public", "filled"), self.names)

    def lines(self):
        with self._connection.cursor() as cursor, cursor.copy("COPY public.read TO STDOUT") as copy:
            return [bytes(line) for line in copy]

    def fill(self, *turned):
        with self._connection.cursor() as cursor, cursor.copy("COPY public.filled FROM STDIN (FORMAT binary)") as copy:
            copy.write(b"".join([HEADER, *(b"".join(rows) for rows in turned), TRAILER]))

    def equal(self):
        """The images of the rows are the same, and their texts."""
        row = "(SELECT r, r::text AS t, row_number() OVER () AS n FROM public.{} r) {}"
        (differing,) = self._connection.execute(
            f"SELECT count(*) FILTER (WHERE a.t IS DISTINCT FROM b.t OR NOT record_image_eq(a.r, b.r))"
            f" FROM {row.format('read', 'a')} FULL JOIN {row.format('filled', 'b')} USING (n)".encode()
        ).fetchone()
        return not differing


def test_every_type(connection, empty_dsn):
    """Each value by itself; what cannot be turned is what was known not to be."""
    with psycopg.connect(empty_dsn, autocommit=True) as other:
        cases = make_types(other)
    found = set()
    for case in cases:
        table = Table(connection, f"c {case.type}")
        for value in (*case.values, None):
            connection.execute(
                sql.SQL("INSERT INTO public.read SELECT {}::{}").format(sql.Literal(value), sql.SQL(case.type))
            )
        if table.turn() is None:
            continue
        found.add(case.type)
        turned: list[Any] = []
        lines = table.lines()
        for line in lines:
            if (rows := table.turn()([line][0])) is None:
                assert AS_TEXT.match(line.rstrip(b"\n")), (case.type, line)
                turned.append(None)
            else:
                turned.append(rows)
        kept = [n for n, rows in enumerate(turned) if rows is not None]
        connection.execute("TRUNCATE public.read")
        with connection.cursor() as cursor, cursor.copy("COPY public.read FROM STDIN") as copy:
            for n in kept:
                copy.write(lines[n])
        table.fill(*(turned[n] for n in kept))
        assert len(kept) > 1, case.type
        assert table.equal(), case.type
    assert found == TURNED


def test_any_row(connection):
    names = [*VALUES, "jsonb"]
    table = Table(connection, ", ".join(f"c{n} {name}" for n, name in enumerate(names)))
    no_nul = VALUES["json"].filter(lambda text: "\\u0000" not in str(text))
    values = [st.none() | one for one in (*VALUES.values(), no_nul)]

    @given(st.lists(st.tuples(*values), min_size=1, max_size=20), st.integers(0, 19))
    @settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
    def holds(rows, at):
        connection.execute("TRUNCATE public.read, public.filled")
        with connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO public.read VALUES ({', '.join(['%s'] * len(names))})".encode(), rows)
        lines, turn = table.lines(), table.turn()
        pieces = [b"".join(some) for some in (lines[:at], lines[at:]) if some]
        turned = [turn(piece) for piece in pieces]
        assert None not in turned
        table.fill(*turned)
        assert table.equal()

    holds()


@pytest.mark.parametrize(
    "texts",
    [
        ["\ufeff", "a"],
        ["\ufeff\ufeffa", None],
        ["", "", ""],
        [None, ""],
        ["\\N", None, "\\", "\\\\", "\\t", "\t", "\\\\t", "\\.", "\n", "\r\n"],
        ["\u2028", "\x0b", "\x1c", "\x85", "\x1f", "\x01", "a\rb"],
        ['"', '"a', '""', '"a\tb"', "'", ",", " a ", "NULL", "null", "NaN", "#"],
    ],
)
@pytest.mark.parametrize("more", [0, 1])
def test_texts_that_a_reader_of_csv_could_take_for_something_else(connection, texts, more):
    table = Table(connection, "a text" + ", b text" * more)
    for text in texts:
        connection.execute(f"INSERT INTO public.read VALUES (%s{', %s' * more})".encode(), [text] * (1 + more))

    table.fill(table.turn()(b"".join(table.lines())))

    assert table.equal()


def test_columns_that_a_stream_lacks_are_none_of_it(connection):
    table = Table(connection, "a int, b int GENERATED ALWAYS AS (a + 1) STORED, c inet, d text")
    table.names = ["d", "a"]
    assert table.turn() is not None
    table.names = ["d", "c"]
    assert table.turn() is None


def test_what_follows_a_piece_that_cannot_be_turned_is_left_too(connection):
    turn = Table(connection, "a date").turn()

    assert turn(b"2026-11-26\n") is not None
    assert turn(b"infinity\n") is None
    assert turn(b"2026-11-26\n") is None


@pytest.mark.parametrize("piece", [b"1\t2\t3\n", b"1\n", b"1\t2", b"1\t2\r3\t4\n", b"x" * 100 + b"\t1\n", b"1\t\xff\n"])
def test_what_is_no_piece_of_the_stream_is_not_turned(connection, monkeypatch, piece):
    monkeypatch.setattr(binary, "LONGEST", 50)
    assert Table(connection, "a text, b text").turn()(b"1\t2\n") is not None
    assert Table(connection, "a text, b text").turn()(piece) is None


@given(
    st.lists(st.integers(0, 30).map(lambda size: b"x" * size + b"\n"), max_size=30), st.lists(st.integers(0, 500)),
    st.booleans(),
)  # fmt: skip
def test_pieces_are_whole_rows_but_of_long_ones(rows, cuts, cut):
    stream = b"".join(rows)
    places = sorted({0, len(stream), *(place for place in cuts if place < len(stream))})
    blocks = [stream[a:b] for a, b in pairwise(places)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binary, "PIECE", 20)
        patch.setattr(binary, "LONGEST", 25)
        pieces = list(pieces_of(blocks))

    assert b"".join(pieces) == stream
    assert all(len(piece) <= 25 + 31 for piece in pieces), "a long row, and one begun before it"
    assert all(piece.endswith(b"\n") for piece in pieces) or max(map(len, rows)) > 25
