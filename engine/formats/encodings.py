"""Text in another encoding than UTF-8, made into UTF-8 as it is read; what does not fit is refused by its byte."""

from __future__ import annotations

import codecs
import re

from engine.errors import DataInvalid
from engine.formats.base import ByteSource

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:()+-]{0,39}")

_NO_CHARSETS = {"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "utf-7", "charmap", "palmos"}
"""Codecs that are text to Python and no encoding of a file; UTF-7 writes one text in many ways."""

_MARKED = {"utf-16", "utf-32"}
"""Without a mark at the file's start the order of their bytes is anybody's guess."""

_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def encoding_of(name: str) -> str:
    """The encoding's name in Python; "utf-8" for UTF-8 and for no name.

    Raises:
        DataInvalid: OPTION_INVALID for a name that is no character encoding known here.
    """
    if not name:
        return "utf-8"
    try:
        info = codecs.lookup(name) if _NAME.fullmatch(name) else None
    except LookupError:
        info = None
    if info is None or not info._is_text_encoding or info.name in _NO_CHARSETS:
        raise DataInvalid(f"encoding: expected the IANA name of an encoding, found {name!r}", reason="OPTION_INVALID")
    return "utf-8" if info.name == "utf-8-sig" else info.name


class Transcoded:
    """A source of `encoding` as a source of UTF-8.

    Raises:
        DataInvalid: FILE_NOT_ENCODED, by `read`.
    """

    def __init__(self, source: ByteSource, encoding: str) -> None:
        self._source = source
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._pending = b""
        self._taken = 0
        self._ended = False

    def read(self, size: int = -1, /) -> bytes:
        while not self._ended and (size < 0 or len(self._pending) < size):
            self._pending += self._more(1 << 20 if size < 0 else max(size, 1024))
        data = self._pending if size < 0 else self._pending[:size]
        self._pending = self._pending[len(data) :]
        return data

    def _more(self, size: int) -> bytes:
        data = self._source.read(size) or b""
        while self._taken == 0 and len(data) < 4 and (more := self._source.read(4)):
            data += more
        if self._taken == 0:
            self._check_mark(data)
        self._ended = not data
        held = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise self._fail("found bytes that are none", self._taken - held + error.start) from None
        self._taken += len(data)
        return text.encode()

    def _check_mark(self, data: bytes) -> None:
        mark = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "")
        if self._encoding in _MARKED:
            if not data.startswith(
                (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
            ):
                raise self._fail(
                    "found no byte order mark", 0, f"; {self._encoding}le or {self._encoding}be needs none"
                )
        elif mark and not self._encoding.startswith(mark[:4]):
            raise self._fail(f"found a mark of {mark}", 0)

    def _fail(self, what: str, offset: int, hint: str = "") -> DataInvalid:
        return DataInvalid(
            f"file: {what} at byte {offset}, expected {self._encoding}{hint}",
            reason="FILE_NOT_ENCODED",
            metadata={"offset": str(offset), "encoding": self._encoding},
        )
