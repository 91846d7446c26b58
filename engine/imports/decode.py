"""Decode: the upload as a reader of raw text, by the format the caller named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import NotBuilt
from engine.formats.base import ByteSource, RawBatch, Reader
from engine.formats.compressed import MAX_DECODED
from engine.formats.csv import CsvReader
from engine.formats.json import JsonReader
from engine.imports.model import ImportOptions


def open_reader(
    open_source: Callable[[], ByteSource], options: ImportOptions, *, max_decoded: int = MAX_DECODED
) -> Reader:
    """A reader over one pass of the file, which may be compressed with gzip or Zstandard.

    JSON and JSON_LINES are one: whether the file is an array or holds one object a line shows itself.
    `max_decoded`: bytes that a compressed file may unpack to.

    Raises:
        NotBuilt: NOT_BUILT for a format of a later release.
        DataInvalid: what the format's reader refuses.
    """
    if options.format == "CSV":
        csv = options.csv
        return CsvReader(
            open_source,
            delimiter=csv.delimiter,
            null_text=csv.null_text,
            quote=csv.quote,
            encoding=csv.encoding,
            max_decoded=max_decoded,
        )
    if options.format in ("JSON", "JSON_LINES"):
        return JsonReader(open_source, absent_is_null=options.json.absent_is_null, max_decoded=max_decoded)
    raise NotBuilt(
        f"format: found {options.format}, expected CSV, JSON or JSON_LINES in this release", reason="NOT_BUILT"
    )


def without_guard(batch: RawBatch) -> RawBatch:
    """Undoes the formula guard, which is injective: one `'` less on every text that begins with one."""
    if not batch.cells.num_columns:
        return batch
    columns = [pc.replace_substring_regex(column, "^'", "") for column in batch.cells.columns]
    cells = pa.RecordBatch.from_arrays(columns, names=batch.cells.schema.names)
    return replace(batch, cells=cells)
