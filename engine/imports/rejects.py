"""The reject file: the refused records in the input's own shape, with why, to be corrected and uploaded as it is.

The file is read a second time for it, which costs nothing where no record was refused.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from engine.formats.base import RawBatch, Reader
from engine.imports.mapping import REJECT_COLUMNS, Columns


@dataclass(frozen=True)
class Refusal:
    """All that is wrong with one record: the first fault's code and field, every fault's message."""

    row: int
    code: str
    field: str
    message: str


csv.field_size_limit(1 << 30)  # the reader has limited the record; the library's own 128 KiB would be an error


class ByteSink(Protocol):
    def write(self, data: bytes) -> None: ...


def write_rejects(reader: Reader, columns: Columns, refusals: Iterator[Refusal], sink: ByteSink, delimiter: str) -> int:
    """Writes the records of `refusals`, which come in row order; returns how many.

    Cells of secret fields are left empty: what is refused leaves the service, and a secret does not.
    """
    options = pacsv.WriteOptions(include_header=False, quoting_style="needed", delimiter=delimiter)
    names = [columns.header[i] for i in columns.kept]
    sink.write(_line([*names, *REJECT_COLUMNS], delimiter))
    pending = _Pending(refusals)
    written = 0
    for batch in reader.batches():
        wanted = pending.upto(_last_row(batch))
        if wanted:
            table = _rejected(batch, columns, wanted, delimiter)
            out = io.BytesIO()
            pacsv.write_csv(table, out, options)
            sink.write(out.getvalue())
            written += table.num_rows
    return written


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
    last = batch.rows[-1].as_py() if len(batch.rows) else 0
    return max(last, batch.broken[-1].row if batch.broken else 0)


def _rejected(batch: RawBatch, columns: Columns, wanted: dict[int, Refusal], delimiter: str) -> pa.Table:
    secret = {m.index for m in columns.mapped if m.field.secret}
    mask = pc.is_in(batch.rows, value_set=pa.array(list(wanted), pa.int64()))
    rows = batch.rows.filter(mask)
    cells = batch.cells.filter(mask)
    kept = [
        pa.nulls(len(rows), pa.string()) if i in secret else cells.column(i) for i in columns.kept
    ]  # fmt: skip
    whole = pa.Table.from_arrays([rows, *kept], names=["row", *(f"c{i}" for i in columns.kept)])
    broken = [b for b in batch.broken if b.row in wanted]
    if broken:
        split = [_split(b.text, len(columns.header), delimiter) for b in broken]
        hidden = bool(secret)  # which cell is the secret one cannot be told in a record of the wrong length
        extra = [pa.array([None if hidden else cells[i] for cells in split], pa.string()) for i in columns.kept]
        numbers = pa.array([b.row for b in broken], pa.int64())
        whole = pa.concat_tables([whole, pa.Table.from_arrays([numbers, *extra], schema=whole.schema)]).sort_by("row")
    why = [wanted[row] for row in whole.column("row").to_pylist()]
    for name, values in zip(
        REJECT_COLUMNS,
        ([str(w.row) for w in why], [w.code for w in why], [w.field for w in why], [w.message for w in why]),
        strict=True,
    ):
        whole = whole.append_column(name, pa.array(values, pa.string()))
    return whole.drop_columns(["row"])


def _split(text: str, width: int, delimiter: str) -> list[str | None]:
    """The cells of a record that has too few or too many: filled up, or the last ones joined again."""
    cells: list[str | None] = list(next(csv.reader([text], delimiter=delimiter), []))
    if len(cells) > width:
        cells = [*cells[: width - 1], delimiter.join(c or "" for c in cells[width - 1 :])]
    return [*cells, *([None] * (width - len(cells)))]


def _line(cells: list[str], delimiter: str) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerow(cells)
    return out.getvalue().encode()
