"""Rows as people read them: their key, and what happens to their fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataops.v1 import backups_pb2, common_pb2, imports_pb2

_LONGEST = 60


def key_text(key: Iterable[common_pb2.FieldValue], *, cut: bool = False) -> str:
    """The values of a row's key."""
    return ", ".join(_text(part.value if part.HasField("value") else None, cut) for part in key)


def fields_text(change: imports_pb2.ImportChange | backups_pb2.BackupDifference, *, cut: bool = False) -> str:
    """Fields, old -> new; `cut` shortens long values and long lists of fields."""
    from dataops.v1 import imports_pb2

    shown = list(change.fields[:6] if cut else change.fields)
    parts = []
    for field in shown:
        old = _text(field.old if field.HasField("old") else None, cut)
        new = _text(field.new if field.HasField("new") else None, cut)
        if field.masked:
            parts.append(f"{field.name}: (secret)")
        elif change.kind == imports_pb2.CHANGE_KIND_INSERT:
            parts.append(f"{field.name} = {new}")
        elif change.kind == imports_pb2.CHANGE_KIND_DELETE:
            parts.append(f"{field.name} = {old}")
        else:
            parts.append(f"{field.name}: {old} -> {new}")
    more = len(change.fields) - len(shown)
    return ", ".join(parts) + (f", and {more} more" if more else "")


def _text(value: str | None, cut: bool) -> str:
    """NULL, and texts that could be taken for it or for nothing in quotes."""
    if value is None:
        return "NULL"
    if value == "" or value == "NULL" or value != value.strip():
        return f"'{value}'"
    return f"{value[:_LONGEST]}…" if cut and len(value) > _LONGEST else value
