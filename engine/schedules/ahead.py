"""A clock that was ahead of the time, and is right again: what a scheduler wrote by it says that times to come are
over.

A schedule whose next time was moved a year on would say nothing and do nothing for a year.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, exists, or_
from sqlalchemy.orm import Session

from engine.db.models import ScheduleRow, ScheduleRunRow
from engine.schedules.model import Outcome
from engine.schedules.record import times_of, waiting_runs

AHEAD = timedelta(hours=1)
"""Of the present: hosts differ by less. A time that is fired less early than this keeps its record, and none is left
out by it."""


def written_ahead(now: datetime) -> ColumnElement[bool]:
    """Whether a schedule, or a run of it, was written by a clock that was ahead of `now`."""
    schedule, run, ahead = ScheduleRow, ScheduleRunRow, now + AHEAD
    runs = exists().where(_undone(ahead), run.schedule_id == schedule.id)
    return or_(schedule.last_run_at > ahead, schedule.updated_at > ahead, runs)


def set_back(session: Session, row: ScheduleRow, now: datetime) -> None:
    """Let the locked schedule go on with the first time to come. A time of which a backup was begun keeps its record,
    and none is begun twice; what was only missed or left out is forgotten."""
    ahead = now + AHEAD
    session.execute(delete(ScheduleRunRow).where(_undone(ahead), ScheduleRunRow.schedule_id == row.id))
    for run in waiting_runs(session, row.id):
        if run.retry_at is not None and run.retry_at > ahead:
            run.retry_at = now
    following = times_of(row).after(now)
    if row.next_run_at is None or (following is not None and following < row.next_run_at):
        row.next_run_at = following
    row.updated_at = min(row.updated_at, now)
    if row.last_run_at is not None:
        row.last_run_at = min(row.last_run_at, now)


def _undone(ahead: datetime) -> ColumnElement[bool]:
    """Runs that were written beyond `ahead`, of which no backup was begun."""
    return and_(ScheduleRunRow.created_at > ahead, ScheduleRunRow.outcome != Outcome.STARTED)
