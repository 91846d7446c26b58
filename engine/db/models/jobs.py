"""Jobs, their events, their claims on entities, and the leases of the workers' housekeeping."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from engine.db.base import Model


class JobRow(Model):
    """One unit of background work. `fence` grows with every claim: what an older holder does is refused by it."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(
            "state IN ('PENDING', 'RUNNING', 'CANCEL_REQUESTED', 'COMPLETED', 'FAILED', 'CANCELLED')",
            name="state",
        ),
        CheckConstraint("(lease_owner IS NULL) = (lease_expires_at IS NULL)", name="lease_is_whole"),
        Index("ix_jobs_runnable", "priority", "run_at", postgresql_where=text("state = 'PENDING'")),
        Index("ix_jobs_active", "lease_expires_at", postgresql_where=text("state IN ('RUNNING', 'CANCEL_REQUESTED')")),
        Index("ix_jobs_resource", "resource_type", "resource_id"),
        Index("ix_jobs_created", "created_at", "id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    state: Mapped[str] = mapped_column(default="PENDING")
    priority: Mapped[int] = mapped_column(default=100)
    """Smaller runs first."""
    resource_type: Mapped[str]
    resource_id: Mapped[uuid.UUID]
    principal_id: Mapped[uuid.UUID]
    context: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Who called from where: peer, client, request_id, reason."""
    intent_id: Mapped[uuid.UUID | None]
    """The audit row without which this job may not exist; its outcome row names it."""

    claims: Mapped[list[Any]] = mapped_column(default=list)
    """`[{"entity", "mode"}]`: what it needs, for RetryJob and for those who look; its places are `job_claims`."""

    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=5)
    run_at: Mapped[datetime]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(default=0)
    cancel_requested_at: Mapped[datetime | None]
    announced: Mapped[bool] = mapped_column(default=False)
    """Whether an effect in the platform database may have begun: then only the mark there says how the job ended."""

    stage: Mapped[str] = mapped_column(default="")
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    error: Mapped[dict[str, Any] | None]
    last_sequence: Mapped[int] = mapped_column(default=0)


class JobEventRow(Model):
    """One event of a job; `sequence` starts at 1, has no gaps and is assigned under the job's row lock."""

    __tablename__ = "job_events"

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("dataops.jobs.id", ondelete="CASCADE"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    kind: Mapped[str]
    """STATE, STAGE, PROGRESS, NOTICE or SNAPSHOT."""
    payload: Mapped[dict[str, Any]]


class JobClaimRow(Model):
    """A place in an entity's queue. It exists from the job's creation to its end."""

    __tablename__ = "job_claims"
    __table_args__ = (
        CheckConstraint("mode IN ('READ', 'WRITE', 'EXCLUSIVE')", name="mode"),
        Index("ix_job_claims_queue", "entity", "position"),
    )

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("dataops.jobs.id", ondelete="CASCADE"), primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    mode: Mapped[str]
    position: Mapped[int] = mapped_column(Identity(always=True))


class LeaseRow(Model):
    """A named duty that one worker process at a time holds: the sweeper, the scheduler, the audit sealer."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    expires_at: Mapped[datetime]
    fence: Mapped[int] = mapped_column(default=0)
