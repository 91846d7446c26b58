"""A file's bytes on their way into a parser: unpacked, UTF-8 for certain, counted, without a byte order mark."""

from __future__ import annotations

import codecs
import io
import struct
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from engine.errors import DataInvalid
from engine.formats.base import ByteSource
from engine.formats.compressed import MAX_DECODED, Unpacked
from engine.formats.encodings import Transcoded

_BOMS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16", codecs.BOM_UTF8: ""}


class Watched:
    """UTF-8 text, checked block by block.

    Raises:
        DataInvalid: FILE_NOT_UTF8, FILE_NOT_ENCODED, FILE_DAMAGED, FILE_TOO_LARGE_EXPANDED, by `take`.
    """

    def __init__(self, source: ByteSource, *, encoding: str = "utf-8", max_decoded: int = MAX_DECODED) -> None:
        self._unpacked = Unpacked(source, max_decoded)
        self._source: ByteSource = self._unpacked if encoding == "utf-8" else Transcoded(self._unpacked, encoding)
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self.offset = 0
        """Bytes of text so far, a byte order mark among them."""
        self.mark = 0
        """Bytes that the byte order mark took."""
        self.failure: Exception | None = None

    @property
    def bytes_read(self) -> int:
        """Of the upload so far."""
        return self._unpacked.bytes_read

    def take(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end (and by a byte order mark at the start)."""
        try:
            return self._take(size)
        except Exception as error:
            self.failure = error
            raise

    def _take(self, size: int) -> bytes:
        pieces: list[bytes] = []
        missing = size
        while missing and (piece := self._source.read(missing)):
            pieces.append(bytes(piece))
            missing -= len(piece)
        data, start = b"".join(pieces), self.offset
        self.offset += len(data)
        if start == 0:
            self.mark = self._bom(data)
            data = data[self.mark :]
            start = self.mark
        held = len(self._decoder.getstate()[0])
        if not held and _is_utf8(data):  # decoding would make a text only to throw it away
            return data
        try:
            self._decoder.decode(data, final=bool(missing))
        except UnicodeDecodeError as error:
            raise not_utf8("found bytes that are no UTF-8", start + error.start - held) from None
        return data

    def _bom(self, data: bytes) -> int:
        for bom, name in _BOMS.items():
            if data.startswith(bom):
                if name:
                    raise not_utf8(f"found {name} text", 0)
                return len(bom)
        return 0


def _is_utf8(data: bytes) -> bool:
    """Whether all of it is whole characters: told by Arrow in 0.05 s for 227 MB, where to decode them takes 0.3 s."""
    ends = pa.py_buffer(struct.pack("<ii", 0, len(data)))
    try:
        pa.StringArray.from_buffers(1, ends, pa.py_buffer(data)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


class RawFile(io.RawIOBase):
    """Bytes taken from somewhere, as the standard library and pyarrow want a raw file."""

    def __init__(self, take: Callable[[int], bytes]) -> None:
        self._take = take

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._take(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def not_utf8(what: str, offset: int) -> DataInvalid:
    return DataInvalid(
        f"file: {what} at byte {offset}, expected UTF-8",
        reason="FILE_NOT_UTF8",
        metadata={"offset": str(offset)},
    )
