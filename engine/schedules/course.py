"""What a schedule hears of its backups, in the transactions that end their jobs.

Everybody takes the schedule's row before the places in the entities' queues, which a new job takes: nobody waits for
another who waits for them.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.backups.begin import begin_verification
from engine.backups.model import VerifyLevel
from engine.db.models import BackupRow, JobRow, ScheduleRow, ScheduleRunRow
from engine.errors import DataOpsError
from engine.jobs import states
from engine.jobs.service import caller_of_job
from engine.schedules.model import RETRY_AFTER, Outcome
from engine.schedules.record import waiting_runs


def completed(session: Session, backup: BackupRow, job: JobRow, now: datetime) -> None:
    """A backup is complete: its run has succeeded, and it is verified where its schedule says so."""
    row = _schedule(session, backup)
    if row is None:
        return
    if row.last_backup_id == backup.id:
        row.last_error = None
    run = _run(session, backup)
    if run is not None:
        if run.outcome == Outcome.FAILED:  # somebody has put its job back after all
            row.failed_runs -= 1
        run.outcome, run.retry_at, run.error = Outcome.STARTED, None, None
    if row.verify_level is not None:
        caller, details = caller_of_job(session, job, now), {"entity_types": backup.entity_types, "schedule_id": row.id}
        begin_verification(session, caller, backup, VerifyLevel(row.verify_level), details, now)


def failed(session: Session, backup: BackupRow, error: DataOpsError, now: datetime) -> None:
    """A backup came to nothing: its run is tried again later, or stands as failed. One that was fired by hand is not:
    whoever fired it sees to it."""
    row = _schedule(session, backup)
    if row is None:
        return
    record = states.error_record(error)
    if row.last_backup_id == backup.id:
        row.last_error = record
    run = _run(session, backup)
    if run is None:
        return
    run.error = record
    retry_at = _retry_at(session, row, run, now) if record["retryable"] else None
    if retry_at is not None:
        run.outcome, run.retry_at = Outcome.WAITING, retry_at
    elif run.outcome != Outcome.FAILED:
        run.outcome, run.retry_at = Outcome.FAILED, None
        row.failed_runs += 1


def _retry_at(session: Session, row: ScheduleRow, run: ScheduleRunRow, now: datetime) -> datetime | None:
    """When the run is tried again; None once its tries are used up, and where the next time comes before."""
    if row.paused or row.deleted_at is not None or run.outcome == Outcome.FAILED or run.attempts > len(RETRY_AFTER):
        return None
    retry_at = now + RETRY_AFTER[run.attempts - 1]
    if row.next_run_at is not None and row.next_run_at <= retry_at:
        return None
    return None if any(other.due_at != run.due_at for other in waiting_runs(session, row.id)) else retry_at


def _schedule(session: Session, backup: BackupRow) -> ScheduleRow | None:
    if backup.schedule_id is None:
        return None
    return session.get(ScheduleRow, backup.schedule_id, with_for_update=True, populate_existing=True)


def _run(session: Session, backup: BackupRow) -> ScheduleRunRow | None:
    """The time whose newest try this backup is; none for one that was fired by hand."""
    found = select(ScheduleRunRow).where(ScheduleRunRow.backup_id == backup.id)
    return session.scalars(found.execution_options(populate_existing=True)).one_or_none()
