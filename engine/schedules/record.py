"""A schedule's rows: found under their lock, and what is read off them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, exists, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from engine.access import Caller
from engine.backups.states import BackupStatus
from engine.catalog import Catalog
from engine.db.models import BackupRow, ScheduleRow, ScheduleRunRow
from engine.errors import NotFound
from engine.schedules.model import Outcome
from engine.schedules.times import Times, parse_times

KEPT_FOR = timedelta(days=90)
"""How long what became of a time is remembered, as the events of a job are."""

READ = "schedules.read"

SHOWN_TIMES = 5
SHOWN_RUNS = 10


def get_schedule(session: Session, schedule_id: uuid.UUID, *, lock: bool = False) -> ScheduleRow:
    """The schedule, as it stands in the database now; with `lock` FOR UPDATE.

    Raises:
        NotFound: SCHEDULE_UNKNOWN, also for a deleted one.
    """
    row = session.get(ScheduleRow, schedule_id, with_for_update=lock, populate_existing=True)
    if row is None or row.deleted_at is not None:
        raise unknown(schedule_id)
    return row


def unknown(schedule_id: uuid.UUID) -> NotFound:
    """What a caller is told of a schedule that is not there, or is not the caller's to know of."""
    return NotFound(
        "schedule: found none with this id", reason="SCHEDULE_UNKNOWN", metadata={"schedule_id": str(schedule_id)}
    )


def meant(catalog: Catalog, entity_types: Sequence[str]) -> list[str]:
    """The entities of these names, groups resolved. Names of what is gone since stand as they are: a schedule of a
    table that was dropped can still be looked at and changed."""
    return [member for name in entity_types for member in ([e.name for e in catalog.members(name)] or [name])]


def readable(caller: Caller, entity_types: Sequence[str], load: Callable[[], Catalog]) -> bool:
    """Whether the caller may know of a schedule of these: of each of them, and of one of all only who may of all.

    Raises: as `load`, which is not called for who may know of all.
    """
    if caller.may(READ, "*"):
        return True
    return bool(entity_types) and all(caller.may(READ, name) for name in meant(load(), entity_types))


def times_of(row: ScheduleRow) -> Times:
    return parse_times(row.cron, row.time_zone)


def next_runs(row: ScheduleRow) -> list[datetime]:
    """The times to come; the first may be past already, as long as no worker has seen to it."""
    if row.next_run_at is None:
        return []
    return [row.next_run_at, *times_of(row).next(row.next_run_at, SHOWN_TIMES - 1)]


def recent_runs(session: Session, schedule_id: uuid.UUID) -> Sequence[ScheduleRunRow]:
    """What became of its newest times, newest first."""
    found = select(ScheduleRunRow).where(ScheduleRunRow.schedule_id == schedule_id)
    return session.scalars(found.order_by(ScheduleRunRow.due_at.desc()).limit(SHOWN_RUNS)).all()


def waiting_runs(session: Session, schedule_id: uuid.UUID) -> Sequence[ScheduleRunRow]:
    """Those that may begin yet, oldest first; call it under the schedule's lock."""
    found = select(ScheduleRunRow).where(
        ScheduleRunRow.schedule_id == schedule_id, ScheduleRunRow.outcome == Outcome.WAITING
    )
    return session.scalars(found.order_by(ScheduleRunRow.due_at).execution_options(populate_existing=True)).all()


def being_made(schedule_id: uuid.UUID | InstrumentedAttribute[uuid.UUID]) -> ColumnElement[bool]:
    """Whether a backup of the schedule is being made, whoever fired it."""
    return exists().where(BackupRow.schedule_id == schedule_id, BackupRow.status == BackupStatus.PENDING)


def goes_on(session: Session, schedule_id: uuid.UUID) -> bool:
    """The same of one schedule, now."""
    return bool(session.scalar(select(being_made(schedule_id))))


def give_up(row: ScheduleRow, run: ScheduleRunRow) -> None:
    """The run does not wait any more: one that had failed stands as failed, one that had not begun is left out."""
    if run.retry_at is not None:
        run.outcome, run.retry_at = Outcome.FAILED, None
        row.failed_runs += 1
    else:
        run.outcome = Outcome.SKIPPED
        row.skipped_runs += 1


def forget_runs(session: Session, now: datetime) -> int:
    """Drop what became of times more than `KEPT_FOR` ago; returns how many. Such a time cannot come due again: a
    schedule's next one only moves on."""
    old = delete(ScheduleRunRow).where(
        ScheduleRunRow.due_at < now - KEPT_FOR, ScheduleRunRow.outcome != Outcome.WAITING
    )
    return len(session.execute(old.returning(ScheduleRunRow.due_at)).all())
