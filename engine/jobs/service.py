"""Jobs as everybody but the worker sees them: make, look at, cancel, try again.

Functions take the caller's open session and never commit. After the commit that made a job runnable the caller rings
(`bell.ring()`); after one that wrote events it announces (`bell.announce(job_id)`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, func, select, text
from sqlalchemy.orm import Session

from engine.access import CallContext, Caller, caller_of
from engine.db.models import JobEventRow, JobRow
from engine.errors import FailedPrecondition, NotFound
from engine.ids import new_id
from engine.jobs import claims as queue
from engine.jobs import events, registry, states
from engine.jobs.claims import blocked_by
from engine.jobs.handlers import Handlers
from engine.jobs.model import Claim, EventKind, JobState
from engine.jobs.outcome import record_outcome
from engine.paging import Page, Paging, newest_first

RETRY_ATTEMPTS = 5
"""A lost worker or a lock conflict is tried this often; RetryJob grants as many again."""

_NO_OTHER_ENTITY = (
    "NOT EXISTS (SELECT FROM jsonb_array_elements(jobs.claims) c WHERE NOT c ->> 'entity' = ANY(:entities))"
)

__all__ = [
    "JobFilter",
    "blocked_by",
    "caller_of_job",
    "cancel_job",
    "count_jobs",
    "create_job",
    "get_job",
    "list_events",
    "list_jobs",
    "retry_job",
    "unknown",
]


def caller_of_job(session: Session, job: JobRow, now: datetime) -> Caller:
    """Who asked for the job, with the roles held now: what was permitted at the call may not be any more.

    Raises:
        PermissionDenied: PRINCIPAL_UNKNOWN.
    """
    return caller_of(session, job.principal_id, CallContext.from_record(job.context), now)


@dataclass(frozen=True)
class JobFilter:
    """What to list; an empty part does not restrict."""

    states: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    resource_type: str = ""
    resource_id: uuid.UUID | None = None
    entities: tuple[str, ...] | None = None
    """Jobs that need these entities alone; None does not restrict."""


def create_job(
    session: Session,
    *,
    kind: str,
    resource_type: str,
    resource_id: uuid.UUID,
    claims: Iterable[Claim],
    caller: Caller,
    intent_id: uuid.UUID | None,
    now: datetime,
    priority: int = 100,
) -> JobRow:
    """Record a PENDING job at the end of its entities' queues, with its first event. Smaller `priority` runs first."""
    job = JobRow(
        id=new_id(),
        kind=kind,
        state=JobState.PENDING,
        priority=priority,
        resource_type=resource_type,
        resource_id=resource_id,
        principal_id=caller.principal_id,
        context=caller.context.as_record(),
        intent_id=intent_id,
        claims=[{"entity": claim.entity, "mode": claim.mode} for claim in claims],
        attempt=0,
        max_attempts=RETRY_ATTEMPTS,
        run_at=now,
        created_at=now,
        fence=0,
        announced=False,
        stage="",
        progress={},
        last_sequence=0,
    )
    session.add(job)
    session.flush()
    queue.enter(session, job)
    payload = {"old_state": None, "new_state": job.state, "attempt": 0, **_waits_for(session, job)}
    events.append(session, job, EventKind.STATE, payload, now)
    session.flush()
    return job


def get_job(session: Session, job_id: uuid.UUID, *, lock: bool = False) -> JobRow:
    """The job, as it stands in the database now; with `lock` FOR UPDATE.

    Raises:
        NotFound: JOB_UNKNOWN.
    """
    job = session.get(JobRow, job_id, with_for_update=lock, populate_existing=True)
    if job is None:
        raise unknown(job_id)
    return job


def unknown(job_id: uuid.UUID) -> NotFound:
    """What a caller is told of a job that is not there, or is not the caller's to know of."""
    return NotFound("job: found none with this id", reason="JOB_UNKNOWN", metadata={"job_id": str(job_id)})


def cancel_job(session: Session, job_id: uuid.UUID, now: datetime, handlers: Handlers | None = None) -> JobRow:
    """Ask a job to stop. PENDING: CANCELLED at once. Running: CANCEL_REQUESTED. Ended: unchanged.

    A pending job whose effect may stand already (its last attempt ended in a lost COMMIT) is only requested to stop:
    a worker looks for the mark first.
    """
    job = get_job(session, job_id, lock=True)
    if job.state not in (JobState.PENDING, JobState.RUNNING):
        return job
    job.cancel_requested_at = now
    if job.state == JobState.PENDING and not job.announced:
        states.change(session, job, JobState.CANCELLED, now)
        _handlers(handlers)[job.kind].cancelled(session, job)
        record_outcome(session, job, JobState.CANCELLED, {}, now)
    else:
        states.change(session, job, JobState.CANCEL_REQUESTED, now)
    session.flush()
    return job


def retry_job(
    session: Session,
    job_id: uuid.UUID,
    *,
    intent_id: uuid.UUID | None,
    now: datetime,
    handlers: Handlers | None = None,
) -> JobRow:
    """Put a FAILED job back to PENDING, at the end of its queues; its next claim is attempt + 1.

    Raises:
        FailedPrecondition: JOB_NOT_RETRYABLE when it has not failed, or its error cannot go away by itself.
    """
    job = get_job(session, job_id, lock=True)
    if job.state != JobState.FAILED or not (job.error or {}).get("retryable", False):
        raise FailedPrecondition(
            f"job: found state {job.state} and reason {(job.error or {}).get('reason', 'none')},"
            " expected FAILED with an error that may go away",
            reason="JOB_NOT_RETRYABLE",
            metadata={"job_id": str(job_id), "state": job.state},
        )
    job.max_attempts = job.attempt + RETRY_ATTEMPTS
    job.intent_id = intent_id
    job.run_at = now
    job.started_at = job.finished_at = job.cancel_requested_at = None
    job.error = None
    queue.enter(session, job)
    _handlers(handlers)[job.kind].retried(session, job)
    states.change(session, job, JobState.PENDING, now, **_waits_for(session, job))
    session.flush()
    return job


def list_jobs(session: Session, wanted: JobFilter, paging: Paging) -> Page[JobRow]:
    """One page of jobs, newest first."""
    return newest_first(session, _matching(wanted), paging, JobRow.created_at, JobRow.id)


def count_jobs(session: Session, wanted: JobFilter) -> int:
    """How many there are."""
    return session.scalars(select(func.count()).select_from(_matching(wanted).subquery())).one()


def _matching(wanted: JobFilter) -> Select[JobRow]:
    query = select(JobRow)
    if wanted.states:
        query = query.where(JobRow.state.in_(wanted.states))
    if wanted.kinds:
        query = query.where(JobRow.kind.in_(wanted.kinds))
    if wanted.resource_type:
        query = query.where(JobRow.resource_type == wanted.resource_type)
    if wanted.resource_id is not None:
        query = query.where(JobRow.resource_id == wanted.resource_id)
    if wanted.entities is not None:
        query = query.where(text(_NO_OTHER_ENTITY).bindparams(entities=list(wanted.entities)))
    return query


def list_events(session: Session, job_id: uuid.UUID, after: int, limit: int) -> Sequence[JobEventRow]:
    """The events behind sequence `after`, in order, at most `limit`.

    Raises:
        NotFound: JOB_UNKNOWN.
    """
    found = events.after(session, job_id, after, limit)
    if not found:
        get_job(session, job_id)
    return found


def _waits_for(session: Session, job: JobRow) -> dict[str, list[str]]:
    others = blocked_by(session, [job.id]).get(job.id)
    return {"blocked_by": [str(other) for other in others]} if others else {}


def _handlers(given: Handlers | None) -> Handlers:
    return registry.handlers() if given is None else given
