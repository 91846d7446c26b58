"""The plan as an artifact: streams of COPY text lines in parts of whole rows, and a head that binds them.

Each part is one zstd frame, sealed by the artifact as every part is. Its index record says how many rows it holds and
from which on (no value: it is not sealed), so a page of changes is read without the rest. Streams, each named
`<number>.<kind>` by the place of its entity in the head's `entities` (CASCADE by that in `cascades`):

    INSERT     row number, then the planned fields in the head's order                            in row order
    UPDATE     row number, relied fingerprint, round, then the touched fields new and old         in key order
    UNCHANGED  row number, relied fingerprint, then the key's fields                              in key order
    SKIP       the same, of rows that ADDITIVE leaves                                             in key order
    KEEP       the same with row number 0, of rows whose record was refused: REPLACE leaves them  in key order
    DELETE     0, row fingerprint, then all stored fields                                         in key order
    CASCADE    0, row fingerprint, action, foreign key, all stored fields, then what those of     in key order
               the head's `changing` become
    LOOKUP0 …  0, the text looked up, the value found
    ERRORS     row number, severity, field, code, message, value                                 in row order
    HEAD     one JSON object, written last: everything apply must agree with

INSERT is in COPY's binary format where `engine.db.binary` can tell values of every planned field's type: the head's
entry of the stream names the types then, and a part holds its rows and behind them the length of each, a little-endian
uint32. All else is lines of COPY text. PostgreSQL writes a line or row once, and those bytes are what apply feeds to
COPY. Where new rows were kept as they were read (`early`), the entry says `"form": "arrow"`, and a part is one Arrow
IPC stream, of the row number as int64 and the fields as `encode` types them; apply makes COPY's bytes of it.
`plan_digest` is the SHA-256 of the head, which holds the SHA-256 of every stream, so that it binds every byte.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, Self

import pyarrow as pa
import zstandard

from engine.db import binary
from engine.errors import Aborted, DataLoss
from engine.imports.encode import pieces

FORMAT = 5
PART_BYTES = 4 << 20
"""Bytes of a part before compression: small enough that a page costs one part, large enough that zstd loses nothing."""

_LEVEL = 1
_LENGTH = 4
_ARROW = "arrow"

_SLICE = 1 << 20
"""Bytes of a record batch that stay together: a part ends between two slices."""

_SHOWN = 1_000
"""Rows that are made text at once."""


class PartSink(Protocol):
    """What a plan is written into: an artifact's writer."""

    def write_part(self, data: bytes, *, stream: str, index: dict[str, Any]) -> int: ...


class PartStore(Protocol):
    """What a plan is read from: an artifact's reader."""

    def parts(self, stream: str | None = None) -> list[Any]: ...
    def read_part(self, number: int) -> bytes: ...


class StreamWriter:
    """Writes one stream's lines, or its rows; `close` gives its entry in the head.

    Parts are packed and written on a thread of its own while the next lines come. Use it as a context manager.
    """

    def __init__(self, sink: PartSink, stream: str, types: Sequence[str] = ()) -> None:
        """Args:
        types: names in `binary.READERS` of the fields of rows in COPY's binary format, that of the row number apart.
        """
        self._sink = sink
        self._stream = stream
        self._types = list(types)
        self._held: list[Any] = []
        self._bytes = 0
        self._digest = hashlib.sha256()
        self._packer = zstandard.ZstdCompressor(level=_LEVEL)
        self._rows = 0
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="plan-writer")
        self._pending: Future[None] | None = None
        self.lines = 0
        """Added so far, written or not."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._helper.shutdown(wait=True, cancel_futures=True)

    def add(self, lines: list[bytes]) -> None:
        """Whole lines, each with its line end, or whole rows, each with its number as the first field; a few hundred
        KiB at once, since a part ends only between two calls. Raises what writing an earlier part met."""
        self._held += lines
        self._bytes += sum(map(len, lines))
        self.lines += len(lines)
        if self._bytes >= PART_BYTES:
            self._flush()

    def close(self) -> dict[str, Any]:
        """The stream's entry in the head."""
        if self._held:
            self._flush()
        self._settle()
        entry: dict[str, Any] = {"rows": self._rows, "sha256": self._digest.hexdigest()}
        return entry | {"types": self._types} if self._types else entry

    def _flush(self) -> None:
        self._settle()
        self._pending = self._helper.submit(self._write, self._held)
        self._held, self._bytes = [], 0

    def _settle(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def _write(self, held: list[Any]) -> None:
        data, rows = self._block(held)
        self._digest.update(data)
        index = {"rows": rows, "at": self._rows, "bytes": len(data)}
        self._sink.write_part(self._packer.compress(data), stream=self._stream, index=index)
        self._rows += rows

    def _block(self, lines: list[bytes]) -> tuple[bytes | pa.Buffer, int]:
        """The bytes of a part, and how many rows they are."""
        lengths = struct.pack(f"<{len(lines)}I", *map(len, lines)) if self._types else b""
        return b"".join([*lines, lengths]), len(lines)


class BatchWriter(StreamWriter):
    """Writes one stream's record batches: a row number, then a typed value of each field."""

    def add_batch(self, batch: pa.RecordBatch) -> None:
        """Raises what writing an earlier part met."""
        rows = max(1, batch.num_rows * _SLICE // max(1, batch.nbytes))
        for at in range(0, batch.num_rows, rows):
            piece = batch.slice(at, rows)
            if self._held and self._bytes + piece.nbytes > PART_BYTES:
                self._flush()
            self._held.append(piece)
            self._bytes += piece.nbytes
            self.lines += piece.num_rows

    def close(self) -> dict[str, Any]:
        return super().close() | {"form": _ARROW}

    def _block(self, batches: list[pa.RecordBatch]) -> tuple[bytes | pa.Buffer, int]:
        size = pa.MockOutputStream()
        _write_batches(size, batches)
        data = pa.allocate_buffer(size.size())  # what grows leaves holes of half its size behind, again and again
        _write_batches(pa.FixedSizeBufferWriter(data), batches)
        return data, sum(batch.num_rows for batch in batches)


def _write_batches(out: pa.NativeFile, batches: list[pa.RecordBatch]) -> None:
    with pa.ipc.new_stream(out, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def write_head(sink: PartSink, head: dict[str, Any]) -> bytes:
    """Writes the head as the plan's last part and gives its digest, which is the plan's."""
    data = canonical(head)
    sink.write_part(zstandard.ZstdCompressor(level=_LEVEL).compress(data), stream="HEAD", index={"bytes": len(data)})
    return hashlib.sha256(data).digest()


@dataclass(frozen=True)
class Plan:
    """A plan that was opened: its head agrees with the digest it is known by."""

    store: PartStore
    head: dict[str, Any]

    @classmethod
    def open(cls, store: PartStore, digest: bytes) -> Plan:
        """Raises:
        DataLoss: PLAN_DAMAGED when the head is not what `digest` says.
        Aborted: PLAN_STALE for a plan of another release.
        """
        parts = store.parts("HEAD")
        data = _unpack(store, parts[0]) if len(parts) == 1 else b""
        if hashlib.sha256(data).digest() != digest:
            raise DataLoss("plan: the head found is not the one that was shown", reason="PLAN_DAMAGED")
        head = json.loads(data)
        if head.get("format") != FORMAT:
            raise Aborted(
                f"plan: found format {head.get('format')}, which another release has made, expected {FORMAT}; nothing"
                " was changed, make a new plan",
                reason="PLAN_STALE",
            )
        return cls(store, head)

    @classmethod
    def read(cls, store: PartStore) -> Plan:
        """One that nobody has seen a digest of: what apply kept. Its parts are sealed all the same."""
        parts = store.parts("HEAD")
        if len(parts) != 1:
            raise DataLoss("plan: found no head", reason="PLAN_DAMAGED")
        return cls(store, json.loads(_unpack(store, parts[0])))

    def rows(self, stream: str) -> int:
        return int(self.head["streams"].get(stream, {"rows": 0})["rows"])

    def types(self, stream: str) -> list[str]:
        """Of the fields of a stream in binary format; empty for one of lines."""
        return list(self.head["streams"].get(stream, {}).get("types", ()))

    def lines(self, stream: str) -> Iterator[tuple[bytes, int]]:
        """What COPY takes, part by part, and how many lines or rows that is; row numbers stand before all other fields.
        The digest is proven as they pass.

        Raises:
            DataLoss: PLAN_DAMAGED, at the latest after the last part: what was done by then must be undone.
        """
        arrow = self._is_arrow(stream)
        width = _LENGTH if self.types(stream) else 0
        for data, rows in self._blocks(stream):
            if arrow:
                yield from _encoded(data, rows)
            else:
                yield data[: len(data) - width * rows], rows

    def rows_without_numbers(self, stream: str) -> Iterator[tuple[bytes, int]]:
        """The same of a stream in binary format, of the planned fields alone."""
        arrow = self._is_arrow(stream)
        begin, values = binary.field_count(len(self.types(stream))), binary.NUMBER
        for data, rows in self._blocks(stream):
            if arrow:
                yield from _encoded(data, rows, first=1)
            else:
                yield b"".join([begin + row[values:] for row in _rows(data, rows)]), rows

    def _blocks(self, stream: str) -> Iterator[tuple[bytes, int]]:
        digest, total = hashlib.sha256(), 0
        for part in self.store.parts(stream):
            data, rows = _unpack(self.store, part), int(part.index["rows"])
            digest.update(data)
            total += rows
            yield data, rows
        entry = self.head["streams"].get(stream)
        if entry is not None and (entry["rows"], entry["sha256"]) != (total, digest.hexdigest()):
            raise DataLoss(f"plan: the stream {stream} found is not the one that was shown", reason="PLAN_DAMAGED")

    def numbered(self, stream: str, start: int) -> Iterator[tuple[int, list[str | None]]]:
        """The stream's lines from line `start` on, each with its number and split into fields; the first is the row
        number.

        Only the parts that are come to are opened: a page costs a part or two.
        """
        for part in self.store.parts(stream):
            at, rows = int(part.index["at"]), int(part.index["rows"])
            if at + rows <= start:
                continue
            lines = self._split(stream, _unpack(self.store, part), rows, max(at, start) - at)
            yield from enumerate(lines, max(at, start))

    def _split(self, stream: str, data: bytes, rows: int, start: int) -> Iterator[list[str | None]]:
        if not (types := self.types(stream)):
            return map(split_line, data.split(b"\n")[start:rows])
        arrow = self._is_arrow(stream)
        known = binary.sent_reader if arrow else binary.READERS.__getitem__
        readers = [known("int8"), *map(known, types)]
        if arrow:
            return (line for part in _shown(data, rows, start) for line in binary.rows_of_cells(part, readers))
        return (binary.cells(row, readers) for row in _rows(data, rows, start))

    def _is_arrow(self, stream: str) -> bool:
        return bool(self.head["streams"].get(stream, {}).get("form") == _ARROW)


def batches_of(store: PartStore, part: Any) -> list[pa.RecordBatch]:
    """A part of record batches. Raises DataLoss: PLAN_DAMAGED."""
    return _batches(_unpack(store, part), int(part.index["rows"]))


def _batches(data: bytes, rows: int) -> list[pa.RecordBatch]:
    """Raises:
    DataLoss: PLAN_DAMAGED when their rows are not as many as the part's index, which is not sealed, says.
    """
    with pa.ipc.open_stream(data) as reader:
        batches = list(reader)
    if sum(batch.num_rows for batch in batches) != rows:
        raise _other_rows(rows)
    return batches


def _encoded(data: bytes, rows: int, first: int = 0) -> Iterator[tuple[bytes, int]]:
    """A part of record batches in COPY's binary format, from field `first` on, and how many rows have begun: piece by
    piece, since a part of 50 flags is 18 times as large there."""
    for batch in _batches(data, rows):
        begun = batch.num_rows
        for piece in pieces(batch.select(range(first, batch.num_columns))):
            yield piece, begun
            begun = 0


def _shown(data: bytes, rows: int, start: int) -> Iterator[bytes]:
    """The same from row `start` on, a page's worth at once."""
    table = pa.Table.from_batches(_batches(data, rows)).slice(start)
    for batch in table.to_batches(max_chunksize=_SHOWN):
        yield b"".join(pieces(batch))


def _rows(data: bytes, rows: int, start: int = 0) -> Iterator[bytes]:
    """The rows of a part, from row `start` on.

    Raises:
        DataLoss: PLAN_DAMAGED when they are not as many as the part's index, which is not sealed, says.
    """
    end = len(data) - _LENGTH * rows
    lengths = struct.unpack_from(f"<{rows}I", data, end) if end >= 0 else ()
    if sum(lengths) != end:
        raise _other_rows(rows)
    at = sum(lengths[:start])
    for length in lengths[start:]:
        yield data[at : at + length]
        at += length


def _other_rows(rows: int) -> DataLoss:
    return DataLoss(f"plan: found no {rows} rows in a part, as its index says", reason="PLAN_DAMAGED")


def canonical(value: dict[str, Any]) -> bytes:
    """One spelling of a JSON object, so that its digest means its content."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}


def split_line(line: bytes) -> list[str | None]:
    """The fields of one line of COPY text, as PostgreSQL writes it; NULL is None."""
    return [_field(cell) for cell in line.rstrip(b"\n").decode("utf-8").split("\t")]


def _field(cell: str) -> str | None:
    if cell == "\\N":
        return None
    if "\\" not in cell:
        return cell
    pieces = cell.split("\\")
    text, i = pieces[0], 1
    while i < len(pieces):
        piece = pieces[i]
        if piece:
            text += _ESCAPES.get(piece[0], piece[0]) + piece[1:]
        elif i + 1 < len(pieces):  # an escaped backslash: the next piece is plain text
            i += 1
            text += "\\" + pieces[i]
        i += 1
    return text


def _unpack(store: PartStore, part: Any) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompress(
            store.read_part(part.number), max_output_size=int(part.index["bytes"]), allow_extra_data=False
        )
    except zstandard.ZstdError:
        raise DataLoss(f"plan: part {part.number} cannot be decompressed", reason="PLAN_DAMAGED") from None
