"""JSON in, exactly: an array of objects, or one object a line, whichever the file is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from engine.errors import DataInvalid
from engine.formats.base import MAX_COLUMNS, ByteSource, RawBatch
from engine.formats.compressed import MAX_DECODED
from engine.formats.json_chunks import Chunk, Window, chunks
from engine.formats.json_columns import Columns, keys_of
from engine.formats.watched import Watched

_KEYS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_LINE_KEYS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class JsonReader:
    """Reads one JSON file. Its columns are the keys of its first object, in that order; with `absent_is_null` those of
    all objects, as they first come.

    A string is its text, null is NULL, and anything else is the characters it is written in. A record with other keys
    than the columns, with a key twice, with half of a surrogate pair or that is no object is a broken row:
    FIELD_UNKNOWN, FIELD_ABSENT, FIELD_DUPLICATE, INVALID_TEXT, RECORD_NOT_OBJECT.
    """

    def __init__(
        self, open_source: Callable[[], ByteSource], *, absent_is_null: bool = False, max_decoded: int = MAX_DECODED
    ) -> None:
        """Args:
        open_source: opens the file at its start; called twice, the first time for the header.
        max_decoded: bytes that a compressed file may unpack to.

        Raises:
            DataInvalid: FILE_EMPTY, FILE_NOT_UTF8, FILE_NOT_JSON, FILE_RECORD_TOO_LARGE, FILE_DAMAGED,
                FILE_TOO_LARGE_EXPANDED; so does `batches`.
        """
        self._open_source, self._max_decoded = open_source, max_decoded
        self._absent_is_null = absent_is_null
        self.header = self._all_keys() if absent_is_null else self._first_keys()
        if len(self.header) > MAX_COLUMNS:
            raise DataInvalid(
                f"file: found {len(self.header)} keys, expected at most {MAX_COLUMNS}", reason="FILE_NOT_JSON"
            )

    def batches(self) -> Iterator[RawBatch]:
        """The records in file order."""
        window = self._open()
        columns = Columns(self.header, absent_is_null=self._absent_is_null)
        has_nul = False
        for chunk in chunks(window):
            found = columns.decode(chunk)
            has_nul = has_nul or window.data.find(b"\\u0000", 0, chunk.consumed) >= 0
            yield RawBatch(
                found.cells,
                found.rows,
                found.broken,
                bytes_read=window.bytes_read,
                has_nul=has_nul,
                raw=_records(chunk, found.good),
            )

    def _open(self) -> Window:
        return Window(Watched(self._open_source(), max_decoded=self._max_decoded))

    def _first_keys(self) -> tuple[str, ...]:
        for chunk in chunks(self._open()):
            for record in chunk.records()[0]:
                if record.startswith(b"{") and (keys := keys_of(record)):
                    return tuple(keys)
        return ()

    def _all_keys(self) -> tuple[str, ...]:
        keys: dict[str, None] = {}
        for chunk in chunks(self._open()):
            for names in _keys_in(chunk):
                if not keys.keys() >= names.keys():
                    keys |= dict.fromkeys(names)
        return tuple(keys)


def _keys_in(chunk: Chunk) -> Sequence[dict[str, object]]:
    """Each record's keys, in its order."""
    if chunk.text is not None:
        try:
            found = _KEYS.decode(b"[%b]" % chunk.text) if chunk.in_array else _LINE_KEYS.decode_lines(chunk.text)
        except (msgspec.MsgspecError, RecursionError):
            pass
        else:
            chunk.count = len(found)
            return found  # type: ignore[return-value]
    return [dict.fromkeys(keys_of(record)) for record in chunk.records()[0]]


def _records(chunk: Chunk, good: list[bytes] | None) -> Callable[[], Sequence[bytes]]:
    return lambda: chunk.records()[0] if good is None else good
