"""The reject file of a CSV file: its columns, and four more."""

from __future__ import annotations

import csv

import pyarrow as pa

from engine.formats.base import BrokenRow, RawBatch
from engine.formats.encodings import encoding_of
from engine.imports.mapping import REJECT_COLUMNS, Columns
from engine.imports.model import ImportOptions


class CsvShape:
    """Writes records as the input's options say: text in quotes, NULL bare."""

    def __init__(self, columns: Columns, options: ImportOptions) -> None:
        self._csv = options.csv
        self._columns = columns
        self._secret = {m.index for m in columns.mapped if m.field.secret}
        self._special = {options.csv.delimiter, options.csv.quote, "\r", "\n"}
        self.encoding = encoding_of(options.csv.encoding)

    def begin(self) -> str:
        names = [*(self._columns.header[i] for i in self._columns.kept), *REJECT_COLUMNS]
        return self._line([name if self._special.isdisjoint(name) else self._quoted(name) for name in names])

    def end(self, written: int) -> str:
        return ""

    def whole(self, batch: RawBatch, indexes: list[int]) -> list[list[str | None]]:
        """The kept cells of the batch's records at `indexes`."""
        if not indexes:
            return []
        taken = batch.cells.take(pa.array(indexes, pa.int64()))
        columns = [
            [None] * len(indexes) if i in self._secret else taken.column(i).to_pylist() for i in self._columns.kept
        ]
        return [list(cells) for cells in zip(*columns, strict=True)]

    def broken(self, broken: BrokenRow) -> list[str | None]:
        """The cells of a record that has too few or too many, as many as there are: filled up or joined they would be
        taken, uncorrected, for a record that means something else."""
        if self._secret:  # which cell is the secret one cannot be told in a record of the wrong length
            return [None] * len(self._columns.kept)
        width, delimiter = len(self._columns.header), self._csv.delimiter
        cells: list[str | None] = list(
            next(csv.reader([broken.text], delimiter=delimiter, quotechar=self._csv.quote), [])
        )
        return [cells[i] for i in self._columns.kept if i < len(cells)] + cells[width:]

    def record(self, record: list[str | None] | bytes, why: tuple[str, ...], *, first: bool) -> str:
        assert not isinstance(record, bytes)
        cells = [*record, *(self._writable(text) for text in why)]
        return self._line([self._csv.null_text if text is None else self._quoted(text) for text in cells])

    def _line(self, cells: list[str]) -> str:
        return self._csv.delimiter.join(cells) + "\n"

    def _quoted(self, text: str) -> str:
        quote = self._csv.quote
        return quote + text.replace(quote, quote * 2) + quote

    def _writable(self, text: str) -> str:
        """A message may hold what the file's encoding has no sign for; the cells cannot."""
        return text.encode(self.encoding, "backslashreplace").decode(self.encoding)
