"""The queues: one per entity, strict. Who stands earlier and does not go with you is waited for, running or not.

A place is taken under a lock of the entity, so places commit in their order: a claim seen at place 5 never gets a
new neighbour at place 4. Without it a job could start beside an earlier one whose transaction was not yet visible.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import delete, text
from sqlalchemy.orm import Session

from engine.db.models import JobClaimRow, JobRow
from engine.jobs.model import Claim, ClaimMode

_QUEUE_LOCK = 0x71756575
"""First key of the advisory locks ("queu"); the second is a hash of the entity."""

_CONFLICT = """other.entity = mine.entity AND other.position < mine.position
    AND (mine.mode = 'EXCLUSIVE' OR other.mode = 'EXCLUSIVE' OR (mine.mode = 'WRITE' AND other.mode = 'WRITE'))"""

NOT_BLOCKED = f"""NOT EXISTS (
    SELECT FROM dataops.job_claims mine JOIN dataops.job_claims other ON {_CONFLICT} WHERE mine.job_id = j.id)"""
"""Condition on `dataops.jobs j`: nobody it must wait for stands before it."""


def enter(session: Session, job: JobRow) -> None:
    """Take the places that `job.claims` names, in one go. The queues' locks are held until the transaction ends."""
    ordered = sorted((Claim(item["entity"], ClaimMode(item["mode"])) for item in job.claims), key=lambda c: c.entity)
    for claim in ordered:
        session.execute(
            text("SELECT pg_advisory_xact_lock(:space, hashtext(:entity))"),
            {"space": _QUEUE_LOCK, "entity": claim.entity},
        )
    for claim in ordered:
        session.add(JobClaimRow(job_id=job.id, entity=claim.entity, mode=claim.mode))
    session.flush()


def leave(session: Session, job_id: uuid.UUID) -> None:
    """Give the job's places up; those behind move with the commit."""
    session.execute(delete(JobClaimRow).where(JobClaimRow.job_id == job_id))


def blocked_by(session: Session, job_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[uuid.UUID]]:
    """For each job that has to wait, the jobs it waits for, oldest first; others are absent."""
    found: dict[uuid.UUID, list[uuid.UUID]] = defaultdict(list)
    if job_ids:
        rows = session.execute(
            text(
                "SELECT mine.job_id, other.job_id FROM dataops.job_claims mine"
                f" JOIN dataops.job_claims other ON {_CONFLICT}"
                " WHERE mine.job_id = ANY(:ids) GROUP BY 1, 2 ORDER BY min(other.position)"
            ),
            {"ids": list(job_ids)},
        )
        for mine, other in rows:
            found[mine].append(other)
    return dict(found)
