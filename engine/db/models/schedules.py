"""Schedules of backups, and the times at which they came due."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from engine.db.base import Model


class ScheduleRow(Model):
    """One schedule. `next_run_at` is what the scheduler looks for; a paused or deleted one has none."""

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint("backup_type IN ('FULL', 'INCREMENTAL')", name="backup_type"),
        CheckConstraint("verify_level IN ('PRESENT', 'DECODED', 'RESTORED')", name="verify_level"),
        CheckConstraint("overlap_policy IN ('SKIP', 'BUFFER_ONE')", name="overlap_policy"),
        CheckConstraint("(paused OR deleted_at IS NOT NULL) <= (next_run_at IS NULL)", name="paused_is_not_due"),
        Index("ix_schedules_created", "created_at", "id"),
        Index("ix_schedules_next_run_at", "next_run_at", postgresql_where=text("next_run_at IS NOT NULL")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    cron: Mapped[str]
    """As it was given: five fields, or a word with an @."""
    time_zone: Mapped[str]
    backup_type: Mapped[str]
    entity_types: Mapped[list[str]] = mapped_column(default=list)
    """Names of entities or groups as they were given; empty for all there are when it fires."""
    retention_seconds: Mapped[float | None]
    """How long its backups are kept; NULL: the installation's `backup_seconds`."""
    verify_level: Mapped[str | None]
    overlap_policy: Mapped[str]
    catch_up_seconds: Mapped[float]
    revision: Mapped[int] = mapped_column(default=1)
    paused: Mapped[bool] = mapped_column(default=False)
    next_run_at: Mapped[datetime | None]
    last_run_at: Mapped[datetime | None]
    last_backup_id: Mapped[uuid.UUID | None]
    missed_runs: Mapped[int] = mapped_column(default=0)
    skipped_runs: Mapped[int] = mapped_column(default=0)
    failed_runs: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[dict[str, Any] | None]
    """Why its newest backup failed or could not be begun; NULL once one is complete."""
    principal_id: Mapped[uuid.UUID]
    """Who made it, or changed it last: its backups are made with what this principal may do then."""
    context: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class ScheduleRunRow(Model):
    """One time of a schedule, and what became of it. Its key is what makes a run happen once: two schedulers that see
    the same time due cannot both write it."""

    __tablename__ = "schedule_runs"
    __table_args__ = (
        CheckConstraint("outcome IN ('STARTED', 'WAITING', 'SKIPPED', 'MISSED', 'FAILED')", name="outcome"),
        Index("ix_schedule_runs_backup_id", "backup_id"),
        Index("ix_schedule_runs_waiting", "schedule_id", postgresql_where=text("outcome = 'WAITING'")),
    )

    schedule_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("dataops.schedules.id", ondelete="CASCADE"), primary_key=True
    )
    due_at: Mapped[datetime] = mapped_column(primary_key=True)
    outcome: Mapped[str]
    """STARTED: `backup_id` is its backup. WAITING: for the run before it to end, or for another try after a failure.
    FAILED: it could not be started, or all tries failed, and it will not be tried again."""
    backup_id: Mapped[uuid.UUID | None]
    attempts: Mapped[int] = mapped_column(default=0)
    retry_at: Mapped[datetime | None]
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
