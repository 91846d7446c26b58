"""What a restore is asked for, and what its plan says: plain values, without database or wire."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Rename:
    """A column that has another name now than it had in the backup."""

    entity: str
    old: str
    new: str

    def as_record(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, str]) -> Self:
        return cls(record["entity"], record["old"], record["new"])


@dataclass(frozen=True)
class RestoreRequest:
    """One call of CreateRestore, parsed."""

    backup_id: uuid.UUID
    entity_types: tuple[str, ...] = ()
    """Names of entities or groups; empty for all that the backup holds."""
    renames: tuple[Rename, ...] = ()


Notice = dict[str, Any]
"""`{code, message, severity, metadata}`, as a job's event keeps it.

A restore's options, on its row, are:

    renames          [{entity, old, new}], as `Rename.as_record`

its plan is:

    backup_id, backup_checksum   what would be restored, the checksum in hex
    entities         [{entity, rows_now, rows_in_backup, rows_lost, rows_changed, schema_differences: [Notice],
                     fingerprint_now, table}], the last two telling later whether rows have moved, and what is locked
    definitions      fingerprint of the definitions of all tables that it touches
    losses_digest    of the head of the rows that are lost or changed, in hex
    disk_bytes, wal_bytes, outage_seconds
    notices          [Notice]
    approval_needed

and its report:

    entities   [{entity, rows_before, rows_after, rows_lost, rows_changed}]
    notices    [Notice]
    outage_seconds
"""
