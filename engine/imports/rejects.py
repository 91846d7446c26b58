"""The reject file: the refused records in the input's own shape, with why, to be corrected and uploaded as it is.

The file is read a second time for it, which costs nothing where no record was refused. It is written with the input's
own options (delimiter, quote, NULL, encoding), so that the same request takes it back; it is never compressed.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from engine.formats.base import RawBatch, Reader
from engine.imports.mapping import Columns
from engine.imports.model import ImportOptions
from engine.imports.rejects_csv import CsvShape
from engine.imports.rejects_json import JsonShape

_NAMES = {
    "JSON": ("rejects.json", "application/json"),
    "JSON_LINES": ("rejects.jsonl", "application/x-ndjson"),
}


@dataclass(frozen=True)
class Refusal:
    """All that is wrong with one record: the first fault's code and field, every fault's message."""

    row: int
    code: str
    field: str
    message: str


class ByteSink(Protocol):
    def write(self, data: bytes) -> None: ...


def reject_name(options: ImportOptions) -> tuple[str, str]:
    """The reject file's name and media type."""
    return _NAMES.get(options.format, ("rejects.csv", "text/csv"))


def write_rejects(
    reader: Reader, columns: Columns, refusals: Iterator[Refusal], sink: ByteSink, options: ImportOptions
) -> int:
    """Writes the records of `refusals`, which come in row order; returns how many.

    Values of secret fields are left out: what is refused leaves the service, and a secret does not.
    """
    shape = JsonShape(columns, options) if options.format in _NAMES else CsvShape(columns, options)
    encoder = codecs.getincrementalencoder(shape.encoding)()
    sink.write(encoder.encode(shape.begin()))
    pending = _Pending(refusals)
    written = 0
    for batch in reader.batches():
        wanted = pending.upto(_last_row(batch))
        if not wanted:
            continue
        lines = []
        for row, record in _refused(batch, wanted, shape):
            why = wanted[row]
            lines.append(shape.record(record, (str(row), why.code, why.field, why.message), first=not written))
            written += 1
        sink.write(encoder.encode("".join(lines)))
    sink.write(encoder.encode(shape.end(written)))
    return written


def _refused(
    batch: RawBatch, wanted: dict[int, Refusal], shape: CsvShape | JsonShape
) -> Iterator[tuple[int, list[str | None] | bytes]]:
    """The wanted records by their rows: whole ones as cells or as written, broken ones the same way."""
    whole = [(row, index) for index, row in enumerate(batch.rows.to_pylist()) if row in wanted]
    broken = {b.row: b for b in batch.broken if b.row in wanted}
    found = dict(zip((row for row, _ in whole), shape.whole(batch, [index for _, index in whole]), strict=True))
    for row in sorted([*found, *broken]):
        yield row, found[row] if row in found else shape.broken(broken[row])


class _Pending:
    """Refusals in row order, taken as far as a batch reaches."""

    def __init__(self, refusals: Iterator[Refusal]) -> None:
        self._refusals = refusals
        self._next = next(refusals, None)

    def upto(self, row: int) -> dict[int, Refusal]:
        found: dict[int, Refusal] = {}
        while self._next is not None and self._next.row <= row:
            found[self._next.row] = self._next
            self._next = next(self._refusals, None)
        return found


def _last_row(batch: RawBatch) -> int:
    last: int = batch.rows[-1].as_py() if len(batch.rows) else 0
    return max(last, batch.broken[-1].row if batch.broken else 0)
