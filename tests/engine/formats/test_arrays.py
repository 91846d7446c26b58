"""A JSON array becomes the literal that PostgreSQL reads as the same array."""

from __future__ import annotations

import json

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.formats.arrays import array_literal


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "{}"),
        ("[1,2]", "{1,2}"),
        (" [ 1.50 , -0, 1e400 ]\n", "{1.50,-0,1e400}"),
        ("[12345678901234567890123]", "{12345678901234567890123}"),
        ("[null,true,false]", "{NULL,true,false}"),
        ('["null","NULL","","a,b","{c}"]', '{"null","NULL","","a,b","{c}"}'),
        (r'["\"q\"","back\\slash","\u0001\u00e9"]', '{"\\"q\\"","back\\\\slash","\x01é"}'),
        ("[[1,2],[3,null]]", "{{1,2},{3,NULL}}"),
        ('[{"a":1.50,"b":[1,{"c":null}]}]', r'{"{\"a\":1.50,\"b\":[1,{\"c\":null}]}"}'),
        # no JSON array: as it is
        ("{1,2}", "{1,2}"),
        ("[0:1]={1,2}", "[0:1]={1,2}"),
        (" [-1:0][2:3] ={{1,2},{3,4}}", " [-1:0][2:3] ={{1,2},{3,4}}"),
        ("", ""),
        ("null", "null"),
        ('"[1]"', '"[1]"'),
    ],
)
def test_an_array_has_this_literal(text, expected):
    assert array_literal(text) == expected


@pytest.mark.parametrize("text", ["[", "[1", "[1,]", "[NaN]", "[-Infinity]", "[1]x", "['a']", "[" * 100_000, "[01]"])
def test_what_begins_like_an_array_and_is_none_is_left_to_the_input_function(text):
    assert array_literal(text + "more") == text + "more"


def _same_shape(depth: int) -> st.SearchStrategy[object]:
    item = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
    if depth == 1:
        return st.lists(item, min_size=1, max_size=4)
    return st.lists(st.lists(item, min_size=2, max_size=2), min_size=1, max_size=3)


def test_postgresql_reads_the_literal_as_the_array(empty_dsn):
    with psycopg.connect(empty_dsn) as connection:

        @given(_same_shape(1) | _same_shape(2))
        def check(array: object) -> None:
            literal = array_literal(json.dumps(array))
            assert connection.execute("SELECT %s::text[]", (literal,)).fetchone() == (array,)

        check()
