"""Artifacts and their parts: the rows that make stored bytes count."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from engine.db.base import Model


class ArtifactRow(Model):
    """A file we keep. OPEN while parts are added; CLOSED by its closing record; DELETING until its bytes are gone."""

    __tablename__ = "artifacts"
    __table_args__ = (
        CheckConstraint("state IN ('OPEN', 'CLOSED', 'DELETING')", name="state"),
        CheckConstraint("(state = 'CLOSED') <= (sha256 IS NOT NULL)", name="closed_has_digest"),
        Index("ix_artifacts_owner", "owner_type", "owner_id"),
        Index("ix_artifacts_expires_at", "expires_at"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    """UPLOAD, PLAN, EXPORT, REPORT, REJECTS, UNDO …: bound into every chunk's associated data."""
    state: Mapped[str] = mapped_column(default="OPEN")
    owner_type: Mapped[str]
    owner_id: Mapped[uuid.UUID]
    size: Mapped[int] = mapped_column(default=0)
    """Bytes of plaintext: while OPEN the committed ones, when CLOSED all."""
    part_count: Mapped[int] = mapped_column(default=0)
    sha256: Mapped[bytes | None]
    created_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]


class ArtifactPartRow(Model):
    """One sealed part. Its row commits after its bytes are durable; only then does the part exist."""

    __tablename__ = "artifact_parts"

    artifact_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("dataops.artifacts.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(unique=True)
    """The object's name in storage: random, never used twice."""
    offset: Mapped[int]
    length: Mapped[int]
    """Bytes of plaintext."""
    stored_length: Mapped[int]
    sha256: Mapped[bytes]
    """Of the plaintext."""
    key_id: Mapped[str]
    wrapped_key: Mapped[bytes]
    stream: Mapped[str] = mapped_column(default="")
    """Which of the artifact's streams the part belongs to; '' where an artifact is one stream."""
    index: Mapped[dict[str, Any] | None]
    """What the part holds, for a reader that wants one page: first key, first row number, rows."""
