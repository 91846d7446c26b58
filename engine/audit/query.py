"""Reading the audit log."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from engine.db.models import AuditEventRow
from engine.paging import Page, Paging, by_number


@dataclass(frozen=True)
class EventFilter:
    """Which events; what is empty does not filter. `start` is inside, `end` is not."""

    principal_id: uuid.UUID | None = None
    operation: str = ""
    resource_type: str = ""
    resource_id: str = ""
    entity_type: str = ""
    outcomes: tuple[str, ...] = ()
    """COMPLETED, FAILED, CANCELLED, DENIED."""
    start: datetime | None = None
    end: datetime | None = None


def list_events(session: Session, wanted: EventFilter, paging: Paging) -> Page[AuditEventRow]:
    """One page of events, newest first."""
    return by_number(session, _filtered(wanted), paging, AuditEventRow.sequence)


def _filtered(wanted: EventFilter) -> Select[AuditEventRow]:
    events = select(AuditEventRow)
    equal = {
        "principal_id": wanted.principal_id,
        "operation": wanted.operation,
        "resource_type": wanted.resource_type,
        "resource_id": wanted.resource_id,
    }
    for name, value in equal.items():
        if value:
            events = events.where(getattr(AuditEventRow, name) == value)
    if wanted.entity_type:
        events = events.where(AuditEventRow.details.contains({"entity_types": [wanted.entity_type]}))
    if wanted.outcomes:
        ended = AuditEventRow.outcome.in_([word for word in wanted.outcomes if word != "DENIED"])
        denied = AuditEventRow.kind == "DENIED"
        events = events.where(ended | denied if "DENIED" in wanted.outcomes else ended)
    if wanted.start:
        events = events.where(AuditEventRow.at >= wanted.start)
    if wanted.end:
        events = events.where(AuditEventRow.at < wanted.end)
    return events
