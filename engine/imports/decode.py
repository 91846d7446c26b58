"""Decode: the upload as a reader of raw text, by the format the caller named."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import NotBuilt
from engine.formats.base import ByteSource, RawBatch, Reader
from engine.formats.csv import CsvReader
from engine.imports.model import ImportOptions


def open_reader(open_source: Callable[[], ByteSource], options: ImportOptions) -> Reader:
    """A reader over one pass of the file.

    Raises:
        NotBuilt: NOT_BUILT for a format of a later release.
        DataInvalid: what the format's reader refuses.
    """
    if options.format != "CSV":
        raise NotBuilt(f"format: found {options.format}, expected CSV in this release", reason="NOT_BUILT")
    return CsvReader(open_source, delimiter=options.csv.delimiter, null_text=options.csv.null_text)


def without_guard(batch: RawBatch) -> RawBatch:
    """Undoes the formula guard, which is injective: one `'` less on every text that begins with one."""
    columns = [pc.replace_substring_regex(column, "^'", "") for column in batch.cells.columns]
    cells = pa.RecordBatch.from_arrays(columns, names=batch.cells.schema.names)
    return RawBatch(cells, batch.rows, batch.broken, batch.blank, batch.bytes_read, batch.has_nul)
