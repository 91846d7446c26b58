"""A job's events: a sequence without gaps, assigned under the job's row lock in the event's own transaction."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from engine.db.models import JobEventRow, JobRow
from engine.jobs.model import EventKind

KEEP_PROGRESS = timedelta(seconds=10)
"""Progress this young stays when a job ends: whoever is watching live has not read it yet."""

EVENT_RETENTION = timedelta(days=90)


def append(session: Session, job: JobRow, kind: EventKind, payload: dict[str, Any], now: datetime) -> JobEventRow:
    """Add the next event. `job` must be locked (FOR UPDATE) or new in this transaction."""
    job.last_sequence += 1
    event = JobEventRow(job_id=job.id, sequence=job.last_sequence, at=now, kind=kind, payload=payload)
    session.add(event)
    return event


def after(session: Session, job_id: uuid.UUID, sequence: int, limit: int) -> Sequence[JobEventRow]:
    """The events behind `sequence`, in order. A gap is closed by a SNAPSHOT: what lay before it was thinned."""
    return session.scalars(
        select(JobEventRow)
        .where(JobEventRow.job_id == job_id, JobEventRow.sequence > sequence)
        .order_by(JobEventRow.sequence)
        .limit(limit)
    ).all()


_RUNS = """
WITH old AS (
    SELECT sequence, kind = 'PROGRESS' AND at < :cutoff AS thin,
           lead(kind = 'PROGRESS' AND at < :cutoff, 1, false) OVER seen AS next_thin,
           lag(kind = 'PROGRESS' AND at < :cutoff, 1, false) OVER seen AS last_thin
    FROM dataops.job_events WHERE job_id = :job WINDOW seen AS (ORDER BY sequence)
), dropped AS (
    DELETE FROM dataops.job_events e USING old
    WHERE e.job_id = :job AND e.sequence = old.sequence AND old.thin AND old.next_thin
)
UPDATE dataops.job_events e
SET kind = 'SNAPSHOT',
    payload = jsonb_build_object('state', 'RUNNING', 'stage', e.payload -> 'stage', 'attempt', CAST(:attempt AS bigint),
                                 'progress', e.payload)
FROM old WHERE e.job_id = :job AND e.sequence = old.sequence AND old.thin AND NOT old.next_thin AND old.last_thin
"""


def thin(session: Session, job: JobRow, now: datetime) -> None:
    """Replace each run of progress events older than `KEEP_PROGRESS` by its last one, as a SNAPSHOT.

    A resume from inside such a run gets that snapshot first and misses nothing that still matters.
    """
    session.flush()
    session.execute(text(_RUNS), {"job": job.id, "cutoff": now - KEEP_PROGRESS, "attempt": job.attempt})


def forget(session: Session, now: datetime) -> int:
    """Drop the events of jobs that ended more than 90 days ago; returns how many."""
    found = session.execute(
        text(
            "DELETE FROM dataops.job_events e USING dataops.jobs j"
            " WHERE e.job_id = j.id AND j.finished_at < :cutoff RETURNING 1"
        ),
        {"cutoff": now - EVENT_RETENTION},
    )
    return len(found.all())
