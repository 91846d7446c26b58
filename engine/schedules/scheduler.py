"""Firing: what has come due becomes backups, each time once, however many schedulers look at it at once.

One schedule is one transaction: under its row's lock its due times are written down (their key is the schedule and the
time, so none is written twice), the backup, its job and its audit row are made, and its next time is set. A scheduler
that dies leaves all of that or nothing; one that finds the row locked leaves it to whoever holds it.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain

import structlog
from sqlalchemy import exists, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from engine.access import SYSTEM_CONTEXT, Caller, caller_of
from engine.audit import record_intent, record_outcome
from engine.backups.states import BackupStatus
from engine.catalog import Catalog
from engine.db.models import BackupRow, ScheduleRow, ScheduleRunRow
from engine.errors import DataOpsError
from engine.faults import fault
from engine.jobs import states
from engine.resources import Resources
from engine.schedules.ahead import set_back, written_ahead
from engine.schedules.model import Outcome, Overlap
from engine.schedules.record import being_made, give_up, goes_on, times_of, waiting_runs
from engine.schedules.start import begin_backup

MISSED_KEPT = 100
"""Missed times of one round that get a row each; all are counted. A spec of every minute misses 1,440 a day."""

log = structlog.get_logger(__name__)


class Scheduler:
    """May run in several processes at once and be killed anywhere."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def fire(self, now: datetime) -> int:
        """Begin whatever is due at `now`; how many backups. What cannot be told from the platform stays due.

        Raises:
            Unavailable, FailedPrecondition: as `CatalogSource.load`; the schedules concerned say so.
        """
        ready = self._ready(now)
        if not ready:
            return 0
        try:
            catalog = self._resources.catalogs.load()
        except DataOpsError as error:
            self._tell(ready, error)
            raise
        begun = 0
        for schedule_id in ready:
            try:
                begun += self._fire_one(schedule_id, catalog, now)
            except Exception:  # a defect in one keeps no other from its turn
                log.exception("schedule_failed", schedule_id=str(schedule_id))
        if begun:
            self._resources.bell.ring()
        return begun

    def _ready(self, now: datetime) -> list[uuid.UUID]:
        """Schedules with a time that has come, with one that waits and may begin, or with times of a clock that was
        ahead."""
        run, schedule = ScheduleRunRow, ScheduleRow
        waits = exists().where(
            run.schedule_id == schedule.id,
            run.outcome == Outcome.WAITING,
            or_(run.retry_at <= now, run.retry_at.is_(None)),
        )
        query = select(schedule.id).where(
            schedule.paused.is_(False),
            schedule.deleted_at.is_(None),
            or_(schedule.next_run_at <= now, waits & ~being_made(schedule.id), written_ahead(now)),
        )
        with self._resources.db.transaction() as session:
            return list(session.scalars(query.order_by(schedule.next_run_at, schedule.id)))

    def _tell(self, ready: Iterable[uuid.UUID], error: DataOpsError) -> None:
        """Why they do not begin, for whoever looks at them."""
        with self._resources.db.transaction() as session:
            session.execute(
                update(ScheduleRow)
                .where(ScheduleRow.id.in_(ready))
                .values(last_error=states.error_record(error))
                .execution_options(synchronize_session=False)
            )

    def _fire_one(self, schedule_id: uuid.UUID, catalog: Catalog, now: datetime) -> int:
        with self._resources.db.transaction() as session:
            locked = select(ScheduleRow).where(ScheduleRow.id == schedule_id).with_for_update(skip_locked=True)
            row = session.scalars(locked).one_or_none()
            if row is None or row.paused or row.deleted_at is not None:
                return 0
            if session.scalar(select(written_ahead(now)).where(ScheduleRow.id == row.id)):
                log.warning("schedule_written_ahead", schedule_id=str(row.id), next_run_at=str(row.next_run_at))
                set_back(session, row, now)
            firing = _Firing(session, row, catalog, now)
            begun = firing.waiting() + firing.due()
            fault("schedules.before_commit")
        fault("schedules.after_commit")
        return begun


class _Firing:
    """One locked schedule at one moment."""

    def __init__(self, session: Session, row: ScheduleRow, catalog: Catalog, now: datetime) -> None:
        self._session, self._row, self._catalog, self._now = session, row, catalog, now

    def waiting(self) -> int:
        """Begins what waited for the run before it, and what is to be tried again; how many backups."""
        row, begun = self._row, 0
        for run in waiting_runs(self._session, row.id):
            if run.retry_at is not None:
                begun += self._again(run, run.retry_at)
            elif goes_on(self._session, row.id):
                continue
            elif self._late(run.due_at):
                run.outcome = Outcome.MISSED
                row.missed_runs += 1
            else:
                begun += self._begin(run)
        return begun

    def due(self) -> int:
        """Writes down the times that have come, begins the newest unless it is too late; how many backups."""
        row, now = self._row, self._now
        if row.next_run_at is None or row.next_run_at > now:
            return 0
        times = times_of(row)
        count, newest = 0, deque[datetime](maxlen=MISSED_KEPT + 1)
        for time in chain([row.next_run_at], times.between(row.next_run_at, now)):
            newest.append(time)
            count += 1
        last = None if self._late(newest[-1]) else newest.pop()
        row.missed_runs += count if last is None else count - 1
        for time in newest:
            self._write(time, Outcome.MISSED)
        row.next_run_at = times.after(now)
        for run in waiting_runs(self._session, row.id):
            if run.retry_at is not None:  # the next time has come
                give_up(row, run)
        return 0 if last is None else self._come(last)

    def _come(self, due_at: datetime) -> int:
        """A time has come that is not too late."""
        row, run = self._row, self._write(due_at, Outcome.WAITING)
        if run is None:  # a clock that went before ours has seen to it
            return 0
        if not goes_on(self._session, row.id):
            return self._begin(run)
        others = [other for other in waiting_runs(self._session, row.id) if other.due_at != due_at]
        if others or row.overlap_policy != Overlap.BUFFER_ONE:
            give_up(row, run)
        return 0

    def _again(self, run: ScheduleRunRow, retry_at: datetime) -> int:
        """Tries a failed run again once its pause is over."""
        backup = self._session.get(BackupRow, run.backup_id)
        if backup is None or backup.status != BackupStatus.FAILED:  # somebody has put its job back by hand
            run.outcome, run.retry_at = Outcome.STARTED, None
            return 0
        if retry_at > self._now or goes_on(self._session, self._row.id):
            return 0
        if self._row.next_run_at is not None and self._row.next_run_at <= self._now:
            return 0  # its time is over, `due` says so
        return self._begin(run)

    def _begin(self, run: ScheduleRunRow) -> int:
        """Begins a backup for the run, with what its principal may do now. A refusal is the run's end."""
        row = self._row
        try:
            backup = begin_backup(
                self._session, row, self._catalog, self._caller(), "backups.create", run.due_at, self._now
            )
        except DataOpsError as error:
            run.outcome, run.retry_at, run.error = Outcome.FAILED, None, states.error_record(error)
            row.last_run_at, row.last_error = self._now, run.error
            row.failed_runs += 1
            self._record_refusal(run, error)
            return 0
        run.outcome, run.retry_at, run.backup_id = Outcome.STARTED, None, backup.id
        run.attempts += 1
        return 1

    def _caller(self) -> Caller:
        context = replace(SYSTEM_CONTEXT, reason=f"schedule {self._row.name}")
        return caller_of(self._session, self._row.principal_id, context, self._now)

    def _record_refusal(self, run: ScheduleRunRow, error: DataOpsError) -> None:
        row, now = self._row, self._now
        details = {"entity_types": row.entity_types, "due_at": run.due_at.isoformat()}
        intent = record_intent(self._session, self._caller(), "backups.create", "schedules", row.id, details, now)
        record_outcome(self._session, intent, "FAILED", {"reason": error.reason}, now)

    def _late(self, due_at: datetime) -> bool:
        return self._now - due_at > timedelta(seconds=self._row.catch_up_seconds)

    def _write(self, due_at: datetime, outcome: Outcome) -> ScheduleRunRow | None:
        """The row of a time that has come; None if it has one."""
        return self._session.scalars(
            insert(ScheduleRunRow)
            .values(schedule_id=self._row.id, due_at=due_at, outcome=outcome, created_at=self._now)
            .on_conflict_do_nothing()
            .returning(ScheduleRunRow)
        ).one_or_none()
