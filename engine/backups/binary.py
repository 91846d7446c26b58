"""A stream of COPY text as COPY's binary format, so that PostgreSQL need not read the texts again.

The text is PostgreSQL's own (`Platform` pins how it is written), sealed and digested, so nothing here is proven first:
each column is cast to its type, and where Arrow has no such value (infinity, years before Christ or above 9999, NaN of
a decimal) the text goes on. A cast that succeeds must mean what the type's input function reads; a test holds each
against it. Of 1,000,000 users PostgreSQL reads the text in 4.1 s and this in 3.0 s.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from psycopg import sql

from engine.db.platform import Connection
from engine.imports.encode import CASTS, Cast, decimal, pieces, same

PIECE = 2 << 20
"""Bytes of text that are turned at once: a turn holds some six times as many. 1,000,000 users take 0.90 s of CPU in
these and 1.03 s in half as large ones."""

LONGEST = 4 << 20
"""A row above it goes as text."""

_BOM = b"\xef\xbb\xbf"

_READ = pacsv.ParseOptions(
    delimiter="\t", quote_char=False, escape_char=False, newlines_in_values=False, ignore_empty_lines=False
)

_ESCAPES = {"\\b": "\b", "\\f": "\f", "\\n": "\n", "\\r": "\r", "\\t": "\t", "\\v": "\v"}
"""All that COPY writes, but for the backslash itself."""

_TYPES = """
WITH RECURSIVE held AS (
    SELECT a.attname, a.atttypid AS type, a.atttypmod AS modifier FROM pg_attribute a
    WHERE a.attrelid = {}::regclass AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT h.attname, t.typbasetype, t.typtypmod FROM held h JOIN pg_type t ON t.oid = h.type WHERE t.typtype = 'd'
)
SELECT h.attname, CASE WHEN t.typtype = 'e' THEN 'enum'
                       WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname ELSE '' END, h.modifier
FROM held h JOIN pg_type t ON t.oid = h.type WHERE t.typtype <> 'd'
"""
"""Columns, with the types behind their domains; only PostgreSQL's own are known by name."""


class Turn:
    """Turns pieces of a stream of these columns, until one cannot be: a second COPY, as text, takes it from there."""

    def __init__(self, casts: Sequence[Cast]) -> None:
        self._casts = casts
        names = [str(number) for number in range(len(casts))]
        self._convert = pacsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), null_values=["\\N"], strings_can_be_null=True
        )
        self._names = names
        self._over = False

    def __call__(self, piece: bytes) -> list[bytes] | None:
        """Rows of COPY's binary format, some at once, without its header; None for this piece and all that follow."""
        if not self._over:
            try:
                return self._turned(piece)
            except ValueError:  # as ArrowInvalid is one, and what unhexlify raises
                self._over = True
        return None

    def _turned(self, piece: bytes) -> list[bytes]:
        if len(piece) > LONGEST or not piece.endswith(b"\n"):
            raise pa.ArrowInvalid("a row too long to be held several times")
        cells = self._cells(piece)
        if piece.count(b"\\") != sum(column.null_count for column in cells):  # a NULL has one
            cells = [_unescaped(column) for column in cells]
        typed = [cast(column) for cast, column in zip(self._casts, cells, strict=True)]
        return list(pieces(pa.RecordBatch.from_arrays(typed, names=self._names)))

    def _cells(self, piece: bytes) -> list[pa.StringArray]:
        text = _BOM + piece if piece.startswith(_BOM) else piece  # the first is skipped, and is a character of a value
        read = pacsv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=self._names)
        table = pacsv.read_csv(pa.BufferReader(text), read, _READ, self._convert).combine_chunks()
        if table.num_rows != piece.count(b"\n"):
            raise pa.ArrowInvalid("other lines than COPY's")
        return [column.chunk(0) for column in table.columns]


def turn_of(connection: Connection, table: sql.Composable, columns: Sequence[str]) -> Turn | None:
    """What turns a stream of these columns of the table; None where one of them is of a type that is left to text."""
    if not columns or connection.info.parameter_status("server_encoding") != "UTF8":
        return None
    query = sql.SQL(_TYPES).format(sql.Literal(table.as_string(connection)))
    found = {name: _cast(base, modifier) for name, base, modifier in connection.execute(query)}
    casts = [cast for name in columns if (cast := found[name]) is not None]
    return Turn(casts) if len(casts) == len(columns) else None


def pieces_of(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that end with a row's end. A row above LONGEST comes in several: as COPY ends every row
    with a line's end, no other piece lacks one."""
    begun = b""
    for block in blocks:
        at = 0
        while at < len(block):
            room = PIECE if len(begun) + PIECE <= LONGEST else 0  # a long row that was begun comes alone
            end = block.rfind(b"\n", at, at + room) + 1 or block.find(b"\n", at + room) + 1 or len(block)
            piece, at = begun + block[at:end], end
            if piece.endswith(b"\n") or len(piece) > LONGEST:
                yield piece
                piece = b""
            begun = piece
    if begun:
        yield begun


def _cast(base: str, modifier: int) -> Cast | None:
    return decimal(modifier) if base == "numeric" else _CASTS.get(base)


def _unescaped(cells: pa.StringArray) -> pa.StringArray:
    if not _has_backslash(cells):
        return cells
    cells = pc.replace_substring(cells, "\\\\", "\0")  # which no text of PostgreSQL holds
    if _has_backslash(cells):
        for escape, character in _ESCAPES.items():
            cells = pc.replace_substring(cells, escape, character)
    return pc.replace_substring(cells, "\0", "\\")


def _has_backslash(cells: pa.StringArray) -> bool:
    return bool(pc.any(pc.match_substring(cells, "\\")).as_py())


def _zoned(cells: pa.StringArray) -> pa.Array:
    """Each with its offset: +00 in our sessions."""
    return pc.cast(cells, pa.timestamp("us", "UTC"))


def _bytes(cells: pa.StringArray) -> pa.Array:
    r"""Of `\x` and the digits."""
    count = len(cells)
    digits = pa.concat_arrays([pc.replace_substring(cells, "\\x", "")])  # from offset 0 on
    valid, offsets, data = digits.buffers()
    halved = pc.divide(pa.Array.from_buffers(pa.int32(), count + 1, [None, offsets]), pa.scalar(2, pa.int32()))
    values = unhexlify(memoryview(data)[: 2 * halved[-1].as_py()]) if data is not None else b""
    return pa.Array.from_buffers(pa.binary(), count, [valid, halved.buffers()[1], pa.py_buffer(values)])


_CASTS = CASTS | {
    "text": same,
    "varchar": same,
    "bpchar": same,
    "name": same,
    "enum": same,
    "timestamptz": _zoned,
    "bytea": _bytes,
}
"""By `pg_type.typname`: of what PostgreSQL writes, whatever the type's modifier."""
