"""How well the rows are protected: which backups are good, which are proven, what is in none, what failed since.

Each question is one SELECT of one jsonb, so that the overview asks it alone and the metrics put all into one query.

A backup is *good* when it is complete, and neither it nor one that it builds on was found damaged (`found_damaged`). It
is *proven* when it is good and its verification of level RESTORED was: every row has been loaded into a table of its
types, and counted and compared. A restore of a part proves that part alone, so the status RESTORED proves nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

JUDGED = """
    WITH RECURSIVE bad AS (
        SELECT b.id FROM dataops.backups b CROSS JOIN LATERAL jsonb_each(b.verifications) level
        WHERE NOT (level.value ->> 'good')::boolean
        UNION SELECT b.id FROM dataops.backups b JOIN bad ON b.parent_id = bad.id
    )
    SELECT b.*, coalesce(b.snapshot_at, b.completed_at, b.created_at) AS taken_at,
        b.status IN ('COMPLETED', 'RESTORED') AS whole,
        b.id IN (SELECT id FROM bad) AS damaged,
        (b.verifications #>> '{RESTORED,good}')::boolean IS TRUE AS proven,
        (b.verifications #>> '{RESTORED,verified_at}')::timestamptz AS rows_at
    FROM dataops.backups b"""
"""Backups with what their verifications say of them. `bad` begins with those of `found_damaged`."""

PROTECTION = f"""(
WITH judged AS MATERIALIZED (
    SELECT * FROM ({JUDGED}) j
    WHERE j.whole AND (CAST(:entities AS text[]) IS NULL OR j.entity_types <@ CAST(:entities AS text[]))
), each AS (
    SELECT entity, max(taken_at) FILTER (WHERE NOT damaged) AS good, max(taken_at) FILTER (WHERE proven AND NOT damaged)
        AS proven
    FROM judged CROSS JOIN LATERAL unnest(entity_types) entity GROUP BY entity
)
SELECT jsonb_build_object(
    'available', count(*) FILTER (WHERE NOT damaged),
    'damaged', count(*) FILTER (WHERE damaged),
    'bytes', coalesce(sum(file_size_bytes), 0),
    'good_at', max(taken_at) FILTER (WHERE NOT damaged),
    'proven_at', max(taken_at) FILTER (WHERE proven AND NOT damaged),
    'proof_at', max(rows_at) FILTER (WHERE proven AND NOT damaged),
    'entities', coalesce((SELECT jsonb_object_agg(entity, jsonb_build_array(good, proven)) FROM each), '{{}}')
) FROM judged)"""
"""Of backups that hold nothing but `:entities`; of all where it is NULL."""

FAILED_RUNS = f"""(
WITH made AS MATERIALIZED (
    SELECT schedule_id, status, created_at, whole AND NOT damaged AS good FROM ({JUDGED}) j
    WHERE schedule_id IS NOT NULL
), last_good AS (
    SELECT s.id, coalesce(max(made.created_at), '-infinity') AS at
    FROM dataops.schedules s LEFT JOIN made ON made.schedule_id = s.id AND made.good
    WHERE s.deleted_at IS NULL GROUP BY s.id
), failed AS (
    SELECT l.id FROM last_good l JOIN made ON made.schedule_id = l.id AND made.status = 'FAILED'
        AND made.created_at > l.at
    UNION ALL
    SELECT l.id FROM last_good l JOIN dataops.schedule_runs r ON r.schedule_id = l.id AND r.outcome = 'FAILED'
        AND r.due_at > l.at
)
SELECT coalesce(jsonb_object_agg(id, runs), '{{}}') FROM (SELECT id, count(*) AS runs FROM failed GROUP BY id) f)"""
"""How many times of each schedule, since its own last good backup, made none. By schedule, since a backup from before
an import, or of another schedule, says nothing of why this one fails every night."""


@dataclass(frozen=True)
class Protection:
    """What there is of backups. `entities` are those that could be backed up; None: the platform cannot be asked."""

    available: int
    damaged: int
    stored_bytes: int
    good_at: datetime | None
    """When the newest good backup was taken."""
    proven_at: datetime | None
    """When the newest proven one was taken."""
    proof_at: datetime | None
    """When a good backup was last proven."""
    all_good_at: datetime | None
    """Every entity has a good backup of this moment or of later; None: one has none, or it is not known."""
    all_proven_at: datetime | None
    unprotected: tuple[str, ...] | None
    """Entities in no good backup, by name; None: it is not known which there are."""

    @classmethod
    def of(cls, record: Mapping[str, Any], entities: Iterable[str] | None) -> Protection:
        """From what PROTECTION gives."""
        held: Mapping[str, Sequence[str | None]] = record["entities"]
        wanted = None if entities is None else sorted(entities)
        newest = None if wanted is None else [held.get(name, (None, None)) for name in wanted]
        return cls(
            available=record["available"],
            damaged=record["damaged"],
            stored_bytes=int(record["bytes"]),
            good_at=_moment(record["good_at"]),
            proven_at=_moment(record["proven_at"]),
            proof_at=_moment(record["proof_at"]),
            all_good_at=_oldest([good for good, _ in newest or ()]),
            all_proven_at=_oldest([proven for _, proven in newest or ()]),
            unprotected=None if wanted is None else tuple(n for n in wanted if held.get(n, (None,))[0] is None),
        )


def read_protection(
    session: Session, entities: Iterable[str] | None, readable: Sequence[str] | None = None
) -> Protection:
    """Of the backups that hold nothing but `readable` entities; of all where that is None."""
    found = session.execute(text(f"SELECT {PROTECTION}"), {"entities": None if readable is None else list(readable)})
    return Protection.of(found.scalar_one(), entities)


def read_failed_runs(session: Session) -> dict[str, int]:
    """By the id of the schedule, those without any left out."""
    found: dict[str, int] = session.execute(text(f"SELECT {FAILED_RUNS}")).scalar_one()
    return found


def _oldest(moments: Sequence[str | None]) -> datetime | None:
    known = [moment for found in moments if (moment := _moment(found)) is not None]
    return min(known) if known and len(known) == len(moments) else None


def _moment(found: str | None) -> datetime | None:
    return None if found is None else datetime.fromisoformat(found)
