"""Backups, and comparisons of a backup with the live rows."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from engine.db.base import Model


class BackupRow(Model):
    """One backup; what it holds stands in its manifest, this is the record of it. `status` changes only through
    `engine.backups.states`."""

    __tablename__ = "backups"
    __table_args__ = (
        CheckConstraint(
            "status IN ('PENDING', 'COMPLETED', 'FAILED', 'RESTORED', 'CANCELLED', 'EXPIRED', 'DELETED')",
            name="status",
        ),
        CheckConstraint("backup_type IN ('FULL', 'INCREMENTAL')", name="backup_type"),
        CheckConstraint("trigger_type IN ('MANUAL', 'SCHEDULED', 'PRE_IMPORT', 'PRE_RESTORE')", name="trigger_type"),
        CheckConstraint("(status IN ('COMPLETED', 'RESTORED')) <= (manifest_sha256 IS NOT NULL)", name="good_is_whole"),
        Index("ix_backups_created", "created_at", "id"),
        Index("ix_backups_job_id", "job_id"),
        Index("ix_backups_expires_at", "expires_at"),
        Index("ix_backups_parent_id", "parent_id"),
        Index("ix_backups_schedule_id", "schedule_id", postgresql_where=text("schedule_id IS NOT NULL")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    backup_type: Mapped[str]
    trigger_type: Mapped[str]
    status: Mapped[str] = mapped_column(default="PENDING")
    name: Mapped[str]
    entity_types: Mapped[list[str]] = mapped_column(default=list)
    principal_id: Mapped[uuid.UUID]
    context: Mapped[dict[str, Any]] = mapped_column(default=dict)
    job_id: Mapped[uuid.UUID | None]
    """The job that makes it: of its own, or the import's or restore's that it precedes. None for an adopted one."""
    artifact_id: Mapped[uuid.UUID | None]
    """In the names of its objects. Set before the first is written, NULL when the last is deleted."""
    manifest_sha256: Mapped[bytes | None]
    file_size_bytes: Mapped[int] = mapped_column(default=0)
    """Of its own segments."""
    total_size_bytes: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Of its own and of those of the backups that it is an increment of."""
    entities: Mapped[list[Any]] = mapped_column(JSONB, default=list)
    """`{entity, rows, size_bytes}` of each, once it is complete."""
    not_covered: Mapped[list[Any]] = mapped_column(JSONB, default=list)
    """`{name, why}` of each."""
    parent_id: Mapped[uuid.UUID | None]
    chain_id: Mapped[uuid.UUID | None]
    full_because: Mapped[str] = mapped_column(default="", server_default=text("''"))
    """Why a full backup was made where an increment was asked for, or would have done; empty otherwise."""
    schedule_id: Mapped[uuid.UUID | None]
    held: Mapped[bool] = mapped_column(default=False)
    verifications: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """By level: `{verified_at, good, error}` of the newest."""
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    snapshot_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    restored_at: Mapped[datetime | None]
    retention_seconds: Mapped[float | None]
    """How long it is kept once it is complete; NULL: the installation's setting for its trigger."""
    expires_at: Mapped[datetime | None]


class BackupVerificationRow(Model):
    """One verification that was asked for: what its job shall do."""

    __tablename__ = "backup_verifications"

    job_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    backup_id: Mapped[uuid.UUID]
    level: Mapped[str]
    created_at: Mapped[datetime]


class BackupDiffRow(Model):
    """One comparison of a backup with the live rows, known by its job."""

    __tablename__ = "backup_diffs"
    __table_args__ = (Index("ix_backup_diffs_backup_id", "backup_id"),)

    job_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    backup_id: Mapped[uuid.UUID]
    entity_types: Mapped[list[str]]
    principal_id: Mapped[uuid.UUID]
    artifact_id: Mapped[uuid.UUID | None]
    digest: Mapped[bytes | None]
    """Of the differences' head, as a plan's."""
    entities: Mapped[list[Any]] = mapped_column(JSONB, default=list)
    """`{entity, only_in_backup, only_live, different, equal}` of each, once it is done."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
