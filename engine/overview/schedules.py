"""Schedules of backups, as far as they need somebody to look."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.access import Caller
from engine.catalog import Catalog
from engine.db.models import ScheduleRow
from engine.schedules.record import READ, readable

OVERDUE_SECONDS = 300
"""A time that is over by so much and has not fired is nobody's to fire: a busy worker host is not that late."""

MAX_CONCERNS = 50


class Concern(StrEnum):
    PAUSED = "PAUSED"
    OVERDUE = "OVERDUE"
    FAILING = "FAILING"


@dataclass(frozen=True)
class ScheduleConcerns:
    """One schedule, and why somebody should look at it."""

    schedule_id: uuid.UUID
    name: str
    concerns: tuple[Concern, ...]
    next_run_at: datetime | None
    failed_runs: int


@dataclass(frozen=True)
class ScheduleSummary:
    """All that the caller may see, counted; of those with concerns at most MAX_CONCERNS are named."""

    schedules: int
    paused: int
    overdue: int
    missed_runs: int
    skipped_runs: int
    failed_runs: int
    next_run_at: datetime | None
    concerns: tuple[ScheduleConcerns, ...]


def read_schedules(session: Session, caller: Caller, catalog: Catalog | None) -> Sequence[ScheduleRow]:
    """The schedules whose every entity the caller may read schedules of, by name; one of all entities needs all."""
    query = select(ScheduleRow).where(ScheduleRow.deleted_at.is_(None)).order_by(ScheduleRow.name, ScheduleRow.id)
    rows = list(session.scalars(query))
    if caller.may(READ, "*"):
        return rows
    return [] if catalog is None else [r for r in rows if readable(caller, r.entity_types, lambda: catalog)]


def summary_of(rows: Sequence[ScheduleRow], failed_runs: Mapping[str, int], now: datetime) -> ScheduleSummary:
    """`failed_runs` by the schedule's id, as `engine.backups.protection` counts them."""
    looked = [_looked_at(row, failed_runs.get(str(row.id), 0), now) for row in rows]
    times = [row.next_run_at for row in rows if row.next_run_at is not None]
    return ScheduleSummary(
        schedules=len(rows),
        paused=sum(Concern.PAUSED in found.concerns for found in looked),
        overdue=sum(Concern.OVERDUE in found.concerns for found in looked),
        missed_runs=sum(row.missed_runs for row in rows),
        skipped_runs=sum(row.skipped_runs for row in rows),
        failed_runs=sum(found.failed_runs for found in looked),
        next_run_at=min(times, default=None),
        concerns=tuple(found for found in looked if found.concerns)[:MAX_CONCERNS],
    )


def _looked_at(row: ScheduleRow, failed: int, now: datetime) -> ScheduleConcerns:
    concerns = []
    if row.paused:
        concerns.append(Concern.PAUSED)
    elif row.next_run_at is not None and row.next_run_at < now - timedelta(seconds=OVERDUE_SECONDS):
        concerns.append(Concern.OVERDUE)
    if failed:
        concerns.append(Concern.FAILING)
    return ScheduleConcerns(row.id, row.name, tuple(concerns), row.next_run_at, failed)
