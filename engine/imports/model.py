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
    """What apply does when a row the plan relied on has moved since. REPLAN goes with auto_apply only."""

    ABORT = "ABORT"
    SKIP_MOVED = "SKIP_MOVED"
    REPLAN = "REPLAN"


class OnRefused(StrEnum):
    """What apply does with a row that a trigger or constraint refuses only then."""

    ABORT = "ABORT"
    SKIP = "SKIP"


class ChangeKind(StrEnum):
    """The streams of a plan: what will happen to a row. CASCADE: a foreign key changes or deletes it by itself."""

    INSERT = "INSERT"
    UPDATE = "UPDATE"
    UNCHANGED = "UNCHANGED"
    DELETE = "DELETE"
    SKIP = "SKIP"
    CASCADE = "CASCADE"


class Severity(StrEnum):
    """FAILED: a bad row. SKIPPED: a good row that the mode leaves out."""

    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


class ReportPart(StrEnum):
    REPORT = "REPORT"
    REJECTS = "REJECTS"
    CHANGES = "CHANGES"


class LetterCase(StrEnum):
    UPPER = "UPPER"
    LOWER = "LOWER"


@dataclass(frozen=True)
class CsvOptions:
    """How the file is written. NULL is an unquoted `null_text`; a quoted one is that text."""

    delimiter: str = ","
    null_text: str = ""
    undo_formula_guard: bool = False
    quote: str = '"'
    encoding: str = "utf-8"


@dataclass(frozen=True)
class JsonOptions:
    """How the file is read. Records that lack a field others have are refused, unless absent means null."""

    absent_is_null: bool = False


@dataclass(frozen=True)
class ImportOptions:
    """What the caller decides besides the file, the entity and the mode."""

    format: str = "CSV"
    csv: CsvOptions = field(default_factory=CsvOptions)
    json: JsonOptions = field(default_factory=JsonOptions)
    auto_apply: bool = False
    error_budget: int | None = None
    """More failed rows than this fail the plan; None: no limit but the service's own, and 0 for REPLACE."""
    on_drift: OnDrift = OnDrift.ABORT
    on_refused: OnRefused | None = None
    """None: ABORT for REPLACE and bundles, SKIP for the others."""
    allow_cascade: tuple[str, ...] = ()
    """Entities that foreign-key actions may change."""
    max_deletes: int | None = None
    """Deletes that need no number repeated; None: 10 % of the rows or 1,000, whichever is less."""
    key_fields: tuple[str, ...] = ()
    """The unique fields that tell which row is meant; empty: the entity's key."""

    def as_record(self) -> dict[str, Any]:
        """What is kept with the import. The release before must be able to read it: it knows no quote and encoding."""
        record, usual = asdict(self), asdict(CsvOptions())
        for name in ("quote", "encoding"):
            if record["csv"][name] == usual[name]:
                del record["csv"][name]
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in record.items() if name in known}
        values["csv"] = CsvOptions(**values.get("csv", {}))
        values["json"] = JsonOptions(**values.get("json", {}))
        values["on_drift"] = OnDrift(values.get("on_drift", OnDrift.ABORT))
        values["on_refused"] = OnRefused(values["on_refused"]) if values.get("on_refused") else None
        for name in ("allow_cascade", "key_fields"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)


def effective_on_refused(options: ImportOptions, mode: ImportType) -> OnRefused:
    """What was said, else what the contract says: no row of a bundle or of a whole table may be missed."""
    if options.on_refused is not None:
        return options.on_refused
    whole = mode is ImportType.REPLACE or options.format == "BUNDLE"
    return OnRefused.ABORT if whole else OnRefused.SKIP


def effective_error_budget(options: ImportOptions, mode: ImportType) -> int | None:
    """What was said; else 0 for REPLACE, and no limit for the others."""
    return 0 if options.error_budget is None and mode is ImportType.REPLACE else options.error_budget


@dataclass(frozen=True)
class FieldMapping:
    """Where one field's value comes from, and the steps it takes, in this order: trim, empty_is_null, letter_case,
    values, date, default, lookup. NULL passes all but `default`."""

    field: str
    """Empty: the column is left out."""
    column: str | None = None
    constant: str | None = None
    entity: str = ""
    trim: bool = False
    empty_is_null: bool = False
    letter_case: LetterCase | None = None
    values: tuple[tuple[str, str], ...] = ()
    only_listed_values: bool = False
    date_pattern: str = ""
    time_zone: str = ""
    default: str | None = None
    lookup: str = ""

    def as_record(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        case = record.get("letter_case")
        values = tuple((old, new) for old, new in record.get("values", ()))
        return cls(**record | {"letter_case": LetterCase(case) if case else None, "values": values})


@dataclass(frozen=True)
class ImportRequest:
    """One call of CreateImport, parsed."""

    upload_id: uuid.UUID
    entity_type: str
    """Empty for a bundle."""
    import_type: ImportType
    options: ImportOptions = field(default_factory=ImportOptions)
    mapping: tuple[FieldMapping, ...] = ()
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
    entity: str = ""


@dataclass(frozen=True)
class FieldChange:
    """One field before and after; `masked` where it is secret: then they only say whether there is a value."""

    field: str
    old: str | None
    new: str | None
    masked: bool = False


@dataclass(frozen=True)
class RowChange:
    """A row the plan touches: its key, where it is known, and its fields before and after. Secrets are masked."""

    row: int
    kind: ChangeKind
    key: dict[str, str]
    fields: tuple[FieldChange, ...]
    entity: str = ""


@dataclass(frozen=True)
class ReportFile:
    """A file of an import or export, ready to be read from its artifact."""

    artifact_id: uuid.UUID
    name: str
    media_type: str
