"""Each pattern stays inside what PostgreSQL accepts: a cell it calls certain is never refused by the server."""

from __future__ import annotations

import re

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.catalog.introspect import read_tables
from engine.db.platform import Platform
from engine.imports import proof

TYPES = [
    "smallint", "integer", "bigint", "oid", "real", "double precision", "boolean", "uuid", "date", "timestamp",
    "timestamptz", "time", "json", "jsonb", "bytea", "text[]", "numeric", "numeric(5,2)", "numeric(5,0)",
    "numeric(2,2)", "numeric(3,-2)", "timestamp(3)", "time(0)",
]  # fmt: skip


@pytest.fixture
def fields(empty_dsn):
    columns = ", ".join(f"c{i} {name}" for i, name in enumerate(TYPES))
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE public.t ({columns})".encode())
    with Platform(empty_dsn).connect("test", autocommit=True) as connection:
        entities, _ = read_tables(connection, ["public"])
        yield connection, entities[0].fields


def test_what_a_pattern_takes_the_server_takes(fields):
    connection, columns = fields
    patterns = {f: re.compile(p) for f in columns if (p := proof.pattern(f)) is not None}
    assert len(patterns) >= 18

    @given(st.data())
    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    def holds(data):
        for field, pattern in patterns.items():
            text = data.draw(
                st.from_regex(pattern, fullmatch=True, alphabet=st.characters(codec="utf-8", exclude_characters="\0"))
            )
            text = text.removesuffix("\n")  # Python's $ also matches before a final line end; RE2's does not
            row = connection.execute("SELECT pg_input_is_valid(%s, %s)", (text, field.type)).fetchone()
            assert row == (True,), (field.type, text)

    holds()


@pytest.mark.parametrize(
    ("name", "certain", "doubtful"),
    [
        ("integer", ["0", "-12", "999999999"], ["2147483648", " 1", "1_000", "0x1f", ""]),
        ("numeric(5,2)", ["123.45", "-1"], ["1234", "1.005", "NaN", "1e3"]),
        (
            "date",
            ["2024-02-28", "1999-12-31", "2024-02-29", "2000-02-29"],
            ["1900-02-29", "2023-02-29", "infinity", "1/2/2024", "0000-01-01"],
        ),
        ("timestamptz", ["2024-01-01T00:00:00Z", "2024-01-01 00:00+05:30"], ["2024-01-01 24:00:00", "now"]),
        ("jsonb", ["{}", '{"a": 1, "b": "x"}'], ["[]", '{"a": "\\u0000"}', "{", '{"a": 01}']),
    ],
)
def test_what_is_certain_and_what_the_server_is_asked_about(fields, name, certain, doubtful):
    field = fields[1][TYPES.index(name)]
    pattern = re.compile(proof.pattern(field) or "")

    assert [text for text in certain if not pattern.fullmatch(text)] == []
    assert [text for text in doubtful if pattern.fullmatch(text)] == []
