"""Restores: the way back to a backup."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from engine.db.base import Model


class RestoreRow(Model):
    """One restore. `status` changes only through `engine.restores.states`."""

    __tablename__ = "restores"
    __table_args__ = (
        CheckConstraint(
            "status IN ('PENDING', 'VALIDATING', 'AWAITING_CONFIRMATION', 'AWAITING_APPROVAL', 'PROCESSING',"
            " 'COMPLETED', 'FAILED', 'ROLLED_BACK', 'CANCELLED', 'EXPIRED')",
            name="status",
        ),
        Index("ix_restores_created", "created_at", "id"),
        Index("ix_restores_backup_id", "backup_id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    backup_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("dataops.backups.id"))
    entity_types: Mapped[list[str]]
    status: Mapped[str] = mapped_column(default="PENDING")
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """`{renames: [{entity, old, new}]}`."""
    principal_id: Mapped[uuid.UUID]
    context: Mapped[dict[str, Any]] = mapped_column(default=dict)
    plan_job_id: Mapped[uuid.UUID | None]
    restore_job_id: Mapped[uuid.UUID | None]
    plan: Mapped[dict[str, Any] | None]
    plan_digest: Mapped[bytes | None]
    plan_artifact_id: Mapped[uuid.UUID | None]
    """The rows that will be lost or changed."""
    plan_expires_at: Mapped[datetime | None]
    confirmation_phrase: Mapped[str] = mapped_column(default="")
    """Empty when it has been used."""
    confirmed_by: Mapped[uuid.UUID | None]
    confirmed_losses: Mapped[int | None]
    """Most rows that may be lost or changed: what was confirmed."""
    approved_by: Mapped[uuid.UUID | None]
    pre_restore_backup_id: Mapped[uuid.UUID | None]
    report: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
