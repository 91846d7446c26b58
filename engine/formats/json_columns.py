"""Records of JSON as columns of text: whole chunks by msgspec, and one record at a time where it refuses.

Every value becomes what the file says: a string its text, null NULL, everything else the characters it is written in,
so that no number passes through a float. A key that stands twice in a record would be lost in silence: see `_key_ends`.
"""

from __future__ import annotations

import array
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import UNSET, Raw

from engine.formats.base import BrokenRow
from engine.formats.json_chunks import Chunk
from engine.formats.json_scan import scan, text_of

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_TEXT = str | None | msgspec.UnsetType
_SPACED = re.compile(rb'"(?:[\t\r\n]| [ \t\r\n])[ \t\r\n]*+:')
_HIDDEN = re.compile(rb"\\u00(?:2[02]|3[aA])")
_SHOWN = 200
_KINDS = {b"[": "an array", b'"': "a string", b"n": "null", b"t": "true", b"f": "false"}
_REFUSED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True)
class Decoded:
    """Records of one chunk in the header's columns."""

    cells: pa.RecordBatch
    rows: pa.Int64Array
    broken: tuple[BrokenRow, ...] = ()
    good: list[bytes] | None = None
    """The records of `rows`, where they were taken one by one."""


class Columns:
    """Decodes chunks into the columns of `header`; learns on the way which of them hold nothing but text."""

    def __init__(self, header: tuple[str, ...], *, absent_is_null: bool) -> None:
        self._header = header
        self._known = frozenset(header)
        self._absent_is_null = absent_is_null
        self._names = [f"c{i}" for i in range(len(header))]
        self._mixed = [False] * len(header)
        """Columns with a value that is no string."""
        self._texts = [False] * len(header)
        """Columns decoded as text, which is faster than as what the file says."""
        # msgspec takes no such names; their records are decoded one by one
        self._plain = bool(header) and not any(re.search(r'["\\\x00-\x1f]', name) for name in header)
        self._items: Any = None
        self._lines: Any = None
        self._make_decoders()

    def decode(self, chunk: Chunk) -> Decoded:
        """All records of the chunk.

        Raises:
            DataInvalid: FILE_NOT_JSON, FILE_RECORD_TOO_LARGE.
        """
        return (self._all(chunk) if self._plain else None) or self._each(chunk)

    # --- a whole chunk

    def _all(self, chunk: Chunk) -> Decoded | None:
        """None where something is wrong with a record, or may be."""
        text = chunk.text
        if text is None or (told := _key_ends(text, chunk.in_array)) is None:
            return None
        keys, ends = told
        records = self._decode(text, chunk.in_array)
        if not records or not (chunk.in_array or _one_a_line(text, len(records))):
            return None
        columns: list[pa.StringArray] = []
        values: Sequence[Any]
        for index, values in enumerate(zip(*map(msgspec.structs.astuple, records), strict=True)):
            absent = values.count(UNSET) if self._absent_is_null else 0
            if absent:
                values = [_null(self._texts[index]) if value is UNSET else value for value in values]
            column, inside = self._column(index, values, ends)
            columns.append(column)
            keys -= len(values) - absent + inside
        if keys:
            return None
        self._learn()
        chunk.count = len(records)
        rows = pa.array(range(chunk.first, chunk.first + len(records)), pa.int64())
        return Decoded(pa.RecordBatch.from_arrays(columns, self._names), rows)

    def _decode(self, text: bytes, in_array: bool) -> list[Any] | None:
        for _ in range(2):
            try:
                found: list[Any] = self._items.decode(b"[%b]" % text) if in_array else self._lines.decode_lines(text)
                return found
            except _REFUSED:
                if not any(self._texts):
                    return None
                # a column of text may hold something else for the first time
                self._texts = [False] * len(self._header)
                self._make_decoders()
        return None

    def _column(self, index: int, values: Sequence[Any], ends: tuple[str, ...]) -> tuple[pa.StringArray, int]:
        """The column, and how many times its values hold what ends a key."""
        if self._texts[index]:
            column = pa.array(values, pa.string())
            return column, _held(column, ends)
        raw = _raw_column(values)
        column, mixed = _texts_of(raw)
        self._mixed[index] = self._mixed[index] or mixed
        return column, _held(raw, ends)

    def _learn(self) -> None:
        """From the first chunk, or one that had to be decoded as what it says."""
        if not any(self._texts) and not all(self._mixed):
            self._texts = [not mixed for mixed in self._mixed]
            self._make_decoders()

    def _make_decoders(self) -> None:
        if not self._plain:
            return
        kinds: list[Any] = []
        for name, text in zip(self._names, self._texts, strict=True):
            kind = _TEXT if text else Raw
            kinds.append((name, kind, UNSET) if self._absent_is_null else (name, kind))
        record = msgspec.defstruct(
            "Record",
            kinds,
            rename=dict(zip(self._names, self._header, strict=True)),
            forbid_unknown_fields=True,
            gc=False,
        )
        self._lines = msgspec.json.Decoder(record)
        self._items = msgspec.json.Decoder(list[record])  # type: ignore[valid-type]

    # --- one by one

    def _each(self, chunk: Chunk) -> Decoded:
        records, rows = chunk.records()
        table: list[list[Any]] = []
        good: list[bytes] = []
        numbers: list[int] = []
        broken: list[BrokenRow] = []
        for row, record in zip(rows, records, strict=True):
            cells = self._cells(record, row)
            if isinstance(cells, BrokenRow):
                broken.append(cells)
            else:
                table.append(cells)
                good.append(record)
                numbers.append(row)
        columns = [_texts_of(_raw_column(values))[0] for values in zip(*table, strict=True)] if table else []
        columns = columns or [pa.array([], pa.string()) for _ in self._header]
        batch = pa.RecordBatch.from_arrays(columns, self._names)
        return Decoded(batch, pa.array(numbers, pa.int64()), tuple(broken), good)

    def _cells(self, record: bytes, row: int) -> list[Any] | BrokenRow:
        """The record's values in the header's order, as written; or what is wrong with it."""
        try:
            found: Any = _OBJECT.decode(record)
        except _REFUSED:
            found = None
        if found is None or not _surely_once(record, found):
            pairs = scan(record + b"\n", 0).pairs
            if isinstance(told := _pairs(pairs, record, row), BrokenRow):
                return told
            found = told
        if not self._header:
            return _broken(row, record, "FIELD_ABSENT", "found an object without any key")
        if not self._known.issuperset(found):
            name = next(name for name in found if name not in self._known)
            return _broken(row, record, "FIELD_UNKNOWN", f"found the key {_show(name)}, which the file's others lack")
        if len(found) < len(self._header) and not self._absent_is_null:
            name = next(name for name in self._header if name not in found)
            hint = "write null where there is none, or set absent_is_null"
            return _broken(row, record, "FIELD_ABSENT", f"found no key {_show(name)}, which others have: {hint}")
        return [found.get(name, b"null") for name in self._header]


def keys_of(record: bytes) -> list[str]:
    """The keys of a record, each once, in its order; none where it is no object, or a key no text."""
    pairs = scan(record + b"\n", 0).pairs or []
    try:
        return list(dict.fromkeys(text_of(key) or "" for key, _ in pairs))
    except UnicodeError:
        return []


def _pairs(pairs: list[tuple[bytes, bytes]] | None, record: bytes, row: int) -> dict[str, bytes] | BrokenRow:
    if pairs is None:
        # its content may be a secret, and this message goes everywhere
        kind = _KINDS.get(record[:1], "a number")
        return _broken(row, record, "RECORD_NOT_OBJECT", f"found {kind}, expected an object")
    found: dict[str, bytes] = {}
    for key, value in pairs:
        try:
            name = text_of(key) or ""
            text_of(value)
        except UnicodeError:
            shown = _show(key.decode())
            return _broken(
                row, record, "INVALID_TEXT", f"found half of a surrogate pair at the key {shown}, expected text"
            )
        if name in found:
            return _broken(row, record, "FIELD_DUPLICATE", f"found the key {_show(name)} twice, expected it once")
        found[name] = value
    return found


def _broken(row: int, record: bytes, code: str, message: str) -> BrokenRow:
    return BrokenRow(row, record.decode(), message, code)


def _show(text: str) -> str:
    return repr(text[:_SHOWN])


def _null(text: bool) -> bytes | None:
    return None if text else b"null"


def _one_a_line(text: bytes, count: int) -> bool:
    """Whether each of `count` records stands on one line of its own: no string holds a line break, and none parts a }
    from a { inside a record."""
    parting = b"}\r\n{" if b"\r" in text else b"}\n{"
    breaks = text.count(b"\n")
    ended = text.endswith(b"\n")
    return breaks == count - (not ended) and text.count(parting) == count - 1


def _key_ends(text: bytes, in_array: bool) -> tuple[int, tuple[str, ...]] | None:
    """How many times a key's end stands in the text, and how it is written: `":`, or `" :` beside it. Each key has one,
    and values may hold some. None where it may be written in yet another way.

    msgspec keeps the last of two equal keys. But if there are just as many ends as keys are wanted and values hold, no
    record has a key more.
    """
    spaced = b" :" in text
    odd = (spaced and b"  :" in text) or (b"\t" in text and b"\t:" in text) or (b"\r" in text and b"\r:" in text)
    # of lines, a record that goes over several is left to others
    if (odd or (in_array and b"\n" in text and b"\n:" in text)) and _SPACED.search(text):
        return None
    if b"\\u00" in text and _HIDDEN.search(text):
        return None  # a string that says `":` and is written without it
    if spaced:
        return text.count(b'":') + text.count(b'" :'), ('":', '" :')
    return text.count(b'":'), ('":',)


def _held(column: pa.Array, ends: tuple[str, ...]) -> int:
    """How many times the values hold what ends a key."""
    return sum(pc.sum(pc.count_substring(column, end)).as_py() or 0 for end in ends)


def _surely_once(record: bytes, found: dict[str, Raw]) -> bool:
    if (told := _key_ends(record, in_array=True)) is None:
        return False
    count, ends = told
    values = b"\0".join(found.values())
    return count == len(found) + sum(values.count(end.encode()) for end in ends)


def _raw_column(values: Sequence[Any]) -> pa.BinaryArray:
    """Values as they are written, put together without a copy of each."""
    offsets = array.array("i", itertools.accumulate(map(len, values), initial=0))
    data = b"".join(values)
    return pa.Array.from_buffers(pa.binary(), len(values), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _texts_of(raw: pa.BinaryArray) -> tuple[pa.StringArray, bool]:
    """Values as text, and whether any of them is neither a string nor null."""
    null = pc.equal(raw, b"null")
    quoted = pc.starts_with(raw, '"')
    strings = quoted.true_count
    mixed = strings + null.true_count < len(raw)
    text = raw
    if strings:
        inner = pc.binary_slice(raw, 1, -1)
        text = pc.if_else(quoted, inner, raw) if strings < len(raw) else inner
        escaped = pc.and_(pc.match_substring(inner, "\\"), quoted)
        if escaped.true_count:
            mended = [(text_of(value) or "").encode() for value in raw.filter(escaped).to_pylist()]
            text = pc.replace_with_mask(text, escaped, pa.array(mended, pa.binary()))
    if null.true_count:
        text = pc.if_else(null, pa.scalar(None, pa.binary()), text)
    return text.view(pa.string()), mixed
