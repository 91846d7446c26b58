"""What an export is asked for: plain values, without database or wire."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Self


class ExportType(StrEnum):
    FULL = "FULL"
    PARTIAL = "PARTIAL"
    ENTITY = "ENTITY"


class ExportFormat(StrEnum):
    CSV = "CSV"
    JSON = "JSON"
    JSON_LINES = "JSON_LINES"
    BUNDLE = "BUNDLE"


class Compression(StrEnum):
    """Around the whole file; a bundle compresses its members itself."""

    NONE = "NONE"
    GZIP = "GZIP"
    ZSTD = "ZSTD"


class FilterOperator(StrEnum):
    """How a condition compares. NOT_IN keeps NULL: it is none of the values."""

    IN = "IN"
    NOT_IN = "NOT_IN"
    LESS = "LESS"
    LESS_OR_EQUAL = "LESS_OR_EQUAL"
    GREATER = "GREATER"
    GREATER_OR_EQUAL = "GREATER_OR_EQUAL"
    IS_NULL = "IS_NULL"
    IS_NOT_NULL = "IS_NOT_NULL"
    PREFIX = "PREFIX"


_ENDINGS = {
    ExportFormat.CSV: "csv",
    ExportFormat.JSON: "json",
    ExportFormat.JSON_LINES: "jsonl",
    ExportFormat.BUNDLE: "zip",
}
_COMPRESSED_ENDINGS = {Compression.GZIP: ".gz", Compression.ZSTD: ".zst"}
_MEDIA_TYPES = {
    ExportFormat.CSV: "text/csv",
    ExportFormat.JSON: "application/json",
    ExportFormat.JSON_LINES: "application/jsonl",
    ExportFormat.BUNDLE: "application/zip",
}
_COMPRESSED_TYPES = {Compression.GZIP: "application/gzip", Compression.ZSTD: "application/zstd"}


@dataclass(frozen=True)
class ExportOptions:
    """How the file is written. The formula guard puts `'` before texts a spreadsheet would run, and before `'`; it is
    CSV's alone, in other formats it means nothing."""

    delimiter: str = ","
    formula_guard: bool = True
    columns: tuple[str, ...] = ()
    """Fields in the order wanted; empty: all that are not secret, in catalog order."""
    compression: Compression = Compression.NONE

    def as_record(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in record.items() if name in known}
        values["columns"] = tuple(values.get("columns", ()))
        values["compression"] = Compression(values.get("compression", Compression.NONE))
        return cls(**values)


@dataclass(frozen=True)
class Condition:
    """One comparison. `values` are PostgreSQL's texts for the field's type: none, one or several by the operator."""

    field: str
    operator: FilterOperator
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Order:
    """One step of an order. NULL counts as the greatest."""

    field: str
    descending: bool = False


Span = tuple[datetime | None, datetime | None]
"""From (inside) and until (outside); None is open."""


@dataclass(frozen=True)
class Selection:
    """Which rows, in which order; all that is set must hold. `limit` counts for each entity, 0 is none."""

    created: Span = (None, None)
    updated: Span = (None, None)
    statuses: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    order_by: tuple[Order, ...] = ()
    limit: int = 0

    @property
    def filters(self) -> bool:
        """Whether anything but order and limit is set."""
        return bool(self.statuses or self.conditions or any((*self.created, *self.updated)))

    def as_record(self) -> dict[str, Any]:
        record = asdict(self)
        for name in ("created", "updated"):
            record[name] = [moment and moment.isoformat() for moment in record[name]]
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        return cls(
            created=_span(record.get("created")),
            updated=_span(record.get("updated")),
            statuses=tuple(record.get("statuses", ())),
            conditions=tuple(
                Condition(c["field"], FilterOperator(c["operator"]), tuple(c["values"]))
                for c in record.get("conditions", ())
            ),
            order_by=tuple(Order(o["field"], o["descending"]) for o in record.get("order_by", ())),
            limit=record.get("limit", 0),
        )


@dataclass(frozen=True)
class ExportRequest:
    """One call of CreateExport, parsed."""

    export_type: ExportType
    entity_types: tuple[str, ...]
    """Names of entities or groups; empty for FULL."""
    format: ExportFormat
    options: ExportOptions = field(default_factory=ExportOptions)
    name: str = ""
    """For people; the file's name when empty."""
    selection: Selection = field(default_factory=Selection)


@dataclass(frozen=True)
class ExportFile:
    """An export's file. `still_writing` tells a follower whether more bytes may come."""

    artifact_id: uuid.UUID
    name: str
    media_type: str
    still_writing: Callable[[], bool]


def file_ending(format: ExportFormat, compression: Compression) -> str:  # noqa: A002
    """What the file's name ends with: `csv`, `json.gz`, `jsonl.zst`, `zip`."""
    return _ENDINGS[format] + _COMPRESSED_ENDINGS.get(compression, "")


def media_type(format: ExportFormat, compression: Compression) -> str:  # noqa: A002
    """The file's media type, of its outermost layer."""
    return _COMPRESSED_TYPES.get(compression) or _MEDIA_TYPES[format]


def _span(record: Any) -> Span:
    start, end = record or (None, None)
    return (start and datetime.fromisoformat(start), end and datetime.fromisoformat(end))
