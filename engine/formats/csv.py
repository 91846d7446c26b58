"""CSV in, exactly: pyarrow splits, every cell stays text, and what pyarrow would let pass in silence is caught here.

pyarrow swallows the rest of a file after an unterminated quote and turns a column with a broken byte into binary, so
the bytes are watched on their way in: UTF-8 is checked block by block, quotes are counted. Where the whole file is
refused, the standard library's strict reader goes over it again to say at which line.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from engine.errors import DataInvalid
from engine.formats.base import BrokenRow, ByteSource, RawBatch

BLOCK = 2 << 20
"""Bytes parsed at once, and so the largest record."""

READ_AHEAD = 4
"""Blocks that pyarrow may hold unparsed. Left alone it reads 32 ahead, which is 64 MiB of the worker's memory."""

MAX_HEADER = 1 << 20

MAX_COLUMNS = 1_600
"""PostgreSQL's own limit for a table."""

_BOMS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16", codecs.BOM_UTF8: ""}


class CsvReader:
    """Reads one CSV file with a header. NULL is an unquoted `null_text`; a quoted one is that text."""

    def __init__(self, open_source: Callable[[], ByteSource], *, delimiter: str = ",", null_text: str = "") -> None:
        """Args:
        open_source: opens the file at its start; called again only to say where a refused file is wrong.
        """
        if len(delimiter) != 1 or delimiter in '"\r\n' or not delimiter.isascii():
            raise DataInvalid(f"delimiter: expected one ASCII character, found {delimiter!r}", reason="OPTION_INVALID")
        self._open = open_source
        self._delimiter = delimiter
        self._null_text = null_text
        self._source = _Watched(open_source())
        self.header = self._read_header()

    def batches(self) -> Iterator[RawBatch]:
        """The records after the header, in file order."""
        names = [f"c{i}" for i in range(len(self.header))]
        broken: list[BrokenRow] = []
        try:
            reader = self._open_arrow(names, broken)
            yield from self._number(reader, broken)
        except pa.ArrowInvalid as error:
            raise self._source.failure or self._explain(error) from None
        except DataInvalid:
            raise
        except Exception:
            # pyarrow may wrap what our own source raised; the source remembers it
            if self._source.failure:
                raise self._source.failure from None
            raise
        if self._source.quotes % 2:
            raise self._unterminated()

    def _read_header(self) -> tuple[str, ...]:
        data = b""
        while (end := _record_end(data)) is None:
            block = self._source.take(64 << 10)
            if not block:
                end = len(data)
                break
            data += block
            if len(data) > MAX_HEADER:
                raise DataInvalid(f"header: found no line end in {MAX_HEADER} bytes", reason="FILE_NOT_CSV")
        if not data.strip():
            raise DataInvalid("file: found no content, expected a header and records", reason="FILE_EMPTY")
        self._source.push_back(data[end:])
        return self._split_header(data[:end].decode("utf-8"))

    def _split_header(self, text: str) -> tuple[str, ...]:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter, strict=True), [])
        except csv.Error as error:
            raise DataInvalid(f"header: {error}", reason="FILE_NOT_CSV") from None
        if len(header) > MAX_COLUMNS:
            raise DataInvalid(
                f"header: found {len(header)} columns, expected at most {MAX_COLUMNS}", reason="FILE_NOT_CSV"
            )
        if not any(name.strip() for name in header):
            raise DataInvalid("header: found an empty line, expected column names", reason="FILE_NOT_CSV")
        return tuple(header)

    def _open_arrow(self, names: list[str], broken: list[BrokenRow]) -> Iterator[pa.RecordBatch]:
        def keep(row: Any) -> str:
            message = f"found {row.actual_columns} fields, expected {row.expected_columns}"
            broken.append(BrokenRow(row.number + 1, row.text, message))
            return "skip"

        try:
            # use_threads=False is no slower and is what makes pyarrow number the rows it cannot split
            return pacsv.open_csv(  # type: ignore[no-any-return]
                pa.PythonFile(self._source, mode="r"),
                read_options=pacsv.ReadOptions(use_threads=False, block_size=BLOCK, column_names=names),
                parse_options=pacsv.ParseOptions(
                    delimiter=self._delimiter,
                    newlines_in_values=True,
                    ignore_empty_lines=False,
                    invalid_row_handler=keep,
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    null_values=[self._null_text],
                    check_utf8=False,
                ),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV file" in str(error):
                return iter(())  # a header and nothing else
            raise

    def _number(self, reader: Iterator[pa.RecordBatch], broken: list[BrokenRow]) -> Iterator[RawBatch]:
        """Gives each record its number: those pyarrow could not split are missing from its batches."""
        row, taken = 2, 0
        for batch in reader:
            self._source.batch_taken()
            missing = [b.row for b in broken[taken:]]
            rows, row, used = _numbers(row, batch.num_rows, missing)
            found, taken = tuple(broken[taken : taken + used]), taken + used
            cells, numbers, blank = _without_blank(batch, rows)
            yield RawBatch(cells, numbers, found, blank, self._source.bytes_read, self._source.has_nul)
        if broken[taken:]:
            empty = pa.RecordBatch.from_arrays(
                [pa.array([], pa.string()) for _ in self.header], [f"c{i}" for i in range(len(self.header))]
            )
            yield RawBatch(empty, pa.array([], pa.int64()), tuple(broken[taken:]), 0, self._source.bytes_read)

    def _explain(self, error: pa.ArrowInvalid) -> DataInvalid:
        if "straddl" in str(error):
            return DataInvalid(
                f"file: found a record larger than {BLOCK} bytes, or a quote that is never closed",
                reason="FILE_RECORD_TOO_LARGE",
            )
        return DataInvalid("file: found content that is no CSV", reason="FILE_NOT_CSV")

    def _unterminated(self) -> DataInvalid:
        line = self._line_of_open_quote()
        where = f"line {line}" if line else "the file's end"
        return DataInvalid(
            f"file: found a quote that is opened in the record at {where} and never closed",
            reason="FILE_UNTERMINATED_QUOTE",
            metadata={"line": str(line)} if line else {},
        )

    def _line_of_open_quote(self) -> int:
        source = io.TextIOWrapper(io.BufferedReader(_Raw(self._open())), encoding="utf-8-sig", newline="")
        csv.field_size_limit(1 << 30)
        reader = csv.reader(source, delimiter=self._delimiter, strict=True)
        line = 1
        try:
            for _ in reader:
                line = reader.line_num + 1
        except csv.Error:
            return line
        return 0


class _Watched(io.RawIOBase):
    """The file's bytes on their way into the parser: checked, counted, without a byte order mark."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._pending = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self.bytes_read = 0
        self.quotes = 0
        self.has_nul = False
        self._ahead = threading.Semaphore(READ_AHEAD)
        self.failure: DataInvalid | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """`size` bytes, fewer only at the end: pyarrow takes a short block for a record that straddles two."""
        # pyarrow reads on a thread of its own. The time-out is for blocks that become no batch: slow, never stuck.
        self._ahead.acquire(timeout=1.0)
        data = self._pending[:size]
        self._pending = self._pending[size:]
        if len(data) < size:
            data += self.take(size - len(data))
        self.quotes += data.count(b'"')
        self.has_nul = self.has_nul or b"\0" in data
        return data

    def take(self, size: int) -> bytes:
        """The next bytes, checked, not yet counted as the parser's."""
        pieces: list[bytes] = []
        missing = size
        while missing and (piece := self._source.read(missing)):
            pieces.append(bytes(piece))
            missing -= len(piece)
        data, start = b"".join(pieces), self.bytes_read
        self.bytes_read += len(data)
        skipped = self._bom(data) if start == 0 else 0
        held = len(self._decoder.getstate()[0])
        if not held and data.isascii():  # decoding would make a text only to throw it away
            return data[skipped:]
        try:
            self._decoder.decode(data[skipped:], final=len(data) < size)
        except UnicodeDecodeError as error:
            raise self._fail("found bytes that are no UTF-8", start + skipped + error.start - held) from None
        return data[skipped:]

    def batch_taken(self) -> None:
        """A block has become a batch: one more may be read."""
        self._ahead.release()

    def push_back(self, data: bytes) -> None:
        self._pending = data

    def _bom(self, data: bytes) -> int:
        for bom, name in _BOMS.items():
            if data.startswith(bom):
                if name:
                    raise self._fail(f"found {name} text", 0)
                return len(bom)
        return 0

    def _fail(self, what: str, offset: int) -> DataInvalid:
        self.failure = DataInvalid(
            f"file: {what} at byte {offset}, expected UTF-8",
            reason="FILE_NOT_UTF8",
            metadata={"offset": str(offset)},
        )
        return self.failure


class _Raw(io.RawIOBase):
    """A byte source as the standard library wants a raw file."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._source.read(len(buffer)) or b""
        buffer[: len(data)] = data
        return len(data)


def _record_end(data: bytes) -> int | None:
    """Where the first record ends, after its line break; None while it is not whole."""
    quoted = False
    for match in re.finditer(rb'["\r\n]', data):
        mark, end = match.group(), match.end()
        if mark == b'"':
            quoted = not quoted
        elif not quoted:
            if mark == b"\r":
                if end == len(data):
                    return None  # its line feed may be the next byte
                end += data[end : end + 1] == b"\n"
            return end
    return None


def _numbers(row: int, count: int, missing: list[int]) -> tuple[pa.Int64Array, int, int]:
    """The numbers of `count` records from `row` on, leaving out `missing`; the next number; how many were left out."""
    if not missing or missing[0] >= row + count:
        return pa.array(range(row, row + count), pa.int64()), row + count, 0
    numbers: list[int] = []
    used = 0
    while len(numbers) < count:
        if used < len(missing) and missing[used] == row:
            used += 1
        else:
            numbers.append(row)
        row += 1
    while used < len(missing) and missing[used] == row:
        used, row = used + 1, row + 1
    return pa.array(numbers, pa.int64()), row, used


def _without_blank(batch: pa.RecordBatch, rows: pa.Int64Array) -> tuple[pa.RecordBatch, pa.Int64Array, int]:
    """Leaves out records without any content: an empty line, or delimiters alone as spreadsheets leave them.

    In a file of one column an empty line cannot be told from NULL, and stays.
    """
    if batch.num_columns == 1 or any(column.null_count == 0 for column in batch.columns):
        return batch, rows, 0
    content = pc.is_valid(batch.column(0))
    for column in batch.columns[1:]:
        content = pc.or_(content, pc.is_valid(column))
    blank = len(content) - content.true_count
    if not blank:
        return batch, rows, 0
    return batch.filter(content), rows.filter(content), blank
