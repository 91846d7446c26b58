"""How an attempt ends: each function is one control transaction that checks the hold first.

A hold that is no longer good raises LeaseLost and changes nothing. So each may be repeated after a lost commit: if it
had been committed after all, the repetition finds no hold any more.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from engine.db.models import JobRow
from engine.errors import DataOpsError
from engine.jobs import lease, states
from engine.jobs.handlers import Ending, JobHandler
from engine.jobs.interrupts import LeaseLost
from engine.jobs.lease import Held
from engine.jobs.model import JobState
from engine.jobs.outcome import record_outcome
from engine.jobs.retry import backoff

log = structlog.get_logger(__name__)


def complete(session: Session, held: Held, handler: JobHandler, ending: Ending, now: datetime) -> JobState:
    """COMPLETED, with the handler's own changes. A cancel that came before any effect is honoured instead."""
    job = _mine(session, held)
    if job.state == JobState.CANCEL_REQUESTED and not job.announced:
        return _cancelled(session, job, handler, now)
    ending(session)
    job.error = None
    states.change(session, job, JobState.COMPLETED, now)
    record_outcome(session, job, JobState.COMPLETED, {}, now)
    return JobState.COMPLETED


def cancel(session: Session, held: Held, handler: JobHandler, now: datetime) -> JobState:
    """CANCELLED: the job was asked to stop, and it is certain that it had no effect."""
    return _cancelled(session, _mine(session, held), handler, now)


def fail(session: Session, held: Held, handler: JobHandler, error: DataOpsError, now: datetime) -> JobState:
    """FAILED, for good unless somebody retries it by hand. A job that was asked to stop is CANCELLED instead."""
    job = _mine(session, held)
    if job.state == JobState.CANCEL_REQUESTED:
        return _cancelled(session, job, handler, now)
    _tell(session, job, lambda: handler.failed(session, job, error))
    job.error = states.error_record(error)
    states.change(session, job, JobState.FAILED, now, error=job.error)
    record_outcome(session, job, JobState.FAILED, {"reason": error.reason}, now)
    return JobState.FAILED


def again(session: Session, held: Held, handler: JobHandler, error: DataOpsError, now: datetime) -> JobState:
    """PENDING for another attempt after a pause, keeping its places in the queues."""
    job = _mine(session, held)
    if job.state == JobState.CANCEL_REQUESTED:
        if job.announced:
            return _leave_open(job, error)
        return _cancelled(session, job, handler, now)
    job.error = states.error_record(error)
    job.run_at = now + backoff(job.attempt)
    states.drop_lease(job)
    states.change(session, job, JobState.PENDING, now, error=job.error)
    return JobState.PENDING


def leave_open(session: Session, held: Held, error: DataOpsError) -> JobState:
    """Its true end cannot be learned now: the lease is left to run out, and whoever looks then tries again."""
    return _leave_open(_mine(session, held), error)


def release(session: Session, held: Held, handler: JobHandler, settling: bool, now: datetime) -> JobState:
    """This process stops: PENDING at once, the attempt is not counted. What was being settled is left to the next."""
    job = _mine(session, held)
    if job.state == JobState.CANCEL_REQUESTED and not job.announced:
        return _cancelled(session, job, handler, now)
    if settling or job.state == JobState.CANCEL_REQUESTED:
        states.let_go(job)
        return JobState(job.state)
    job.attempt -= 1
    job.run_at = now
    states.drop_lease(job)
    states.change(session, job, JobState.PENDING, now)
    return JobState.PENDING


def _leave_open(job: JobRow, error: DataOpsError) -> JobState:
    job.error = {**states.error_record(error), "final": True}
    return JobState(job.state)


def _cancelled(session: Session, job: JobRow, handler: JobHandler, now: datetime) -> JobState:
    _tell(session, job, lambda: handler.cancelled(session, job))
    job.error = None
    states.change(session, job, JobState.CANCELLED, now)
    record_outcome(session, job, JobState.CANCELLED, {}, now)
    return JobState.CANCELLED


def _tell(session: Session, job: JobRow, hook: Callable[[], None]) -> None:
    """Let the handler end its resource. A defect there is logged and does not keep the job, and with it the queues of
    its entities, open for ever."""
    try:
        with session.begin_nested():
            hook()
    except (DBAPIError, PoolTimeout):
        raise
    except Exception:
        log.exception("handler_defect", job_id=str(job.id), kind=job.kind)
        session.refresh(job)


def _mine(session: Session, held: Held) -> JobRow:
    job = lease.still_held(session, held)
    if job is None:
        raise LeaseLost
    return job
