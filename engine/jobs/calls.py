"""Jobs for callers: look, cancel, try again; each call is one short transaction, then the bells."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.access import Caller
from engine.access.idempotency import once
from engine.access.permission import ANY, Permission
from engine.access.service import principals
from engine.audit import record_intent, record_outcome
from engine.clock import Clock
from engine.db.database import Database
from engine.db.models import JobEventRow, JobRow, PrincipalRow
from engine.jobs import service
from engine.jobs.doorbell import Doorbell
from engine.jobs.handlers import Handlers
from engine.jobs.model import FINISHED, JobKind, JobState
from engine.jobs.service import JobFilter
from engine.paging import Page, Paging, by_number

OF_RESTORES = frozenset({JobKind.RESTORE_PLAN, JobKind.RESTORE})
"""A restore's jobs: `jobs.cancel` and `jobs.retry` are in the hands of those who may not restore, so stopping one takes
`restores.cancel` too, and trying it again `restores.create`."""


@dataclass(frozen=True)
class JobFacts:
    """What stands beside job rows: whom they wait for, and who asked for them."""

    blocked_by: dict[uuid.UUID, list[uuid.UUID]]
    principals: dict[uuid.UUID, PrincipalRow]


class Jobs:
    """One per process; its methods block. A job is its entities' business: who may not read all of them does not see
    it, and who may not change all of them changes nothing."""

    def __init__(self, db: Database, bell: Doorbell, clock: Clock, handlers: Handlers | None = None) -> None:
        self._db, self._bell, self._clock, self._handlers = db, bell, clock, handlers

    def get(self, caller: Caller, job_id: uuid.UUID) -> tuple[JobRow, JobFacts]:
        """Raises: NotFound: JOB_UNKNOWN, also for one of an entity whose jobs the caller may not read."""
        with self._db.transaction() as session:
            job = _readable(session, caller, job_id)
            return job, _facts(session, [job])

    def permit(self, caller: Caller, job_id: uuid.UUID) -> None:
        """Return when the caller may read the job.

        Raises:
            NotFound: JOB_UNKNOWN.
        """
        if not caller.may("jobs.read", ANY):
            with self._db.transaction() as session:
                _readable(session, caller, job_id)

    def shown(self, job_id: uuid.UUID) -> tuple[JobRow, JobFacts]:
        """For those who were permitted already. Raises: NotFound: JOB_UNKNOWN."""
        with self._db.transaction() as session:
            job = service.get_job(session, job_id)
            return job, _facts(session, [job])

    def entities(self, job_id: uuid.UUID) -> tuple[str, ...]:
        """The entities whose business the job is; they never change. Raises: NotFound: JOB_UNKNOWN."""
        with self._db.transaction() as session:
            return tuple(entity_types(service.get_job(session, job_id)))

    def list(self, caller: Caller, wanted: JobFilter, paging: Paging) -> tuple[Page[JobRow], JobFacts]:
        """One page, newest first, of the jobs that the caller may read."""
        with self._db.transaction() as session:
            page = service.list_jobs(session, _permitted(caller, wanted), paging)
            return page, _facts(session, page.items)

    def count(self, caller: Caller, wanted: JobFilter) -> int:
        """How many there are that the caller may read."""
        with self._db.transaction() as session:
            return service.count_jobs(session, _permitted(caller, wanted))

    def events(self, caller: Caller, job_id: uuid.UUID, after: int, paging: Paging) -> tuple[JobRow, Page[JobEventRow]]:
        """One page of the job's events behind sequence `after`, in the order they happened.

        Raises:
            NotFound: JOB_UNKNOWN, as for `get`.
        """
        wanted = select(JobEventRow).where(JobEventRow.job_id == job_id, JobEventRow.sequence > after)
        with self._db.transaction() as session:
            job = _readable(session, caller, job_id)
            return job, by_number(session, wanted, paging, JobEventRow.sequence, ascending=True)

    def cancel(self, caller: Caller, job_id: uuid.UUID) -> tuple[JobRow, JobFacts]:
        """Ask it to stop; one that has ended, or has been asked already, is answered as it stands.

        Raises:
            NotFound: JOB_UNKNOWN, also for one whose entities' jobs the caller may neither change nor read.
            PermissionDenied: PERMISSION_MISSING on one of its entities, or for the work itself (a restore's).
        """
        now = self._clock()
        with self._db.transaction() as session:
            job = service.get_job(session, job_id, lock=True)
            _require(caller, "jobs.cancel", job)
            if job.kind in OF_RESTORES:
                caller.require("restores.cancel", ANY)
            if job.state in (JobState.CANCEL_REQUESTED, *FINISHED):
                return job, _facts(session, [job])
            intent = record_intent(session, caller, "jobs.cancel", "jobs", job_id, _details(job), now)
            job = service.cancel_job(session, job_id, now, self._handlers)
            record_outcome(session, intent, "COMPLETED", {"state": job.state}, now)
            facts = _facts(session, [job])
        self._bell.announce(job_id)
        self._bell.ring()  # one that had not begun lets those behind it go on
        return job, facts

    def retry(self, caller: Caller, job_id: uuid.UUID, request_id: str, body_sha256: bytes) -> tuple[JobRow, JobFacts]:
        """Put a FAILED job back to PENDING; the same request again makes no further attempt.

        Raises:
            NotFound: JOB_UNKNOWN, also for one whose entities' jobs the caller may neither change nor read.
            PermissionDenied: PERMISSION_MISSING on one of its entities, or for the work itself (a restore's).
            FailedPrecondition: JOB_NOT_RETRYABLE.
            AlreadyExists: REQUEST_ID_REUSED.
        """
        now = self._clock()
        with self._db.transaction() as session:
            job = service.get_job(session, job_id, lock=True)
            _require(caller, "jobs.retry", job)  # of a repeated request too: it is answered with the job
            if job.kind in OF_RESTORES:
                caller.require("restores.create", ANY)

            def again() -> uuid.UUID:
                intent = record_intent(session, caller, "jobs.retry", "jobs", job_id, _details(job), now)
                session.flush()
                return service.retry_job(session, job_id, intent_id=intent, now=now, handlers=self._handlers).id

            once(session, caller, "RetryJob", request_id, body_sha256, again, now)
            job = service.get_job(session, job_id)
            facts = _facts(session, [job])
        self._bell.announce(job_id)
        self._bell.ring()
        return job, facts


def entity_types(job: JobRow) -> list[str]:
    """The entities it holds or waits for."""
    return [str(claim["entity"]) for claim in job.claims or []]


def _permitted(caller: Caller, wanted: JobFilter) -> JobFilter:
    """The filter without jobs that the caller may not read."""
    if caller.may("jobs.read", ANY):
        return wanted
    held = map(Permission.parse, caller.permissions)
    return replace(wanted, entities=tuple({p.entity for p in held if p.covers("jobs.read")}))


def _readable(session: Session, caller: Caller, job_id: uuid.UUID) -> JobRow:
    job = service.get_job(session, job_id)
    if not all(caller.may("jobs.read", entity) for entity in entity_types(job)):
        raise service.unknown(job_id)
    return job


def _require(caller: Caller, operation: str, job: JobRow) -> None:
    entities = entity_types(job)
    if all(caller.may(operation, entity) for entity in entities):
        return
    if not all(caller.may("jobs.read", entity) for entity in entities):
        raise service.unknown(job.id)  # a refusal that names the entity would tell of it
    for entity in entities:
        caller.require(operation, entity)


def _details(job: JobRow) -> dict[str, object]:
    return {"kind": job.kind, "resource": f"{job.resource_type}/{job.resource_id}", "entity_types": entity_types(job)}


def _facts(session: Session, jobs: Iterable[JobRow]) -> JobFacts:
    jobs = list(jobs)
    waiting = [job.id for job in jobs if job.state == JobState.PENDING]
    return JobFacts(service.blocked_by(session, waiting), principals(session, (job.principal_id for job in jobs)))
