"""Exports: rows on their way out."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from engine.db.base import Model


class ExportRow(Model):
    """One export. `status` changes only through `engine.exports.states`."""

    __tablename__ = "exports"
    __table_args__ = (
        CheckConstraint(
            "status IN ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED', 'EXPIRED', 'DELETED')",
            name="status",
        ),
        CheckConstraint("export_type IN ('FULL', 'PARTIAL', 'ENTITY')", name="export_type"),
        Index("ix_exports_created", "created_at", "id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    export_type: Mapped[str]
    entity_types: Mapped[list[str]]
    format: Mapped[str]
    status: Mapped[str] = mapped_column(default="PENDING")
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    principal_id: Mapped[uuid.UUID]
    context: Mapped[dict[str, Any]] = mapped_column(default=dict)
    job_id: Mapped[uuid.UUID | None]
    artifact_id: Mapped[uuid.UUID | None]
    file_name: Mapped[str]
    file_size_bytes: Mapped[int] = mapped_column(default=0)
    record_count: Mapped[int] = mapped_column(default=0)
    entities: Mapped[list[Any]] = mapped_column(JSONB, default=list)
    """What was written of each entity: `{entity, file_name, record_count, sha256}`, once it is complete."""
    sha256: Mapped[bytes | None]
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    snapshot_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
