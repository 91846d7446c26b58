"""Uploads: files on their way in."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from engine.db.base import Model


class UploadRow(Model):
    """One upload. `epoch` grows with every stream that opens: an older stream's writes are refused by it."""

    __tablename__ = "uploads"
    __table_args__ = (
        CheckConstraint("state IN ('OPEN', 'FINISHED', 'ABORTED', 'EXPIRED', 'CONSUMED')", name="state"),
        Index("ix_uploads_principal_id", "principal_id", "created_at"),
        Index("ix_uploads_expires_at", "expires_at"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    state: Mapped[str] = mapped_column(default="OPEN")
    principal_id: Mapped[uuid.UUID]
    context: Mapped[dict[str, Any]] = mapped_column(default=dict)
    artifact_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("dataops.artifacts.id", ondelete="SET NULL"))
    declared_size: Mapped[int | None]
    declared_sha256: Mapped[bytes | None]
    committed_size: Mapped[int] = mapped_column(default=0)
    sha256: Mapped[bytes | None]
    epoch: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    expires_at: Mapped[datetime]
