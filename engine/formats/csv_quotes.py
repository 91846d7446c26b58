"""Quotes that do not stand where a cell begins or ends, which pyarrow lets pass: `"a"b` it reads as `ab`.

Each block is put to a test that costs little and lets no such quote pass; on the first alarm the standard library's
strict reader goes over the whole file once to say where, and what it finds in order needs no further test.
"""

from __future__ import annotations

import array
import csv
import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from engine.formats.base import BLOCK
from engine.formats.watched import RawFile, Watched

csv.field_size_limit(2 * BLOCK)  # pyarrow has refused a larger record; without a limit an open quote takes the memory

_CELLS = r"^(?:(?:Q(?:[^Q]|QQ)*Q|[^QD\r\n][^D\r\n]*)?[D\r\n])*"
_ODD = _CELLS + r"(?:Q(?:[^Q]|QQ)*Q[^QD\r\n]|[^QD\r\n][^D\r\n]*Q)"
"""Whole cells, and then one with text after its closing quote, or with a quote after text. RE2 matches it as an
automaton: 1.6 ns a byte where all is well, without Python's lock."""


class QuoteTest:
    """Sees the text after the header in order; `alarmed` once a quote stands where none should.

    A quote inside a bare cell is text and no fault, but where it stands the count of quotes tells nothing any more.
    """

    def __init__(self, delimiter: str, quote: str) -> None:
        self._quote = quote.encode()
        self._ends = (delimiter.encode(), b"\r", b"\n")
        self._odd = _ODD.replace("Q", quote).replace("D", f"\\x{ord(delimiter):02x}")
        self._before = b""
        """What brings the parser into the state it is in: nothing, inside quotes, after them, or inside a bare cell."""
        self.quotes = 0
        self.alarmed = False

    def see(self, data: bytes) -> None:
        count = data.count(self._quote)
        self.quotes += count
        if self.alarmed or not data:
            return
        if count or self._before == self._quote * 2:
            text = self._before + data
            offsets = pa.py_buffer(array.array("i", (0, len(text))))
            value = pa.Array.from_buffers(pa.binary(), 1, [None, offsets, pa.py_buffer(text)])
            self.alarmed = pc.match_substring_regex(value, self._odd)[0].as_py()
        self._before = self._state(data[-1:])

    def _state(self, last: bytes) -> bytes:
        if self.quotes % 2:
            return self._quote
        if last == self._quote:
            return self._quote * 2
        return b"" if last in self._ends else b"x"


@dataclass(frozen=True)
class QuoteFault:
    """What is wrong and at which line: of the record's beginning where a quote is never closed."""

    unterminated: bool
    line: int


def first_fault(source: Watched, delimiter: str, quote: str) -> QuoteFault | None:
    """The first quote of the file that is out of place, by the standard library's strict reader."""
    file = io.TextIOWrapper(io.BufferedReader(RawFile(source.take)), encoding="utf-8", newline="")
    reader = csv.reader(file, delimiter=delimiter, quotechar=quote, strict=True)
    line = 1
    try:
        for _ in reader:
            line = reader.line_num + 1
    except csv.Error as error:
        if "unexpected end" in str(error):
            return QuoteFault(True, line)
        return QuoteFault(False, reader.line_num) if "expected after" in str(error) else None
    return None
