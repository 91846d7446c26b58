"""The words of backups, and what is asked for: plain values, without database or wire."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class BackupType(StrEnum):
    FULL = "FULL"
    INCREMENTAL = "INCREMENTAL"


class Trigger(StrEnum):
    """Why a backup is made."""

    MANUAL = "MANUAL"
    SCHEDULED = "SCHEDULED"
    PRE_IMPORT = "PRE_IMPORT"
    PRE_RESTORE = "PRE_RESTORE"


SAFETY = frozenset({Trigger.PRE_IMPORT, Trigger.PRE_RESTORE})
"""Backups that nobody asked for: they are kept `safety_backup_seconds`, and then removed."""


class VerifyLevel(StrEnum):
    """How far a proof goes; each includes those before it."""

    PRESENT = "PRESENT"
    """Every object is there, with its length."""
    DECODED = "DECODED"
    """Every byte is opened, decompressed, hashed and counted."""
    RESTORED = "RESTORED"
    """Every row is loaded into a table of its types; counts, fingerprints and keys are compared."""


@dataclass(frozen=True)
class BackupRequest:
    """One call of CreateBackup, parsed."""

    entity_types: tuple[str, ...] = ()
    """Names of entities or groups; empty for all."""
    backup_type: BackupType = BackupType.FULL
    name: str = ""
    hold: bool = False


@dataclass(frozen=True)
class RowKey:
    """The key of one row, as field names and PostgreSQL's texts."""

    values: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class ExtractRequest:
    """One call of ExtractBackupRows, parsed."""

    backup_id: uuid.UUID
    entity: str
    keys: tuple[RowKey, ...]
    import_type: str = "UPSERT"


@dataclass(frozen=True)
class Requester:
    """Who asked for a backup, as its manifest keeps it."""

    principal_id: uuid.UUID
    issuer: str = ""
    subject: str = ""


@dataclass(frozen=True)
class Asked:
    """A backup that is to be made now."""

    backup_id: uuid.UUID
    artifact_id: uuid.UUID
    trigger: Trigger
    name: str
    created_at: datetime
    requested_by: Requester
    entities: tuple[str, ...] = field(default=())
    """Their names in the catalog."""
