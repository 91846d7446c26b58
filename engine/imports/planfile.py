"""The plan as an artifact: streams of COPY text lines in parts of whole rows, and a head that binds them.

Each part is one zstd frame, sealed by the artifact as every part is. Its index record says what it holds (rows and
first row number, no value: it is not sealed), so a page of changes is read without the rest. Streams, each named
`<number>.<kind>` by the place of its entity in the head's `entities` (CASCADE by that in `cascades`):

    INSERT     row number, fingerprint or NULL, then the planned fields in the head's order       in key order
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

A line is written once, by PostgreSQL, and those bytes are what apply feeds to COPY. `plan_digest` is the SHA-256 of the
head, which holds the SHA-256 of every stream's lines, so that it binds every byte of the plan.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import zstandard

from engine.errors import Aborted, DataLoss

FORMAT = 3
PART_BYTES = 4 << 20
"""Lines per part before compression: small enough that a page costs one part, large enough that zstd loses nothing."""

_LEVEL = 1


class PartSink(Protocol):
    """What a plan is written into: an artifact's writer."""

    def write_part(self, data: bytes, *, stream: str, index: dict[str, Any]) -> int: ...


class PartStore(Protocol):
    """What a plan is read from: an artifact's reader."""

    def parts(self, stream: str | None = None) -> list[Any]: ...
    def read_part(self, number: int) -> bytes: ...


class StreamWriter:
    """Writes one stream's lines; `rows` and `sha256` stand when it is closed."""

    def __init__(self, sink: PartSink, stream: str) -> None:
        self._sink = sink
        self._stream = stream
        self._lines: list[bytes] = []
        self._bytes = 0
        self._digest = hashlib.sha256()
        self._packer = zstandard.ZstdCompressor(level=_LEVEL)
        self.rows = 0
        self.lines = 0
        """Added so far, written or not."""

    def add(self, lines: list[bytes]) -> None:
        """Whole lines, each with its line end; a few hundred KiB at once, since a part ends only between two calls."""
        self._lines += lines
        self._bytes += sum(map(len, lines))
        self.lines += len(lines)
        if self._bytes >= PART_BYTES:
            self._flush()

    def close(self) -> dict[str, Any]:
        """The stream's entry in the head."""
        self._flush()
        return {"rows": self.rows, "sha256": self._digest.hexdigest()}

    def _flush(self) -> None:
        if not self._lines:
            return
        data = b"".join(self._lines)
        first = split_line(self._lines[0])
        index = {
            "rows": len(self._lines),
            "at": self.rows,
            "first_row": int(first[0] or 0),
            "bytes": len(data),
        }
        self._digest.update(data)
        self._sink.write_part(self._packer.compress(data), stream=self._stream, index=index)
        self.rows += len(self._lines)
        self._lines, self._bytes = [], 0


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

    def lines(self, stream: str) -> Iterator[bytes]:
        """The stream's bytes, part by part, whole lines each. The digest is proven as they pass.

        Raises:
            DataLoss: PLAN_DAMAGED, at the latest after the last part: whoever consumes must not have acted before.
        """
        digest = hashlib.sha256()
        for part in self.store.parts(stream):
            data = _unpack(self.store, part)
            digest.update(data)
            yield data
        if stream in self.head["streams"] and digest.hexdigest() != self.head["streams"][stream]["sha256"]:
            raise DataLoss(f"plan: the stream {stream} found is not the one that was shown", reason="PLAN_DAMAGED")

    def numbered(self, stream: str, start: int) -> Iterator[tuple[int, list[str | None]]]:
        """The stream's lines from line `start` on, each with its number and split into fields.

        Only the parts that are come to are opened: a page costs a part or two.
        """
        for part in self.store.parts(stream):
            at, rows = int(part.index["at"]), int(part.index["rows"])
            if at + rows <= start:
                continue
            lines = _unpack(self.store, part).split(b"\n")
            for number in range(max(at, start), at + rows):
                yield number, split_line(lines[number - at])


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
