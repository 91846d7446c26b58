"""The state machine of jobs: the only place that changes `JobRow.state`, and each change is an event.

PENDING -> RUNNING -> COMPLETED | FAILED | CANCELLED
   |  ^------'|  `-> CANCEL_REQUESTED -> COMPLETED | FAILED | CANCELLED
   `-> CANCELLED, CANCEL_REQUESTED             FAILED -> PENDING (RetryJob)
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Session

from engine.db.models import JobRow
from engine.errors import DataOpsError, InternalError, PlatformNotPrepared
from engine.jobs import claims, events
from engine.jobs.model import FINISHED, EventKind, JobState
from engine.webhooks.owed import owe_deliveries

_ALLOWED: dict[JobState, tuple[JobState, ...]] = {
    JobState.PENDING: (JobState.RUNNING, JobState.CANCELLED, JobState.CANCEL_REQUESTED),
    JobState.RUNNING: (JobState.RUNNING, JobState.PENDING, JobState.CANCEL_REQUESTED, *FINISHED),
    JobState.CANCEL_REQUESTED: FINISHED,
    JobState.COMPLETED: (),
    JobState.FAILED: (JobState.PENDING,),
    JobState.CANCELLED: (),
}


def change(session: Session, job: JobRow, state: JobState, now: datetime, **facts: Any) -> None:
    """Move the locked `job` to `state` and tell it as an event with `facts`. The end gives lease and places up,
    and owes the webhooks that the job concerns their messages."""
    old = JobState(job.state)
    if state not in _ALLOWED[old]:
        raise InternalError(f"job: found a change from {old} to {state}, expected one of {_ALLOWED[old]}")
    job.state = state
    payload = {"old_state": old, "new_state": state, "attempt": job.attempt, **facts}
    events.append(session, job, EventKind.STATE, payload, now)
    if state in FINISHED:
        job.finished_at = now
        drop_lease(job)
        claims.leave(session, job.id)
        events.thin(session, job, now)
        owe_deliveries(session, job, now)


def drop_lease(job: JobRow) -> None:
    """Nobody holds the job any more. Its fence stays: the next holder's is higher."""
    job.lease_owner = None
    job.lease_expires_at = None


def let_go(job: JobRow) -> None:
    """The lease ends now: whoever looks next takes the job over."""
    job.lease_expires_at = func.clock_timestamp()


def error_record(error: DataOpsError) -> dict[str, Any]:
    """What a job row keeps of an error: reason, message, metadata, and whether RetryJob is of any use.

    A defect of ours and a platform that lacks something can be mended outside, so those may be tried again too.
    """
    again = error.retryable or isinstance(error, InternalError | PlatformNotPrepared)
    return {**error.as_record(), "retryable": again}
