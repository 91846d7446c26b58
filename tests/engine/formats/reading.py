"""Reads a whole file the way an import does, for the tests of every format."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from engine.formats.base import BrokenRow
from engine.imports.decode import open_reader
from engine.imports.model import CsvOptions, ImportOptions, JsonOptions

DATA = Path(os.environ.get("DATAOPS_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))

Rows = dict[int, list[str | None]]


def read(data: bytes, file_format: str = "CSV", **options: Any) -> tuple[tuple[str, ...], Rows, list[BrokenRow]]:
    """The header, each record's cells by its number, and the broken ones. `options`: of the format."""
    made = ImportOptions(format=file_format)
    if file_format == "CSV":
        made = ImportOptions(format="CSV", csv=CsvOptions(**options))
    elif options:
        made = ImportOptions(format=file_format, json=JsonOptions(**options))
    reader = open_reader(lambda: io.BytesIO(data), made)
    rows: Rows = {}
    broken: list[BrokenRow] = []
    for batch in reader.batches():
        cells = [column.to_pylist() for column in batch.cells.columns]
        rows |= {number: [c[i] for c in cells] for i, number in enumerate(batch.rows.to_pylist())}
        broken += batch.broken
    return reader.header, rows, broken
