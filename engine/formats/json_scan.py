"""One JSON record, byte by byte where it matters: its keys and values as slices, its faults with their place.

Slower than msgspec by far and used where that refuses or cannot tell: broken records, duplicate keys, the first record
of a file. It does not recurse, so no depth of nesting can harm it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

MAX_DEPTH = 1_000
"""Of arrays and objects in one another, the record's own object among them. msgspec's limit is Python's, the same."""

_SPACE = re.compile(rb"[ \t\r\n]*+")
_TEXT = re.compile(rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+')
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]++)?+")
_PARTIAL = re.compile(rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]*+)?+(?:[eE][+-]?+[0-9]*+)?+|-")
_WORDS = (b"null", b"true", b"false")
_CLOSER = {b"{": b"}", b"[": b"]"}


class Unfinished(Exception):
    """The bytes end inside the record: no fault, the rest may come."""


@dataclass
class NotJson(Exception):
    """Bytes that are no JSON: where, and what was expected there."""

    at: int
    expected: str


@dataclass(frozen=True)
class Value:
    """One top-level value. `pairs`: each key as written with quotes, and its value, both as the file has them; None
    where the value is no object."""

    start: int
    end: int
    pairs: list[tuple[bytes, bytes]] | None


def scan(data: bytes, at: int) -> Value:
    """The value that begins at `at`.

    Raises:
        Unfinished, NotJson.
    """
    if data[at : at + 1] != b"{":
        return Value(at, _value(data, at), None)
    pairs: list[tuple[bytes, bytes]] = []
    end = space(data, at + 1)
    if _mark(data, end) == b"}":
        return Value(at, end + 1, pairs)
    while True:
        key_end = _text(data, end, "a key in quotes or }" if not pairs else "a key in quotes")
        start = _colon(data, key_end)
        value_end = _value(data, start, depth=1)
        pairs.append((data[end:key_end], data[start:value_end]))
        end = space(data, value_end)
        mark = _mark(data, end)
        if mark == b"}":
            return Value(at, end + 1, pairs)
        if mark != b",":
            raise NotJson(end, ", or }")
        end = space(data, end + 1)


def space(data: bytes, at: int) -> int:
    """Where the white space from `at` ends."""
    match = _SPACE.match(data, at)
    assert match is not None  # it matches nothing at all
    return match.end()


def text_of(raw: bytes) -> str | None:
    """The value as text: what a string says, NULL for null, anything else as it is written.

    Raises:
        UnicodeError: half of a surrogate pair, which no UTF-8 text can hold.
    """
    if raw[:1] != b'"':
        return None if raw == b"null" else raw.decode()
    if b"\\" not in raw:
        return raw[1:-1].decode()
    text: str = json.loads(raw)
    text.encode()
    return text


def _value(data: bytes, at: int, depth: int = 0) -> int:
    """Where the value that begins at `at` ends."""
    opened: list[bytes] = []
    while True:
        mark = _mark(data, at)
        if mark in _CLOSER:
            if depth + len(opened) >= MAX_DEPTH:
                raise NotJson(at, f"at most {MAX_DEPTH} arrays and objects in one another")
            at = space(data, at + 1)
            if _mark(data, at) != _CLOSER[mark]:
                opened.append(mark)
                at = _key(data, at) if mark == b"{" else at
                continue
            at += 1
        else:
            at = _scalar(data, at, mark)
        while True:
            if not opened:
                return at
            at = space(data, at)
            mark = _mark(data, at)
            if mark == b",":
                at = space(data, at + 1)
                at = _key(data, at) if opened[-1] == b"{" else at
                break
            if mark != _CLOSER[opened[-1]]:
                raise NotJson(at, f", or {_CLOSER[opened[-1]].decode()}")
            opened.pop()
            at += 1


def _key(data: bytes, at: int) -> int:
    """Where the value of the key that begins at `at` begins."""
    return _colon(data, _text(data, at, "a key in quotes"))


def _colon(data: bytes, at: int) -> int:
    at = space(data, at)
    if _mark(data, at) != b":":
        raise NotJson(at, ":")
    return space(data, at + 1)


def _scalar(data: bytes, at: int, mark: bytes) -> int:
    if mark == b'"':
        return _text(data, at, "a value")
    if match := _NUMBER.match(data, at):
        if match.end() == len(data):
            raise Unfinished  # more digits may follow
        partial = _PARTIAL.match(data, at)
        if partial is not None and partial.end() > match.end():
            if partial.end() == len(data):
                raise Unfinished
            raise NotJson(partial.end(), "a digit")
        return match.end()
    for word in _WORDS:
        if data.startswith(word, at):
            return at + len(word)
        if word.startswith(data[at:]):
            raise Unfinished
    if mark == b"-":
        _mark(data, at + 1)
        raise NotJson(at + 1, "a digit")
    raise NotJson(at, "a value")


def _text(data: bytes, at: int, expected: str) -> int:
    """Where the quoted text that begins at `at` ends, after its quote."""
    match = _TEXT.match(data, at)
    if match is None:
        _mark(data, at)
        raise NotJson(at, expected)
    end = match.end()
    mark = _mark(data, end)
    if mark == b'"':
        return end + 1
    if mark == b"\\":
        if len(data) - end < 6 and re.fullmatch(rb"\\(?:u[0-9A-Fa-f]{0,3})?", data[end:]):
            raise Unfinished
        raise NotJson(end, 'one of \\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX')
    raise NotJson(end, "a control character written as \\uXXXX, or the closing quote")


def _mark(data: bytes, at: int) -> bytes:
    mark = data[at : at + 1]
    if not mark:
        raise Unfinished
    return mark
