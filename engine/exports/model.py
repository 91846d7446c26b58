"""What an export is asked for: plain values, without database or wire."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Self


class ExportType(StrEnum):
    FULL = "FULL"
    PARTIAL = "PARTIAL"
    ENTITY = "ENTITY"


class ExportFormat(StrEnum):
    CSV = "CSV"
    JSON = "JSON"


@dataclass(frozen=True)
class ExportOptions:
    """How the file is written. The formula guard puts `'` before texts a spreadsheet would run, and before `'`."""

    delimiter: str = ","
    formula_guard: bool = True
    columns: tuple[str, ...] = ()
    """Fields in the order wanted; empty: all that are not secret, in catalog order."""

    def as_record(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in record.items() if name in known}
        values["columns"] = tuple(values.get("columns", ()))
        return cls(**values)


@dataclass(frozen=True)
class ExportRequest:
    """One call of CreateExport, parsed."""

    export_type: ExportType
    entity_types: tuple[str, ...]
    format: ExportFormat
    options: ExportOptions = field(default_factory=ExportOptions)
    name: str = ""
    """For people; the file's name when empty."""


@dataclass(frozen=True)
class ExportFile:
    """An export's file. `still_writing` tells a follower whether more bytes may come."""

    artifact_id: uuid.UUID
    name: str
    media_type: str
    still_writing: Callable[[], bool]
