r"""An import of CSV beside psql's `\copy` of the same file: equal tables, byte for byte, and the same rows refused.

`\copy` with ON_ERROR ignore leaves out each row that an input function refuses, which is what an import does with it.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from examples.stack.servers import PostgresServer
from tests.every_type import EVERY_TYPE, LONG, SETUP, SYSTEM, TypeCase
from tests.fuzzing import examples
from tests.world import World

pytestmark = pytest.mark.timeout(600)  # a failure is made smaller for up to 300 s, and must be told then

SPELLINGS: dict[str, tuple[str, ...]] = {
    "smallint": ("+1", " 7 ", "0x7f", "0b11", "0o17", "1_000", "32768", "1.0", "", "١"),
    "integer": ("-0", "007", "2147483648", "1e3", "0x_1", "--1", "- 1", "1,000"),
    "bigint": ("9223372036854775808", "-9223372036854775809", "\t1\n"),
    "numeric": ("1e5", ".5", "5.", "+1.50", "1_000.5", "inf", "-inf", "nan", "0x1F", "1e-5", "1e131071", "1e131072",
                "1,5"),
    "numeric(5,2)": ("1.005", "999.994", "999.995", "1e2", "-0.004", "1000"),
    "numeric(3,-2)": ("149", "150", "99949", "99950", "-50"),
    "real": ("1e39", "1e-50", "0x1p3", "infinity", "1_0", "16777217"),
    "double precision": ("1e309", "1e-400", "-1e-400", "inf", " 1 ", "1d"),
    "money": ("$1,234.50", "-$1", "($1.00)", "1.005", "1.5 €"),
    "boolean": ("t", "T", "yes", "on", "1", "0", "of", "off", "o", "tru", "2", " true ", ""),
    "character varying(3)": ("abcd", "abc   ", "ab ", "ü€😀x", "e\u0301e\u0301"),
    "character(5)": ("abcdef", "abcde   ", "a\n"),
    "bytea": ("abc", "\\000\\377", "\\\\", "\\x0", "\\X00", "\\x 00 ff", "\\xg0", "\\8"),
    "uuid": ("{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", "A0EEBC999C0B4EF8BB6D6BB9BD380A11",
             "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11", "0"),
    "json": ("{'a':1}", "", "[1,]", "01", "nan", '{"a":1} x', '"\\ud800"', '{"a" : 1}', "\u00a01"),
    "jsonb": ('{"b":1,"a":2,"b":3}', " [1 , 2 ]", '"\\u0000"', '"\\ud800"', "1E400", "-", "1.", "-0.0"),
    "date": (
        "2026-2-3", "20260203", "26-02-03", "02/03/2026", "13/02/2026", "Feb 3, 2026", "3 February 2026", "2026-02-30",
        "2026.034", "J2451187", "epoch", "2026-02-03 24:00", "2026-02-03T04:05:06Z", "February", "5874898-01-01",
        "1-1-1 BC", "0000-01-01", "", "2026-02-29",
    ),
    "timestamp": (
        "2026-02-03", "2026-02-03T04:05", "2026-02-03 04:05:06.1234567", "2026-02-03 04:05:60", "2026-02-03 24:00:00",
        "2026-02-03 04:05 PM", "2026-02-03 04:05:06+07", "20260203T040506", "294277-01-01", "2026-02-03 25:00", "epoch",
        "2026-02-03 04:05:06.9999999",
    ),
    "timestamptz": (
        "2026-02-03 04:05:06", "2026-02-03 04:05:06Z", "2026-02-03 04:05:06 America/New_York", "2026-02-03 04:05 EST",
        "2026-02-03 04:05:06+05:30:15", "2026-02-03 04:05:06+16", "2026-03-29 02:30 Europe/Berlin",
        "2026-02-03 04:05 XYZ",
    ),
    "time": ("1:2", "040506", "04:05 PM", "4 am", "24:00:01", "04:05:60", "12:00+02", "04:05:06.1234567",
             "23:59:59.9999999"),
    "timetz": ("04:05", "04:05-8", "04:05 PST", "2026-02-03 04:05 America/New_York", "04:05+99"),
    "interval": ("1 day", "P1Y2M3DT4H5M6S", "1-2", "@ 1 minute ago", "1.5 hours", "1 fortnight", "P0.5Y",
                 "999999999999 years", "1 12:59:10"),
    "inet": ("1.2.3", "1.2.3.4/33", "::ffff:1.2.3.4", "FE80::1/64", "1.2.3.4/0"),
    "cidr": ("10.1.2.3/8", "10", "192.168.1/24"),
    "macaddr": ("08002b:010203", "08-00-2B-01-02-03", "0800.2b01.0203", "08:00:2b:01:02"),
    "bit(3)": ("10", "1010", "x5", "B101", "12"),
    "bit varying(4)": ("10101", "xF", "2"),
    "integer[]": ("{ 1 , 2 }", "{1,2", "{1,{2}}", "[1:2]={1}", "{null}", "{NULL}", '{"1"}', "{1,,2}", "{{}}", "1",
                  "[1:1]={1} "),
    "text[]": ("{a b, c}", "{NuLL}", '{"a\\"b"}', "{a\\,b}", "{ }", '{"a"b}', "{a,b}}", '{a "b" c}'),
    "int4range": ("[5,1]", "(1,1)", "[1,1]", " [1 , 2) ", '["1",2]', "[,]", "EMPTY", "[1,2", "[2147483647,]"),
    "numrange": ("[1.0,1.00]", "(1,1]", "[a,b]"),
    "daterange": ("[2026-01-01,2026-01-31]", "[today", "(2026-01-01,)"),
    "int4multirange": ("{[1,2),[2,3)}", "{ }", "{[3,4),[1,2)}", "{empty}", "{[1,2}"),
    "tsvector": ("b a b", "a:1 a:2A", "'it''s'", "'", "a:0", "a:99999"),
    "tsquery": ("a & b", "a b", "!a|b", "a <2> b", "a &"),
    "point": ("1,2", "(1,2", " ( 1 , 2 ) ", "(1e400,0)"),
    "box": ("(0,0),(1,1)", "1,1,0,0"),
    "path": ("(0,0),(1,1)", "0,0,1,1"),
    "public.mood": ("SAD", "null", " sad"),
    "public.pair": ("(1)", "(1,2,3,4)", "( 1 ,x,{})", '(1,"a""b",)', "(x,,)", ""),
    "public.short": ("no", "abcde", "abcd  "),
    "public.numbers": ("{1,x}", "{{1,2},{3,4}}"),
    "public.plain_json": ("{", ""),
}  # fmt: skip
"""Other spellings than those that PostgreSQL writes, accepted or refused: what is which, `\\copy` says."""

SKIPPED = {case.type for case in SYSTEM} | {"name", '"char"', "xml"}
"""Some system types read the names of tables; what `\\copy` cuts in silence to a `name` or "char" is refused."""
CASES = [case for case in EVERY_TYPE if not case.extension and case.type not in SKIPPED]
JUNK = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4)


@dataclass(frozen=True)
class Csv:
    """How a file is written."""

    delimiter: str = ","
    quote: str = '"'
    null_text: str = ""
    line_end: str = "\n"
    closed: bool = True
    """Whether the last line has an end."""
    quote_all: bool = False

    def written(self, header: list[str], rows: list[list[str | None]]) -> bytes:
        lines = [self.delimiter.join(map(self._quoted, header))]
        lines += [self.delimiter.join(map(self._cell, row)) for row in rows]
        return (self.line_end.join(lines) + self.line_end * self.closed).encode()

    def _cell(self, value: str | None) -> str:
        if value is None:
            return self.null_text
        marks = {self.delimiter, self.quote, "\r", "\n"}
        return self._quoted(value) if self.quote_all or value == self.null_text or marks & set(value) else value

    def _quoted(self, value: str) -> str:
        return self.quote + value.replace(self.quote, self.quote * 2) + self.quote

    def copy_options(self) -> str:
        return (
            f"FORMAT csv, HEADER, DELIMITER '{self.delimiter}', QUOTE {_literal(self.quote)}, NULL '{self.null_text}'"
        )

    def import_options(self) -> dict[str, Any]:
        return {"delimiter": self.delimiter, "quote": self.quote, "null_text": self.null_text}


@dataclass
class Pair:
    """The tables `ours` and `theirs`, and both ways into them."""

    world: World
    postgres: PostgresServer
    file: Path

    def make(self, columns: str) -> None:
        """The two tables, empty."""
        self.world.sql("DROP TABLE IF EXISTS public.ours, public.theirs")
        for table in ("ours", "theirs"):
            self.world.sql(f"CREATE TABLE public.{table} ({columns})")
        self.world.resources.catalogs.forget()

    def copy(self, data: bytes, options: str) -> str:
        r"""psql's `\copy` into `theirs`; what it says when it refuses the file."""
        self.file.write_bytes(data)
        command: list[str | Path] = [self.postgres.bin / "psql", "-qX", "-v", "ON_ERROR_STOP=1"]
        command += [self.world.resources.platform.dsn, "-c", rf"\copy public.theirs from '{self.file}' ({options})"]
        done = subprocess.run(command, capture_output=True, env={**os.environ, "PGCLIENTENCODING": "UTF8"}, check=False)
        return done.stderr.decode() if done.returncode else ""

    def rows(self, table: str) -> bytes:
        """In COPY's text form, by the key."""
        query = sql.SQL("COPY (SELECT * FROM {} t ORDER BY id, t::text) TO STDOUT").format(
            sql.Identifier("public", table)
        )
        with psycopg.connect(self.world.resources.platform.dsn) as connection, connection.cursor().copy(query) as copy:
            return b"".join(copy)


@pytest.fixture(scope="module")
def pair(shared_world, postgres, tmp_path_factory) -> Pair:
    shared_world.sql(
        SETUP + "CREATE TABLE public.kinds (kind text PRIMARY KEY); INSERT INTO public.kinds VALUES ('tool')"
    )
    return Pair(shared_world, postgres, tmp_path_factory.mktemp("copied") / "file.csv")


def texts_of(case: TypeCase) -> st.SearchStrategy[str | None]:
    """Values of the type, other spellings of it, both with something wrong, and anything at all."""
    known = st.sampled_from([v for v in case.values if len(v) < LONG] + list(SPELLINGS.get(case.type, ())))
    bent = st.builds(_bent, known, st.integers(0, 50), JUNK)
    return st.none() | known | known | known | bent


@st.composite
def files(draw: st.DrawFn) -> tuple[list[str], list[list[str | None]], Csv]:
    cases = draw(st.lists(st.sampled_from(CASES), min_size=1, max_size=5))
    rows = draw(st.lists(st.tuples(*map(texts_of, cases)), min_size=1, max_size=12))
    csv = draw(
        st.builds(
            Csv,
            delimiter=st.sampled_from(",,;\t|"),
            quote=st.sampled_from('""\''),
            null_text=st.sampled_from(["", "", "NULL", "\\N", "a b"]),
            line_end=st.sampled_from(["\n", "\r\n", "\r"]),
            closed=st.booleans(),
            quote_all=st.booleans(),
        )
    )
    return [case.type for case in cases], [[str(n), *row] for n, row in enumerate(rows, 1)], csv


@examples(30, 4_000)  # one takes some 0.3 s, alone on the machine
@given(files())
def test_an_import_takes_what_copy_takes_and_stores_what_it_stores(pair, made):
    types, rows, csv = made
    columns = {"id": "int PRIMARY KEY", **{f"c{n}": name for n, name in enumerate(types)}}
    pair.make(", ".join(f"{name} {type_}" for name, type_ in columns.items()))
    data = csv.written(list(columns), rows)

    told = pair.copy(data, csv.copy_options() + ", ON_ERROR ignore")
    assert told == ""
    row = pair.world.load("ours", data, csv=csv.import_options())

    assert row.status == "COMPLETED", row.error
    assert pair.rows("ours") == pair.rows("theirs")


COLUMNS = """
id int PRIMARY KEY, note text, code varchar(5), price numeric(6, 2) CHECK (price >= 0), made_on date, tags text[],
kind text REFERENCES public.kinds
"""
HEADER = b"id,note,code,price,made_on,tags,kind\n"
VALID = {
    "nothing but a header": b"",
    "NULL and the empty text": b'1,,,,,,\n2,"","",,,{},\n',
    "quotes": b'1,"a ""b"" c","""",1,2026-01-02,"{""a b"",c}",tool\n',
    "line breaks in cells": b'1,"a\nb\r\nc\rd\n",x,,,,\n2,"\n",,,,,\n3,"\r\n",,,,,\n',
    "CRLF": b'1,a,,,,,\r\n2,"b\r\n",,,,,\r\n',
    "CR": b'1,a,,,,,\r2,"b\rc",,,,,\r',
    "no line end": b"1,a,,,,,\n2,,,,,,tool",
    "no line end after a quoted cell and an empty one": b'1,a,,,,,\n2,"b","c",4,,"{x}",',
    "white space stays": b"1, a ,  ,,,,\n2,\tb\t,,,,,\n",
    "white space around what is no text": b"1,,, 1.50 , 2026-01-02 , {a} ,\n",
    "beyond the basic plane": "1,Ünï 😀 e\u0301 \u2028,😀😀😀😀😀,,,{Ü},\n".encode(),
    "a mark of the end": b"1,\\.,,,,,\n\\N,a,,,,,\n".replace(b"\\N", b"2"),
    "backslashes": b'1,\\N,\\t,,,"{\\\\\\\\}",\n',
    "a long cell": b"1," + b"x" * 1_000_000 + b',,,,,\n2,"' + b'""\n' * 300_000 + b'",,,,,\n',
    "many rows": b"".join(b'%d,"row %d",c,%d.5,2026-01-02,"{%d}",tool\n' % (n, n, n % 9000, n) for n in range(30_000)),
    "numbers": b"1,,,1e3,,,\n2,,,.5,,,\n3,,,0001.005,,,\n4,,,+7,,,\n5,,,NaN,,,\n6,,,1_000,,,\n",
    "dates": b'1,,,,"Feb 3, 2026",,\n2,,,,02/03/2026,,\n3,,,,infinity,,\n4,,,,0044-03-15 BC,,\n5,,,,20260203,,\n',
    "a text that is too long by spaces only": b"1,,abcde   ,,,,\n",
}


@pytest.mark.parametrize("data", VALID.values(), ids=VALID)
def test_a_file_that_copy_takes_is_taken(pair, data):
    pair.make(COLUMNS)
    data = HEADER.replace(b"\n", data[len(data.rstrip(b"\r\n")) :] or b"\n") + data

    assert pair.copy(data, "FORMAT csv, HEADER") == ""
    row = pair.world.load("ours", data)

    assert row.status == "COMPLETED", row.error
    assert pair.world.errors(row) == []
    assert pair.rows("ours") == pair.rows("theirs")


REFUSED = {
    "too few cells": (b"1,a\n", "WRONG_FIELD_COUNT"),
    "too many cells": (b"1,a,,,,,,\n", "WRONG_FIELD_COUNT"),
    "no key": (b",a,,,,,\n", "REQUIRED"),
    "the empty text for a number": (b'"",a,,,,,\n', "INVALID_VALUE"),
    "a number with a comma": (b'1,,,"1,50",,,\n', "INVALID_VALUE"),
    "beyond the type": (b"2147483648,a,,,,,\n", "OUT_OF_RANGE"),
    "beyond the precision": (b"1,,,10000,,,\n", "OUT_OF_RANGE"),
    "too long": (b"1,,abcdef,,,,\n", "TOO_LONG"),
    "no date": (b"1,,,,2026-02-30,,\n", "INVALID_DATE"),
    "no array": (b'1,,,,,"{a,",\n', "INVALID_VALUE"),
    "a check": (b"1,,,-1,,,\n", "CHECK_VIOLATED"),
    "no such row": (b"1,,,,,,none\n", "REFERENCE_MISSING"),
    "a key twice": (b"9,a,,,,,\n", "DUPLICATE_IN_FILE"),
    "NUL": (b"1,a\0b,,,,,\n", "NUL_BYTE"),
    "a quote that is never closed": (b'1,"a,,,,,\n', "FILE_UNTERMINATED_QUOTE"),
    "no UTF-8": (b"1,\xff,,,,,\n", "FILE_NOT_UTF8"),
    "half of a surrogate pair": (b"1,\xed\xa0\x80,,,,,\n", "FILE_NOT_UTF8"),
}


@pytest.mark.parametrize(("data", "code"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_copy_refuses_is_refused_or_its_row_listed(pair, data, code):
    pair.make(COLUMNS)
    good = b"9,good,,,,,tool\n"

    assert pair.copy(HEADER + good + data, "FORMAT csv, HEADER") != ""
    row = pair.world.plan("ours", HEADER + good + data)

    if code.startswith("FILE_"):
        assert pair.world.reason(row) == code
        return
    assert [(e.row, e.code) for e in pair.world.errors(row)] == [(3, code)]
    pair.world.apply(row)
    assert pair.copy(HEADER + good, "FORMAT csv, HEADER") == ""
    assert pair.rows("ours") == pair.rows("theirs"), "and the good row is in"


def test_where_an_import_differs_from_copy_it_does_so_on_purpose(pair):
    """Of the last, line ends of two kinds, psql says an error; in all the others it stores what was not meant."""
    pair.make('id int, note text, short name, one "char"')

    def both(data: bytes) -> tuple[bytes | str, bytes | str]:
        pair.world.sql("TRUNCATE public.ours, public.theirs")
        data = b"id,note,short,one\n" + data
        told, row = pair.copy(data, "FORMAT csv, HEADER"), pair.world.plan("ours", data)
        errors = [f"{e.row} {e.code}" for e in pair.world.errors(row)]
        if row.status != "AWAITING_APPROVAL" or errors:
            return told.partition("\n")[0] or pair.rows("theirs"), pair.world.reason(row) if row.error else errors[0]
        pair.world.apply(row)
        return told.partition("\n")[0] or pair.rows("theirs"), pair.rows("ours")

    assert both(b"1,a,,\n,,,\n") == (b"1\ta\t\\N\t\\N\n\\N\t\\N\t\\N\t\\N\n", b"1\ta\t\\N\t\\N\n"), "a blank record"
    assert both(b'1,"a"b,,\n') == (b"1\tab\t\\N\t\\N\n", "FILE_TEXT_AFTER_QUOTE")
    assert both(b'1,5" x 3",,\n') == (b"1\t5 x 3\t\\N\t\\N\n", b'1\t5" x 3"\t\\N\t\\N\n'), (
        "a quote in a bare cell is text"
    )
    assert both(b"1,," + b"x" * 64 + b",\n") == (b"1\t\\N\t" + b"x" * 63 + b"\t\\N\n", "2 TOO_LONG")
    assert both(b"1,,,ab\n") == (b"1\t\\N\t\\N\ta\n", "2 TOO_LONG")
    assert both(b"1,a,,\r\n2,b,,\n")[1] == b"1\ta\t\\N\t\\N\n2\tb\t\\N\t\\N\n", "line ends of two kinds"


def _bent(value: str, at: int, junk: str) -> str:
    """`junk` in the place of a character."""
    at %= len(value) + 1
    return value[:at] + junk + value[at + 1 :]


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
