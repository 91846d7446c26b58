"""A JSON file as chunks of whole records, whether they stand in an array or one on a line.

A chunk is cut where records seem to part and only then proven, by decoding it: the text between two cuts is JSON of its
own. Where the cut was wrong, or the text is broken, the chunk is gone over record by record.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator

import msgspec

from engine.errors import DataInvalid
from engine.formats.base import BLOCK
from engine.formats.json_scan import NotJson, Unfinished, scan, space
from engine.formats.watched import Watched

_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_RAW = msgspec.json.Decoder(msgspec.Raw)
_LINE_REST = re.compile(rb"[ \t\r]*+")
_PARTING = re.compile(rb'([ \t\r\n]*+,[ \t\r\n]*+\{)[ \t\r\n]*+"[^"\\\x00-\x1f]*+"[ \t\r\n]*+:')


class Window:
    """The part of the file that is looked at: at most BLOCK bytes, and so the largest record."""

    def __init__(self, source: Watched) -> None:
        self._source = source
        self.data = b""
        self.eof = False
        self.offset = 0
        self.line = 1
        self.fill()
        self.offset = source.mark

    @property
    def bytes_read(self) -> int:
        return self._source.bytes_read

    def fill(self) -> None:
        pieces, missing = [self.data], BLOCK - len(self.data)
        while missing > 0 and not self.eof:
            piece = self._source.take(missing)
            self.eof = not piece
            pieces.append(piece)
            missing -= len(piece)
        self.data = b"".join(pieces)

    def advance(self, count: int) -> None:
        self.line += self.data.count(b"\n", 0, count)
        self.offset += count
        self.data = self.data[count:]

    def skip_space(self) -> None:
        """Goes on to the next byte that is no white space."""
        while True:
            self.advance(space(self.data, 0))
            if self.data or self.eof:
                return
            self.fill()

    def whole(self) -> bytes:
        """The data; at the file's end with a line break, so that what ends there is seen to end."""
        return self.data + b"\n" if self.eof else self.data

    def not_json(self, at: int, expected: str) -> DataInvalid:
        found = repr(self.data[at : at + 4].decode(errors="replace")[:1]) if at < len(self.data) else "the file's end"
        offset, line = self.offset + at, self.line + self.data.count(b"\n", 0, at)
        return DataInvalid(
            f"file: found {found} at byte {offset} (line {line}), expected {expected}",
            reason="FILE_NOT_JSON",
            metadata={"offset": str(offset), "line": str(line)},
        )

    def too_large(self) -> DataInvalid:
        return DataInvalid(
            f"file: found a record larger than {BLOCK} bytes at byte {self.offset} (line {self.line})",
            reason="FILE_RECORD_TOO_LARGE",
            metadata={"offset": str(self.offset), "line": str(self.line)},
        )


class Chunk(ABC):
    """Records at the window's beginning. Whoever takes it decodes `text`, or asks for the `records`."""

    in_array: bool
    text: bytes | None
    """Whole records, if the cut is right: with commas, or line breaks, between them. None: no cut was found."""

    def __init__(self, window: Window, first: int) -> None:
        self.first = first
        """The first record's number."""
        self.window = window
        self.count = 0
        """Records; known when `text` has been decoded or `records` asked for."""
        self.consumed = 0

    def records(self) -> tuple[list[bytes], list[int]]:
        """Each record and its number; all of them are JSON.

        Raises:
            DataInvalid: FILE_NOT_JSON, FILE_RECORD_TOO_LARGE.
        """
        found = self._split()
        if found is None:
            try:
                found = self._scan()
            except NotJson as error:
                raise self.window.not_json(error.at, error.expected) from None
        self.count = len(found[0])
        return found

    @abstractmethod
    def _split(self) -> tuple[list[bytes], list[int]] | None:
        """The records of `text`; None where it is broken."""

    @abstractmethod
    def _scan(self) -> tuple[list[bytes], list[int]]:
        """The records of the window, found one after the other."""

    def _unfinished(self, found: list[bytes]) -> None:
        """The window ends inside a record: at the file's end that is a fault, else it is left for the next chunk."""
        if self.window.eof:
            raise self.window.not_json(len(self.window.data), "the rest of the record")
        if not found:
            raise self.window.too_large()


class Lines(Chunk):
    in_array = False

    def __init__(self, window: Window, first: int) -> None:
        super().__init__(window, first)
        end = len(window.data) if window.eof else window.data.rfind(b"\n") + 1
        self.text = window.data[:end] if end else None
        self.consumed = end

    def _split(self) -> tuple[list[bytes], list[int]] | None:
        if self.text is None:
            return None
        lines = [(number, line.strip(b" \t\r")) for number, line in enumerate(self.text.split(b"\n"), self.first)]
        lines = [(number, line) for number, line in lines if line]
        try:
            for _, line in lines:
                _RAW.decode(line)
        except (msgspec.DecodeError, RecursionError):
            return None
        return [line for _, line in lines], [number for number, _ in lines]

    def _scan(self) -> tuple[list[bytes], list[int]]:
        data, at, line = self.window.whole(), 0, self.first
        records: list[bytes] = []
        rows: list[int] = []
        self.consumed = 0
        while (start := space(data, at)) < len(data):
            try:
                value = scan(data, start)
                end = _line_end(data, value.end)
            except Unfinished:
                self._unfinished(records)
                break
            line += data.count(b"\n", at, start)
            records.append(data[start : value.end])
            rows.append(line)
            line += data.count(b"\n", start, end)
            at = self.consumed = end
        self.consumed = min(self.consumed, len(self.window.data))
        return records, rows


class Items(Chunk):
    """Of an array, from a record on."""

    in_array = True

    def __init__(self, window: Window, first: int, partings: tuple[bytes, ...]) -> None:
        super().__init__(window, first)
        self.text = self._cut(partings)
        self.consumed = len(self.text or b"")

    def _cut(self, partings: tuple[bytes, ...]) -> bytes | None:
        if self.window.eof and (whole := self.window.data.rstrip(b" \t\r\n")).endswith(b"]"):
            return whole[:-1]
        for parting in partings:
            if (end := self.window.data.rfind(parting)) >= 0:
                return self.window.data[: end + 1]
        return None

    def _split(self) -> tuple[list[bytes], list[int]] | None:
        if self.text is None:
            return None
        try:
            records = [bytes(raw) for raw in _RAWS.decode(b"[%b]" % self.text)]
        except (msgspec.DecodeError, RecursionError):
            return None
        return records, list(range(self.first, self.first + len(records)))

    def _scan(self) -> tuple[list[bytes], list[int]]:
        data, at = self.window.whole(), 0
        records: list[bytes] = []
        self.consumed = 0
        while True:
            try:
                value = scan(data, at)
            except Unfinished:
                self._unfinished(records)
                break
            records.append(data[at : value.end])
            self.consumed = value.end
            comma = space(data, value.end)
            at = space(data, comma + 1)
            if data[comma : comma + 1] != b"," or at >= len(data):
                break
        return records, list(range(self.first, self.first + len(records)))


def chunks(window: Window) -> Iterator[Chunk]:
    """The file from its start. A chunk is to be used before the next one is asked for.

    Raises:
        DataInvalid: FILE_EMPTY, FILE_NOT_JSON, FILE_RECORD_TOO_LARGE.
    """
    window.skip_space()
    if not window.data:
        raise DataInvalid("file: found no content, expected records", reason="FILE_EMPTY")
    if window.data.startswith(b"["):
        yield from _items(window)
    else:
        yield from _lines(window)


def _lines(window: Window) -> Iterator[Chunk]:
    while window.data:
        window.fill()
        chunk = Lines(window, window.line)
        yield chunk
        window.advance(chunk.consumed)
        window.skip_space()


def _items(window: Window) -> Iterator[Chunk]:
    window.advance(1)
    window.skip_space()
    first = 1
    partings: tuple[bytes, ...] | None = None
    more = not window.data.startswith(b"]")
    while more:
        window.fill()
        if partings is None:
            partings = _partings(window.data)
        chunk = Items(window, first, partings)
        yield chunk
        window.advance(chunk.consumed)
        window.skip_space()
        first += chunk.count
        more = window.data.startswith(b",")
        if more:
            window.advance(1)
            window.skip_space()
    if not window.data.startswith(b"]"):
        raise window.not_json(0, ", or ]")
    window.advance(1)
    window.skip_space()
    if window.data:
        raise window.not_json(0, "nothing after the array's end")


def _partings(data: bytes) -> tuple[bytes, ...]:
    """What stands between the first two records, with the second one's first key and without: later records part in the
    same way, unless the file was written by several hands."""
    try:
        end = scan(data, 0).end
    except (NotJson, Unfinished):
        return ()
    match = _PARTING.match(data, end)
    if match is None or data[end - 1 : end] != b"}":
        return ()
    return b"}" + match[0], b"}" + match[1]


def _line_end(data: bytes, at: int) -> int:
    """Where the line that holds a record before `at` ends."""
    match = _LINE_REST.match(data, at)
    assert match is not None  # it matches nothing at all
    mark = data[match.end() : match.end() + 1]
    if not mark:
        raise Unfinished
    if mark != b"\n":
        raise NotJson(match.end(), "a line end after the record")
    return match.end() + 1
