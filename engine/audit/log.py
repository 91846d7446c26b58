"""Writing audit rows, always in the caller's own transaction: a row exists exactly when what it tells does."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from engine.db.models import AuditEventRow
from engine.errors import InternalError
from engine.ids import new_id

if TYPE_CHECKING:
    from engine.access.caller import CallContext, Caller

MAX_TEXT = 500
"""Longer texts in details are cut: the log keeps facts, not payloads."""

OUTCOMES = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


def record_intent(
    session: Session,
    caller: Caller,
    operation: str,
    resource_type: str,
    resource_id: uuid.UUID | str,
    details: Mapping[str, Any],
    now: datetime,
) -> uuid.UUID:
    """Write that the operation was asked for and is about to begin; the id its outcome will name."""
    row = _row(caller, "INTENT", operation, resource_type, resource_id, details, now)
    session.add(row)
    return row.id


def record_outcome(
    session: Session, intent_id: uuid.UUID, outcome: str, details: Mapping[str, Any], now: datetime
) -> uuid.UUID:
    """Write how the intent ended: COMPLETED, FAILED (details: reason) or CANCELLED. Who and what is the intent's.

    Raises:
        InternalError: AUDIT_INTENT_MISSING when there is no such intent.
    """
    assert outcome in OUTCOMES, outcome
    session.flush()
    intent = session.get(AuditEventRow, intent_id)
    if intent is None:
        raise InternalError("the intent of this outcome does not exist", reason="AUDIT_INTENT_MISSING")
    row = AuditEventRow(
        id=new_id(),
        at=now,
        kind="OUTCOME",
        operation=intent.operation,
        principal_id=intent.principal_id,
        issuer=intent.issuer,
        subject=intent.subject,
        resource_type=intent.resource_type,
        resource_id=intent.resource_id,
        intent_id=intent_id,
        outcome=outcome,
        context=intent.context,
        # What the intent named as concerned stands on its outcome too, so that a filter by entity finds both.
        details=_clean({k: v for k, v in intent.details.items() if k == "entity_types"} | dict(details)),
    )
    session.add(row)
    return row.id


def record_change(
    session: Session,
    caller: Caller,
    operation: str,
    resource_type: str,
    resource_id: uuid.UUID | str,
    now: datetime,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write a change that is done in this very transaction: its intent and that it was carried out."""
    intent_id = record_intent(session, caller, operation, resource_type, resource_id, details or {}, now)
    record_outcome(session, intent_id, "COMPLETED", {}, now)


def record_access(
    session: Session,
    caller: Caller,
    operation: str,
    resource_type: str,
    resource_id: uuid.UUID | str,
    details: Mapping[str, Any],
    now: datetime,
) -> uuid.UUID:
    """Write that something was shown or handed out: a read, a download, an upload's stream."""
    row = _row(caller, "ACCESS", operation, resource_type, resource_id, details, now)
    row.outcome = str(details.get("outcome", "COMPLETED"))
    session.add(row)
    return row.id


def record_denied(
    session: Session,
    caller: Caller | None,
    operation: str,
    reason: str,
    context: CallContext,
    details: Mapping[str, Any],
    now: datetime,
) -> uuid.UUID:
    """Write that a call was refused. `caller` is None for one that could not be believed."""
    row = AuditEventRow(
        id=new_id(),
        at=now,
        kind="DENIED",
        operation=operation,
        principal_id=caller.principal_id if caller else None,
        issuer=caller.issuer if caller else "",
        subject=caller.subject if caller else "",
        outcome=reason,
        context=context.as_record(),
        details=_clean(details),
    )
    session.add(row)
    return row.id


def _row(
    caller: Caller,
    kind: str,
    operation: str,
    resource_type: str,
    resource_id: uuid.UUID | str,
    details: Mapping[str, Any],
    now: datetime,
) -> AuditEventRow:
    return AuditEventRow(
        id=new_id(),
        at=now,
        kind=kind,
        operation=operation,
        principal_id=caller.principal_id,
        issuer=caller.issuer,
        subject=caller.subject,
        resource_type=resource_type,
        resource_id=str(resource_id),
        context=caller.context.as_record(),
        details=_clean(details),
    )


def _clean(details: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): _value(value) for name, value in details.items()}


def _value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes):
        return value.hex()[:MAX_TEXT]
    if isinstance(value, list | tuple | set | frozenset):
        return [_value(item) for item in value]
    if isinstance(value, Mapping):
        return _clean(value)
    return str(value)[:MAX_TEXT]
