"""What every reader gives, whatever the format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

BLOCK = 2 << 20
"""Bytes parsed at once, and so the largest record."""

MAX_COLUMNS = 1_600
"""PostgreSQL's own limit for a table."""


@dataclass(frozen=True)
class BrokenRow:
    """A record that cannot be split into the header's columns."""

    row: int
    text: str
    """As the file has it."""
    message: str
    code: str = "WRONG_FIELD_COUNT"


@dataclass(frozen=True)
class RawBatch:
    """Consecutive records as text, exactly as the file has them; NULL is null.

    `rows` holds each record's number in the file. CSV: the header is record 1; a quoted line break does not start a
    record; blank records count, so that the number is the one a spreadsheet shows. JSON: an array's records are
    counted from 1; of one object a line it is the number of the line it begins on.
    """

    cells: pa.RecordBatch
    rows: pa.Int64Array
    broken: tuple[BrokenRow, ...] = ()
    blank: int = 0
    """Records without any content, which stand in `rows` of no batch."""
    bytes_read: int = 0
    """Of the upload so far, as it was sent: compressed bytes where it is compressed."""
    has_nul: bool = False
    """Whether a NUL has come by so far: pyarrow keeps it, PostgreSQL's text cannot hold it."""
    raw: Callable[[], Sequence[bytes]] | None = None
    """JSON only: each record of `rows` as the file has it. Asking costs another look at the block."""


class Reader(Protocol):
    """One pass over one file. `batches` may be called once; it is pull-driven and holds a few blocks at the most.

    Raises:
        DataInvalid: FILE_EMPTY, FILE_NOT_UTF8, FILE_NOT_CSV, FILE_RECORD_TOO_LARGE …: nothing of the file can be
            trusted after it, whatever was yielded before.
    """

    header: tuple[str, ...]
    """The names of the columns, in file order. Empty for a JSON file without any object: the batches then hold no
    cells, only the records that are no objects, as broken rows."""

    def batches(self) -> Iterator[RawBatch]: ...


class ByteSource(Protocol):
    """A sequential file of bytes; `read` gives at most `size`, and b"" at the end."""

    def read(self, size: int = -1, /) -> bytes | None: ...
