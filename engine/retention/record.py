"""Removals: many of them at once, and their audit rows."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import Session

from engine.access import system_caller
from engine.audit import record_change
from engine.db.database import Database
from engine.retention.model import Code

OPERATION = "retention.remove"
AT_ONCE = 100

Row = TypeVar("Row")


def remove_each(db: Database, wanted: Select[Row], remove: Callable[[Session, Row], bool]) -> int:
    """`remove` on every row, a hundred per transaction; how many of them it says it removed. A row that somebody holds
    just now waits for the next sweep, as does one that `remove` leaves."""
    done = 0
    while True:
        with db.transaction() as session:
            rows = session.scalars(wanted.with_for_update(skip_locked=True).limit(AT_ONCE)).all()
            gone = sum(remove(session, row) for row in rows)
        done += gone
        if len(rows) < AT_ONCE or not gone:
            return done


def removed(
    session: Session, resource_type: str, resource_id: uuid.UUID, now: datetime, details: Mapping[str, Any]
) -> None:
    """Writes, in the transaction from which on the thing cannot be had any more, that retention removed it."""
    facts = {"why": Code.EXPIRED, **details}
    record_change(session, system_caller("retention"), OPERATION, resource_type, resource_id, now, facts)
