"""Webhooks, and the deliveries that are owed to them."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from engine.db.base import Model


class WebhookRow(Model):
    """One receiver of ended jobs. Its signing key is sealed by the key ring, as a data key is."""

    __tablename__ = "webhooks"
    __table_args__ = (Index("ix_webhooks_created", "created_at", "id"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    url: Mapped[str]
    job_kinds: Mapped[list[str]] = mapped_column(default=list)
    job_states: Mapped[list[str]] = mapped_column(default=list)
    schedule_id: Mapped[uuid.UUID | None]
    key_id: Mapped[str]
    """Of the key-encryption key that `signing_key` is wrapped with."""
    signing_key: Mapped[bytes]
    principal_id: Mapped[uuid.UUID]
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class WebhookDeliveryRow(Model):
    """One message to one receiver: made in the transaction that ends the job, so that none is lost and none doubled."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("state IN ('PENDING', 'DELIVERED', 'FAILED')", name="state"),
        Index("ix_webhook_deliveries_created", "created_at", "id"),
        Index("ix_webhook_deliveries_webhook_id", "webhook_id"),
        Index("ix_webhook_deliveries_due", "next_attempt_at", postgresql_where=text("state = 'PENDING'")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    webhook_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("dataops.webhooks.id"))
    job_id: Mapped[uuid.UUID]
    body: Mapped[bytes]
    """The very bytes that are sent and signed, at every attempt."""
    state: Mapped[str] = mapped_column(default="PENDING")
    attempts: Mapped[int] = mapped_column(default=0)
    last_status: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str] = mapped_column(default="")
    next_attempt_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
