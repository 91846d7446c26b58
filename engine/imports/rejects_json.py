"""The reject file of a JSON file: its records as they were written, each with four keys more."""

from __future__ import annotations

import json

from engine.formats.base import BrokenRow, RawBatch
from engine.formats.json_scan import scan, text_of
from engine.imports.mapping import REJECT_COLUMNS, Columns
from engine.imports.model import ImportOptions

RECORD_KEY = "_record"
"""Under this key stands a record that is no object."""


class JsonShape:
    """An array for JSON, one object a line for JSON_LINES."""

    encoding = "utf-8"

    def __init__(self, columns: Columns, options: ImportOptions) -> None:
        self._in_array = options.format == "JSON"
        self._known = set(columns.header)
        self._secret = {columns.header[m.index].casefold() for m in columns.mapped if m.field.secret}

    def begin(self) -> str:
        return "[" if self._in_array else ""

    def end(self, written: int) -> str:
        return "\n]\n" if self._in_array else ""

    def whole(self, batch: RawBatch, indexes: list[int]) -> list[bytes]:
        """The batch's records at `indexes`, as they were written."""
        if not indexes:
            return []
        assert batch.raw is not None  # a JSON reader always says
        records = batch.raw()
        return [records[index] for index in indexes]

    def broken(self, broken: BrokenRow) -> bytes:
        return broken.text.encode()

    def record(self, record: list[str | None] | bytes, why: tuple[str, ...], *, first: bool) -> str:
        assert isinstance(record, bytes)
        row, *words = why
        parts = [*self._parts(record), f'"{REJECT_COLUMNS[0]}":{row}']
        for key, text in zip(REJECT_COLUMNS[1:], words, strict=True):
            parts.append(f"{_text(key)}:{_text(text)}")
        written = "{" + ",".join(parts) + "}"
        return ("\n" if first else ",\n") + written if self._in_array else written + "\n"

    def _parts(self, record: bytes) -> list[str]:
        pairs = scan(record + b"\n", 0).pairs
        if pairs is None:
            # a line break inside it would make two lines of one
            shown = b"null" if self._secret else record
            return [f"{_text(RECORD_KEY)}:{self._in_one_line(shown)}"]
        kept = []
        for key, value in pairs:
            try:
                name = text_of(key) or ""
            except UnicodeError:
                name = key.decode()
            if name not in REJECT_COLUMNS:
                kept.append(f"{self._in_one_line(key)}:{self._in_one_line(b'null' if self._hides(name) else value)}")
        return kept

    def _hides(self, name: str) -> bool:
        """A secret, or what may be one under a key that nobody knows."""
        return name.casefold() in self._secret or (bool(self._secret) and name not in self._known)

    def _in_one_line(self, raw: bytes) -> str:
        """JSON as it is written: a line break can stand only between its parts, where a space means the same."""
        text = raw.decode()
        return text if self._in_array else text.replace("\r", " ").replace("\n", " ")


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
