"""Backups that are past their time: what is known of them for the plan, and the step from GOOD to EXPIRED.

Their bytes go by the sweep of `engine.backups.sweep`, which unpublishes a backup before it touches anything else.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Row, select, text
from sqlalchemy.orm import Session

from engine.backups.model import SAFETY, VerifyLevel
from engine.backups.states import GOOD, BackupStatus, found_damaged, move
from engine.backups.uses import in_use, increments_to, uses
from engine.db.models import BackupRow
from engine.retention.model import Decision
from engine.retention.plan import Candidate, decide
from engine.retention.record import removed

LOCK = 0x64744F_726574
"""Of two sweeps at once the second plans with what the first has done."""

_PROOFS = (VerifyLevel.DECODED, VerifyLevel.RESTORED)
"""The levels that look at every byte: that all objects are there says nothing of what is in them."""


_KNOWN = (
    BackupRow.id,
    BackupRow.entity_types,
    BackupRow.created_at,
    BackupRow.snapshot_at,
    BackupRow.completed_at,
    BackupRow.expires_at,
    BackupRow.file_size_bytes,
    BackupRow.parent_id,
    BackupRow.trigger_type,
    BackupRow.held,
    BackupRow.verifications,
)
"""Not what the records hold of entities and of what is not covered: every sweep reads all of them."""


def decisions(session: Session, floor: int, now: datetime) -> list[Decision]:
    """What becomes of each good backup, removals last and in their order."""
    made = select(BackupRow.parent_id).where(BackupRow.status == BackupStatus.PENDING.value)
    needed = dict.fromkeys(session.scalars(made), "an increment to it is being made") | uses(session)
    good = select(*_KNOWN).where(BackupRow.status.in_(GOOD)).order_by(BackupRow.created_at, BackupRow.id)
    return decide([_candidate(row, needed.get(row.id, "")) for row in session.execute(good)], floor, now)


def expire(session: Session, floor: int, now: datetime) -> list[Decision]:
    """Moves what may go to EXPIRED, increments before what they build on; the decisions that were carried out.

    One transaction: after a crash it has happened or not. Each record is looked at again under its lock; one that
    somebody works with just now, and with it what it builds on, waits for the next sweep.
    """
    session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    done = []
    for decision in decisions(session, floor, now):
        if not decision.remove:
            continue
        row = session.get(
            BackupRow, decision.resource_id, with_for_update={"skip_locked": True}, populate_existing=True
        )
        if row is None or row.status not in GOOD or in_use(session, row) or increments_to(session, row.id):
            continue
        move(row, BackupStatus.EXPIRED, now)
        session.flush()
        details = {
            "message": decision.message,
            "name": row.name,
            "entity_types": row.entity_types,
            "size_bytes": decision.size,
        }
        removed(session, "backups", row.id, now, details)
        done.append(decision)
    return done


def _candidate(row: Row[Any], needed: str) -> Candidate:
    taken_at = row.snapshot_at or row.completed_at or row.created_at
    damaged = found_damaged(row.verifications)
    return Candidate(
        backup_id=row.id,
        entity_types=frozenset(row.entity_types),
        taken_at=taken_at,
        expires_at=row.expires_at,
        size=row.file_size_bytes,
        parent_id=row.parent_id,
        safety=row.trigger_type in SAFETY,
        held=row.held,
        in_use=needed,
        proven=not damaged and any(level in row.verifications for level in _PROOFS),
        damaged=damaged,
    )
