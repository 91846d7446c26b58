"""CSV in, exactly: pyarrow splits, every cell stays text, and what pyarrow would let pass in silence is caught here.

pyarrow swallows the rest of a file after an unterminated quote, joins text after a closing one to its cell, and turns a
column with a broken byte into binary, so the bytes are watched on their way in: UTF-8 is checked block by block, and
so are quotes. Where the whole file is refused, the standard library's strict reader goes over it again to say at which
line.
"""

from __future__ import annotations

import csv
import io
import re
import threading
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from engine.errors import DataInvalid
from engine.formats.base import BLOCK, MAX_COLUMNS, BrokenRow, ByteSource, RawBatch
from engine.formats.compressed import MAX_DECODED
from engine.formats.csv_quotes import QuoteFault, QuoteTest, first_fault
from engine.formats.encodings import encoding_of
from engine.formats.watched import Watched

READ_AHEAD = 2
"""Blocks that pyarrow may hold unparsed. Left alone it reads 32 ahead, which is 64 MiB of the worker's memory."""

MAX_HEADER = 1 << 20


class CsvReader:
    """Reads one CSV file with a header. NULL is an unquoted `null_text`; a quoted one is that text."""

    def __init__(
        self,
        open_source: Callable[[], ByteSource],
        *,
        delimiter: str = ",",
        null_text: str = "",
        quote: str = '"',
        encoding: str = "utf-8",
        max_decoded: int = MAX_DECODED,
    ) -> None:
        """Args:
        open_source: opens the file at its start; called again only where its quotes need a closer look.
        encoding: by its IANA name.
        max_decoded: bytes that a compressed file may unpack to.
        """
        if quote not in ('"', "'"):
            raise DataInvalid(f"quote: expected \" or ', found {quote!r}", reason="OPTION_INVALID")
        if len(delimiter) != 1 or delimiter in f"{quote}\r\n" or not delimiter.isascii():
            raise DataInvalid(f"delimiter: expected one ASCII character, found {delimiter!r}", reason="OPTION_INVALID")
        self._delimiter, self._quote, self._null_text = delimiter, quote, null_text
        self._encoding = encoding_of(encoding)
        self._open_source, self._max_decoded = open_source, max_decoded
        self._source = _Feed(self._open(), QuoteTest(delimiter, quote))
        self.header = self._read_header()

    def batches(self) -> Iterator[RawBatch]:
        """The records after the header, in file order."""
        names = [f"c{i}" for i in range(len(self.header))]
        broken: list[BrokenRow] = []
        test = self._source.test
        proven = False
        try:
            reader = self._open_arrow(names, broken)
            for batch in self._number(reader, broken):
                if test.alarmed and not proven:
                    self._prove_quotes()
                    proven = True
                yield batch
        except pa.ArrowInvalid as error:
            if test.alarmed and not proven and not self._source.failure:
                self._prove_quotes()
            raise self._source.failure or self._explain(error) from None
        except DataInvalid:
            raise
        except Exception:
            # pyarrow may wrap what our own source raised; the source remembers it
            if self._source.failure:
                raise self._source.failure from None
            raise
        if (test.alarmed or test.quotes % 2) and not proven:
            self._prove_quotes()

    def _open(self) -> Watched:
        return Watched(self._open_source(), encoding=self._encoding, max_decoded=self._max_decoded)

    def _read_header(self) -> tuple[str, ...]:
        data = b""
        while (end := _record_end(data, self._quote.encode())) is None:
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
        lines = io.StringIO(text, newline="")
        try:
            header = next(csv.reader(lines, delimiter=self._delimiter, quotechar=self._quote, strict=True), [])
        except csv.Error as error:
            closed = "unexpected end" not in str(error)
            what = "text after a closing quote" if closed else "a quote that is never closed"
            raise DataInvalid(f"header: found {what}", reason="FILE_NOT_CSV", metadata={"line": "1"}) from None
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
                    quote_char=self._quote,
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

    def _prove_quotes(self) -> None:
        """Looks at every quote of the file."""
        if (fault := first_fault(self._open(), self._delimiter, self._quote)) is not None:
            raise _quote_fault(fault)


class _Feed(io.RawIOBase):
    """The file's text on its way into pyarrow: checked, without a byte order mark, no more of it than is wanted, and
    with a line end after its last record: without one pyarrow takes the empty cell after a quoted one (`"x",`) for a
    quoted one too, '' for NULL."""

    def __init__(self, source: Watched, test: QuoteTest) -> None:
        self._source = source
        self._pending = b""
        self._last = b"\n"
        self.test = test
        self.has_nul = False
        self._ahead = threading.Semaphore(READ_AHEAD)

    @property
    def bytes_read(self) -> int:
        return self._source.bytes_read

    @property
    def failure(self) -> Exception | None:
        return self._source.failure

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """`size` bytes, fewer only at the end: pyarrow takes a short block for a record that straddles two."""
        # pyarrow reads on a thread of its own. The time-out is for blocks that become no batch: slow, never stuck.
        self._ahead.acquire(timeout=1.0)
        data = self._pending[:size]
        self._pending = self._pending[size:]
        while len(data) < size and (more := self._source.take(size - len(data))):
            data += more
        last = data[-1:] or self._last
        if len(data) < size and last not in b"\r\n":
            data, last = data + b"\n", b"\n"
        self._last = last
        self.test.see(data or b"\n")
        self.has_nul = self.has_nul or b"\0" in data
        return data

    def take(self, size: int) -> bytes:
        """The next bytes, not yet the parser's."""
        return self._source.take(size)

    def batch_taken(self) -> None:
        """A block has become a batch: one more may be read."""
        self._ahead.release()

    def push_back(self, data: bytes) -> None:
        self._pending = data


def _quote_fault(fault: QuoteFault) -> DataInvalid:
    if fault.unterminated:
        return DataInvalid(
            f"file: found a quote that is opened in the record at line {fault.line} and never closed",
            reason="FILE_UNTERMINATED_QUOTE",
            metadata={"line": str(fault.line)},
        )
    return DataInvalid(
        f"file: found text after a closing quote at line {fault.line}, expected a delimiter or a line end",
        reason="FILE_TEXT_AFTER_QUOTE",
        metadata={"line": str(fault.line)},
    )


def _record_end(data: bytes, quote: bytes) -> int | None:
    """Where the first record ends, after its line break; None while it is not whole."""
    quoted = False
    for match in re.finditer(rb"[%b\r\n]" % quote, data):
        mark, end = match.group(), match.end()
        if mark == quote:
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
        # of 1,000,000 numbers, pa.array makes an array in 0.38 s, where it takes each for an object of Python
        numbers = pa.py_buffer(array("q", range(row, row + count)))
        return pa.Int64Array.from_buffers(pa.int64(), count, [None, numbers]), row + count, 0
    found: list[int] = []
    used = 0
    while len(found) < count:
        if used < len(missing) and missing[used] == row:
            used += 1
        else:
            found.append(row)
        row += 1
    while used < len(missing) and missing[used] == row:
        used, row = used + 1, row + 1
    return pa.array(found, pa.int64()), row, used


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
