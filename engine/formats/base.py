"""What every reader gives, whatever the format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True)
class BrokenRow:
    """A record that cannot be split into the header's columns."""

    row: int
    text: str
    message: str


@dataclass(frozen=True)
class RawBatch:
    """Consecutive records as text, exactly as the file has them; NULL is null.

    `rows` holds each record's number in the file. The header is record 1; a quoted line break does not start a record;
    blank records count, so that the number is the one a spreadsheet shows.
    """

    cells: pa.RecordBatch
    rows: pa.Int64Array
    broken: tuple[BrokenRow, ...] = ()
    blank: int = 0
    """Records without any content, which stand in `rows` of no batch."""
    bytes_read: int = 0
    """Of the file so far."""
    has_nul: bool = False
    """Whether a NUL byte has come by so far: pyarrow keeps it, PostgreSQL's text cannot hold it."""


class Reader(Protocol):
    """One pass over one file. `batches` may be called once; it is pull-driven and holds a few blocks at the most.

    Raises:
        DataInvalid: FILE_EMPTY, FILE_NOT_UTF8, FILE_NOT_CSV, FILE_RECORD_TOO_LARGE …: nothing of the file can be
            trusted after it, whatever was yielded before.
    """

    header: tuple[str, ...]

    def batches(self) -> Iterator[RawBatch]: ...


class ByteSource(Protocol):
    """A sequential file of bytes; `read` gives at most `size`, and b"" at the end."""

    def read(self, size: int = -1, /) -> bytes | None: ...
