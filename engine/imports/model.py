"""What an import is asked for and what it tells: plain values, without database or wire."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Self


class ImportType(StrEnum):
    """What happens to rows whose key the table has: left (ADDITIVE), updated (UPSERT); REPLACE deletes the others."""

    ADDITIVE = "ADDITIVE"
    UPSERT = "UPSERT"
    REPLACE = "REPLACE"


class OnDrift(StrEnum):
    """What apply does when a row the plan relied on has moved since."""

    ABORT = "ABORT"
    SKIP_MOVED = "SKIP_MOVED"


class OnRefused(StrEnum):
    """What apply does with a row that a trigger or constraint refuses only then."""

    ABORT = "ABORT"
    SKIP = "SKIP"


class ChangeKind(StrEnum):
    """The streams of a plan: what will happen to a row."""

    INSERT = "INSERT"
    SKIP = "SKIP"


class Severity(StrEnum):
    """FAILED: a bad row. SKIPPED: a good row that the mode leaves out."""

    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


class ReportPart(StrEnum):
    REPORT = "REPORT"
    REJECTS = "REJECTS"
    CHANGES = "CHANGES"


@dataclass(frozen=True)
class CsvOptions:
    """How the file is written. NULL is an unquoted `null_text`; a quoted one is that text."""

    delimiter: str = ","
    null_text: str = ""
    undo_formula_guard: bool = False


@dataclass(frozen=True)
class ImportOptions:
    """What the caller decides besides the file, the entity and the mode."""

    format: str = "CSV"
    csv: CsvOptions = field(default_factory=CsvOptions)
    auto_apply: bool = False
    error_budget: int | None = None
    """More failed rows than this fail the plan; None: no limit but the service's own."""
    on_drift: OnDrift = OnDrift.ABORT
    on_refused: OnRefused = OnRefused.ABORT

    def as_record(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in record.items() if name in known}
        values["csv"] = CsvOptions(**values.get("csv", {}))
        values["on_drift"] = OnDrift(values.get("on_drift", OnDrift.ABORT))
        values["on_refused"] = OnRefused(values.get("on_refused", OnRefused.ABORT))
        return cls(**values)


@dataclass(frozen=True)
class ColumnMapping:
    """One step of a mapping given as data: this column of the file fills that field."""

    column: str
    field: str


@dataclass(frozen=True)
class ImportRequest:
    """One call of CreateImport, parsed."""

    upload_id: uuid.UUID
    entity_type: str
    import_type: ImportType
    options: ImportOptions = field(default_factory=ImportOptions)
    mapping: tuple[ColumnMapping, ...] = ()
    name: str = ""
    """For people; the file's name when empty."""


@dataclass(frozen=True)
class RowError:
    """A row that is not imported. `row` is the record's number in the file, where the header is record 1."""

    row: int
    field: str
    code: str
    message: str
    value: str
    severity: Severity


@dataclass(frozen=True)
class FieldChange:
    field: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class RowChange:
    """A row the plan touches: its key, where it is known, and its fields before and after. Secrets are masked."""

    row: int
    kind: ChangeKind
    key: dict[str, str]
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True)
class ReportFile:
    """A file of an import or export, ready to be read from its artifact."""

    artifact_id: uuid.UUID
    name: str
    media_type: str
