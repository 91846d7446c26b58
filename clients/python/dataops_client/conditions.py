"""Which rows an export takes, as people write it: conditions, an order, moments.

    condition  =  FIELD = VALUE | FIELD != VALUE | FIELD < VALUE | FIELD <= VALUE | FIELD > VALUE | FIELD >= VALUE
               |  FIELD ^= VALUE                            text that begins with it
               |  FIELD in VALUE, VALUE … | FIELD not-in VALUE, VALUE …
               |  FIELD is null | FIELD is not null
    FIELD      =  letters, digits, _ . $ -, or anything in "double quotes" (a quote in it is written twice)
    VALUE      =  the text as it is without the spaces at its ends, or anything in 'single quotes' (likewise)
    order      =  FIELD[:asc|:desc], …                      in that sequence

The longest operator counts: `a<=1` is less or equal, and a value that begins with `=` stands behind a space or in
quotes. A value stands as PostgreSQL writes it: `active = true`, `created_at >= 2026-01-01`, `price < 9.90`.
"""

from __future__ import annotations

import re

from dataops.v1 import exports_pb2
from google.protobuf.timestamp_pb2 import Timestamp

_FIELD = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([\w.$-]+?(?=\s|[=!<>^:,]|$)))\s*')
_WORDS = re.compile(r"(is\s+not\s+null|is\s+null|not[-\s]in|in)(?=[\s']|$)", re.IGNORECASE)
_SIGNS = re.compile(r"!=|<=|>=|\^=|=|<|>")
_QUOTED = re.compile(r"\s*'((?:[^']|'')*)'\s*")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")

_OPERATORS = {
    "=": exports_pb2.FILTER_OPERATOR_IN,
    "in": exports_pb2.FILTER_OPERATOR_IN,
    "!=": exports_pb2.FILTER_OPERATOR_NOT_IN,
    "not-in": exports_pb2.FILTER_OPERATOR_NOT_IN,
    "<": exports_pb2.FILTER_OPERATOR_LESS,
    "<=": exports_pb2.FILTER_OPERATOR_LESS_OR_EQUAL,
    ">": exports_pb2.FILTER_OPERATOR_GREATER,
    ">=": exports_pb2.FILTER_OPERATOR_GREATER_OR_EQUAL,
    "^=": exports_pb2.FILTER_OPERATOR_PREFIX,
    "is-null": exports_pb2.FILTER_OPERATOR_IS_NULL,
    "is-not-null": exports_pb2.FILTER_OPERATOR_IS_NOT_NULL,
}


class ConditionError(ValueError):
    """A condition, order or moment that cannot be understood; the message says where."""


def parse_condition(text: str) -> exports_pb2.FieldCondition:
    """One condition.

    Raises:
        ConditionError: it is none of the forms above.
    """
    name, end = _field(text, 0)
    operator, end = _operator(text, end)
    rest = text[end:]
    condition = exports_pb2.FieldCondition(field=name, operator=_OPERATORS[operator])
    if operator.startswith("is-"):
        if rest.strip():
            raise ConditionError(f"{text!r}: found {rest.strip()!r} behind null, expected nothing")
    elif operator in ("in", "not-in"):
        condition.values.extend(_values(text, rest))
    else:
        condition.values.append(_value(text, rest, operator))
    return condition


def parse_order(text: str) -> list[exports_pb2.FieldOrder]:
    """The steps of an order.

    Raises:
        ConditionError: it is not FIELD[:asc|:desc] with commas between.
    """
    steps = []
    at = 0
    while True:
        name, at = _field(text, at)
        descending = False
        if text[at : at + 1] == ":":
            word = re.match(r":\s*(\w*)\s*", text[at:])
            assert word is not None
            if word[1].lower() not in ("asc", "desc"):
                raise ConditionError(f"{text!r}: found {word[1]!r} behind {name}, expected asc or desc")
            descending = word[1].lower() == "desc"
            at += word.end()
        steps.append(exports_pb2.FieldOrder(field=name, descending=descending))
        if at == len(text):
            return steps
        if text[at] != ",":
            raise ConditionError(f"{text!r}: found {text[at:]!r} behind {name}, expected a comma")
        at += 1


def parse_moment(text: str) -> Timestamp:
    """A moment from RFC 3339 (`2026-01-31T12:00:00Z`, or with an offset), or a date: its beginning in UTC.

    Raises:
        ConditionError: it is neither.
    """
    moment = Timestamp()
    try:
        moment.FromJsonString(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)
    except ValueError as error:
        raise ConditionError(
            f"found {text!r}, expected a date (2026-01-31) or a time with its offset (2026-01-31T12:00:00Z)"
        ) from error
    return moment


def _field(text: str, at: int) -> tuple[str, int]:
    found = _FIELD.match(text, at)
    if found is None:
        raise ConditionError(f"{text!r}: found {text[at:]!r}, expected a field's name")
    quoted, bare = found.groups()
    return bare or quoted.replace('""', '"'), found.end()


def _operator(text: str, at: int) -> tuple[str, int]:
    sign = _SIGNS.match(text, at)
    if sign is not None:
        return sign[0], sign.end()
    word = _WORDS.match(text, at)
    if word is not None:
        return "-".join(re.split(r"[-\s]+", word[0].lower())), word.end()
    raise ConditionError(
        f"{text!r}: found {text[at:]!r} behind the field, expected one of = != < <= > >= ^= in not-in, "
        "is null, is not null"
    )


def _value(text: str, rest: str, operator: str) -> str:
    quoted = _QUOTED.fullmatch(rest)
    if quoted is not None:
        return quoted[1].replace("''", "'")
    value = rest.strip()
    if not value:
        raise ConditionError(f"{text!r}: found no value, expected one; the empty text is written ''")
    if value.lower() == "null":
        hint = {"=": "is null", "!=": "is not null"}.get(operator, "is null")
        raise ConditionError(f"{text!r}: nothing compares with null; write {hint}, or 'null' in quotes for the text")
    return value


def _values(text: str, rest: str) -> list[str]:
    """Values with commas between; one in single quotes may hold a comma."""
    values = []
    at = 0
    while True:
        quoted = _QUOTED.match(rest, at)
        if quoted is not None:
            values.append(quoted[1].replace("''", "'"))
            at = quoted.end()
        else:
            end = rest.find(",", at)
            end = len(rest) if end < 0 else end
            values.append(_value(text, rest[at:end], "in"))
            at = end
        if at == len(rest):
            return values
        if rest[at] != ",":
            raise ConditionError(f"{text!r}: found {rest[at:]!r} behind a value, expected a comma")
        at += 1
