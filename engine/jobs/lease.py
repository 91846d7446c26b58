"""Taking jobs and keeping them: the claim, the lease, the fence number.

Leases are measured with the control database's clock alone: worker hosts need not agree on the time.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, text
from sqlalchemy.orm import Session

from engine.db.models import JobRow
from engine.errors import Unavailable
from engine.jobs import service, states
from engine.jobs.claims import NOT_BLOCKED
from engine.jobs.model import JobState

_LOST = """
SELECT id FROM dataops.jobs
WHERE state IN ('RUNNING', 'CANCEL_REQUESTED') AND kind = ANY(:kinds)
  AND (lease_expires_at IS NULL OR lease_expires_at < clock_timestamp())
ORDER BY lease_expires_at NULLS FIRST LIMIT 1 FOR UPDATE SKIP LOCKED"""

_RUNNABLE = f"""
SELECT j.id FROM dataops.jobs j
WHERE j.state = 'PENDING' AND j.run_at <= :now AND j.kind = ANY(:kinds) AND {NOT_BLOCKED}
ORDER BY j.priority, j.run_at, j.created_at, j.id LIMIT 1"""


@dataclass(frozen=True)
class Held:
    """One worker's hold on one job. `fence` is higher than that of every hold before it."""

    job_id: uuid.UUID
    owner: str
    fence: int


@dataclass(frozen=True)
class Claimed:
    """A job just taken. `first`: its resource is to be started. `settle`: it may only be brought to its true end,
    because its attempts are used up or it was asked to stop when its worker was lost."""

    job: JobRow
    held: Held
    first: bool
    settle: bool
    lost: bool = False
    """Whether it was taken over from a worker that had fallen silent."""


def claim_next(session: Session, kinds: list[str], owner: str, lease_seconds: float, now: datetime) -> Claimed | None:
    """Take the next job: one whose worker was lost, else the first runnable one; None when there is none."""
    job_id = session.execute(text(_LOST), {"kinds": kinds}).scalar()
    if job_id is None:
        query = text(_RUNNABLE + " FOR UPDATE OF j SKIP LOCKED")
        job_id = session.execute(query, {"kinds": kinds, "now": now}).scalar()
    if job_id is None:
        return None
    job = service.get_job(session, job_id, lock=True)
    lost = job.state != JobState.PENDING
    settle = job.state == JobState.CANCEL_REQUESTED or (lost and job.attempt >= job.max_attempts)
    first, silent = job.started_at is None, lost and job.lease_owner is not None
    if not settle:
        _begin_attempt(session, job, lost, now)
    job.fence += 1
    job.lease_owner = owner
    job.lease_expires_at = func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, lease_seconds)
    session.flush()
    session.refresh(job)
    return Claimed(job, Held(job.id, owner, job.fence), first, settle, silent)


def _begin_attempt(session: Session, job: JobRow, lost: bool, now: datetime) -> None:
    facts = {"error": states.error_record(worker_lost())} if lost else {}
    job.attempt += 1
    job.started_at = now
    job.stage, job.progress = "", {}
    states.change(session, job, JobState.RUNNING, now, **facts)


def worker_lost() -> Unavailable:
    """What is known when a lease ran out."""
    return Unavailable("job: its worker was lost", reason="WORKER_LOST")


def more_runnable(session: Session, kinds: list[str], now: datetime) -> bool:
    """Whether another worker would find something now."""
    return session.execute(text(_RUNNABLE), {"kinds": kinds, "now": now}).scalar() is not None


def still_held(session: Session, held: Held) -> JobRow | None:
    """The job, locked, if the hold is still good; None when it was taken over or has ended."""
    job = service.get_job(session, held.job_id, lock=True)
    mine = (job.lease_owner, job.fence) == (held.owner, held.fence)
    return job if mine and job.state in (JobState.RUNNING, JobState.CANCEL_REQUESTED) else None
