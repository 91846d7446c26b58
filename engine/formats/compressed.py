"""What is inside a compressed file, found by its first bytes, and how many bytes of the upload it took.

gzip (of several members too) and Zstandard (of several frames too) are opened as a stream. A file that unpacks to far
more than it can honestly hold is refused while it does so, not after.
"""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa

from engine.errors import DataInvalid
from engine.formats.base import ByteSource

MAX_RATIO = 1_000
"""Decoded bytes for each byte of the upload. Rows of repeated text reach 100; gzip's own limit is 1,032."""

RATIO_FROM = 64 << 20
"""Decoded bytes below which the ratio is no matter."""

MAX_DECODED = 1 << 40

_ZSTD_SKIPPABLE = tuple(bytes([0x50 + i, 0x2A, 0x4D, 0x18]) for i in range(16))
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"} | dict.fromkeys(_ZSTD_SKIPPABLE, "zstd")


class Unpacked:
    """The file's own bytes, whatever the upload is wrapped in.

    Raises:
        DataInvalid: FILE_DAMAGED, FILE_TOO_LARGE_EXPANDED, by `read`.
    """

    def __init__(self, source: ByteSource, max_decoded: int = MAX_DECODED) -> None:
        self._transport = _Counted(source)
        self._max_decoded = max_decoded
        self._stream: Any = self._transport
        self.decoded = 0
        head = self._transport.peek(4)
        self._codec = next((codec for magic, codec in _MAGIC.items() if head.startswith(magic)), None)
        if self._codec:
            self._stream = pa.CompressedInputStream(pa.PythonFile(self._transport, mode="r"), self._codec)

    @property
    def bytes_read(self) -> int:
        """Of the upload."""
        return self._transport.bytes_read

    def read(self, size: int = -1, /) -> bytes:
        try:
            data: bytes = self._stream.read(size)
        except (OSError, pa.ArrowException) as error:
            raise self._transport.failure or self._damaged(error) from None
        self.decoded += len(data)
        if self._codec:
            self._bound()
        return data

    def _bound(self) -> None:
        taken = self._transport.bytes_read
        if self.decoded > self._max_decoded or (self.decoded > RATIO_FROM and self.decoded > MAX_RATIO * taken):
            raise DataInvalid(
                f"file: found {self.decoded} bytes in the first {taken} bytes of {self._codec} data, "
                f"expected at most {MAX_RATIO} for each, and {self._max_decoded} in all",
                reason="FILE_TOO_LARGE_EXPANDED",
            )

    def _damaged(self, error: Exception) -> DataInvalid:
        what = "its end is missing" if "runcated" in str(error) else "its content is no such data"
        return DataInvalid(
            f"file: found damaged {self._codec} data after {self._transport.bytes_read} bytes: {what}",
            reason="FILE_DAMAGED",
            metadata={"offset": str(self._transport.bytes_read)},
        )


class _Counted(io.RawIOBase):
    """The upload's bytes, counted; what its own source raised is kept, because pyarrow passes on only the text."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._head = b""
        self.bytes_read = 0
        self.failure: Exception | None = None

    def readable(self) -> bool:
        return True

    def peek(self, size: int) -> bytes:
        while len(self._head) < size and (data := self._take(size - len(self._head))):
            self._head += data
        return self._head

    def read(self, size: int = -1, /) -> bytes:
        if not self._head:
            return self._take(size)
        data = self._head if size < 0 else self._head[:size]
        self._head = self._head[len(data) :]
        return data

    def _take(self, size: int) -> bytes:
        try:
            data = bytes(self._source.read(size) or b"")
        except Exception as error:
            self.failure = error
            raise
        self.bytes_read += len(data)
        return data
