"""Conditions, orders and moments: read as people write them, or refused with what was found and expected."""

from __future__ import annotations

import re

import pytest
from dataops.v1 import exports_pb2
from dataops_client.conditions import ConditionError, parse_condition, parse_moment, parse_order
from hypothesis import given
from hypothesis import strategies as st

_OPERATORS = {
    "=": exports_pb2.FILTER_OPERATOR_IN,
    "!=": exports_pb2.FILTER_OPERATOR_NOT_IN,
    "<": exports_pb2.FILTER_OPERATOR_LESS,
    "<=": exports_pb2.FILTER_OPERATOR_LESS_OR_EQUAL,
    ">": exports_pb2.FILTER_OPERATOR_GREATER,
    ">=": exports_pb2.FILTER_OPERATOR_GREATER_OR_EQUAL,
    "^=": exports_pb2.FILTER_OPERATOR_PREFIX,
}
# two strategies, since text() makes one alphabet of a union, in which the few characters that matter are lost
_texts = st.text("ab1' \",=:!<^_", max_size=8) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_names = _texts.filter(bool)


def _plain_or_quoted(value: str) -> str:
    # `a<=1` is less or equal, not less than `=1`
    plain = re.fullmatch(r"[^\s',=]([^,]*[^\s,])?", value) and value.lower() != "null"
    return value if plain else "'" + value.replace("'", "''") + "'"


def _name(field: str) -> str:
    return field if re.fullmatch(r"[A-Za-z0-9_.$-]+", field) else '"' + field.replace('"', '""') + '"'


@given(_names, st.sampled_from(sorted(_OPERATORS)), _texts, st.sampled_from(["", " ", "  "]))
def test_a_comparison_is_read_as_it_was_written(field: str, sign: str, value: str, gap: str):
    found = parse_condition(f"{_name(field)}{gap}{sign}{gap}{_plain_or_quoted(value)}")

    assert (found.field, found.operator, list(found.values)) == (field, _OPERATORS[sign], [value])


@given(_names, st.booleans(), st.lists(_texts, min_size=1, max_size=5))
def test_a_list_of_values_is_read_as_it_was_written(field: str, inside: bool, values: list[str]):
    word = "in" if inside else "not-in"
    found = parse_condition(f"{_name(field)} {word} {', '.join(map(_plain_or_quoted, values))}")

    expected = exports_pb2.FILTER_OPERATOR_IN if inside else exports_pb2.FILTER_OPERATOR_NOT_IN
    assert (found.field, found.operator, list(found.values)) == (field, expected, values)


@given(st.lists(st.tuples(_names, st.booleans()), min_size=1, max_size=4))
def test_an_order_is_read_as_it_was_written(steps: list[tuple[str, bool]]):
    found = parse_order(",".join(_name(field) + (":desc" if down else "") for field, down in steps))

    assert [(step.field, step.descending) for step in found] == steps


@pytest.mark.parametrize(
    ("text", "operator", "values"),
    [
        ("age>=18", exports_pb2.FILTER_OPERATOR_GREATER_OR_EQUAL, ["18"]),
        ("age = -5", exports_pb2.FILTER_OPERATOR_IN, ["-5"]),
        ("name = Anna Maria", exports_pb2.FILTER_OPERATOR_IN, ["Anna Maria"]),
        ("name = ' x '", exports_pb2.FILTER_OPERATOR_IN, [" x "]),
        ("name = ''", exports_pb2.FILTER_OPERATOR_IN, [""]),
        ("name = it's", exports_pb2.FILTER_OPERATOR_IN, ["it's"]),
        ("name = 'null'", exports_pb2.FILTER_OPERATOR_IN, ["null"]),
        ("name != in", exports_pb2.FILTER_OPERATOR_NOT_IN, ["in"]),
        ("status IN A,B", exports_pb2.FILTER_OPERATOR_IN, ["A", "B"]),
        ("status not in 'a,b', c", exports_pb2.FILTER_OPERATOR_NOT_IN, ["a,b", "c"]),
        ("in in in", exports_pb2.FILTER_OPERATOR_IN, ["in"]),
        ("phone is null", exports_pb2.FILTER_OPERATOR_IS_NULL, []),
        ("phone IS  NOT NULL ", exports_pb2.FILTER_OPERATOR_IS_NOT_NULL, []),
        ("email ^= a@", exports_pb2.FILTER_OPERATOR_PREFIX, ["a@"]),
    ],
)
def test_what_people_write_is_understood(text: str, operator: int, values: list[str]):
    found = parse_condition(text)

    assert (found.operator, list(found.values)) == (operator, values)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected a field's name"),
        ("= 5", "found '= 5', expected a field's name"),
        ("age", "expected one of = != < <= > >= ^= in not-in, is null, is not null"),
        ("age == 5 x", None),
        ("age is 5", "found 'is 5' behind the field"),
        ("age between 1", "found 'between 1' behind the field"),
        ("age =", "found no value, expected one; the empty text is written ''"),
        ("age = null", "write is null, or 'null' in quotes"),
        ("age != NULL", "write is not null, or 'null' in quotes"),
        ("age in 1,,2", "found no value"),
        ("age in 1,null", "write is null"),
        ("age in 'a' b", "found 'b' behind a value, expected a comma"),
        ("age is null 5", "found '5' behind null, expected nothing"),
    ],
)
def test_what_cannot_be_understood_is_refused(text: str, complaint: str | None):
    if complaint is None:  # a second sign is part of the value: the server says what it is not
        assert list(parse_condition(text).values) == ["= 5 x"]
        return
    with pytest.raises(ConditionError) as caught:
        parse_condition(text)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "a field's name"), ("a:up", "found 'up' behind a, expected asc or desc"), ("a b", "expected a comma"),
     ("a,", "a field's name"), ("a:desc:asc", "expected a comma")],
)  # fmt: skip
def test_a_wrong_order_is_refused(text: str, complaint: str):
    with pytest.raises(ConditionError) as caught:
        parse_order(text)
    assert complaint in str(caught.value)


def test_a_date_is_its_beginning_in_utc_and_a_time_needs_its_offset():
    assert parse_moment("2026-01-31").ToJsonString() == "2026-01-31T00:00:00Z"
    assert parse_moment("2026-01-31T12:00:00.5+02:00").ToJsonString() == "2026-01-31T10:00:00.500Z"
    for wrong in ("2026-01-31T12:00:00", "2026-02-30", "31.01.2026", "yesterday", ""):
        with pytest.raises(ConditionError, match="expected a date"):
            parse_moment(wrong)
