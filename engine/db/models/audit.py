"""The audit log: append-only, by trigger."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Identity, Index
from sqlalchemy.orm import Mapped, mapped_column

from engine.db.base import Model


class AuditEventRow(Model):
    """One thing that was meant, done, read or denied. No row is ever changed or removed."""

    __tablename__ = "audit_events"
    __table_args__ = (
        CheckConstraint("kind IN ('INTENT', 'OUTCOME', 'ACCESS', 'DENIED')", name="kind"),
        Index("ix_audit_events_resource", "resource_type", "resource_id"),
        Index("ix_audit_events_intent_id", "intent_id"),
        Index("ix_audit_events_sequence", "sequence", unique=True),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(Identity(always=True))
    """Order of insertion; gaps are possible (a rolled-back transaction), so it proves nothing by itself."""
    at: Mapped[datetime]
    kind: Mapped[str]
    operation: Mapped[str]
    """The permission's word: `imports.apply`."""
    principal_id: Mapped[uuid.UUID | None]
    issuer: Mapped[str] = mapped_column(default="")
    subject: Mapped[str] = mapped_column(default="")
    resource_type: Mapped[str] = mapped_column(default="")
    resource_id: Mapped[str] = mapped_column(default="")
    intent_id: Mapped[uuid.UUID | None]
    """On an OUTCOME row: the INTENT it answers."""
    outcome: Mapped[str] = mapped_column(default="")
    """COMPLETED, FAILED, CANCELLED; on DENIED the reason."""
    context: Mapped[dict[str, Any]] = mapped_column(default=dict)
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
