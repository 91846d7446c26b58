"""Audit events on the wire.

Rows know four kinds, the contract two phases: ACCESS and DENIED rows are outcomes without an intent.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dataops.v1 import audit_pb2

from engine.access.caller import SYSTEM_ID, SYSTEM_ISSUER
from engine.audit import EventFilter
from engine.db.models import AuditEventRow
from engine.errors import InvalidRequest
from engine.ids import parse_id
from server.convert.common import call_context, moment, texts, timestamp, word_of

_ENDED: dict[str, Any] = {
    "COMPLETED": audit_pb2.AUDIT_OUTCOME_SUCCEEDED,
    "FAILED": audit_pb2.AUDIT_OUTCOME_FAILED,
    "CANCELLED": audit_pb2.AUDIT_OUTCOME_CANCELLED,
}
_WORDS: dict[int, str] = {number: word for word, number in _ENDED.items()} | {audit_pb2.AUDIT_OUTCOME_DENIED: "DENIED"}

_OWN_FIELDS = frozenset({"entity_types", "reason"})


def event_to_pb(row: AuditEventRow) -> audit_pb2.AuditEvent:
    denied = row.kind == "DENIED"
    itself = (row.principal_id, row.issuer) == (SYSTEM_ID, SYSTEM_ISSUER)
    who = SimpleNamespace(issuer=row.issuer, subject=row.subject, kind="SYSTEM" if itself else "")
    return audit_pb2.AuditEvent(
        event_id=str(row.id),
        time=timestamp(row.at),
        phase=audit_pb2.AUDIT_PHASE_INTENT if row.kind == "INTENT" else audit_pb2.AUDIT_PHASE_OUTCOME,
        outcome=audit_pb2.AUDIT_OUTCOME_DENIED if denied else _ENDED.get(row.outcome, 0),
        operation=row.operation,
        rpc=row.context.get("rpc", ""),
        context=call_context(row.principal_id, row.context, who),
        resource=f"{row.resource_type}/{row.resource_id}" if row.resource_id else row.resource_type,
        entity_types=row.details.get("entity_types") or (),
        error_reason=row.outcome if denied else str(row.details.get("reason") or ""),
        facts=texts({name: value for name, value in row.details.items() if name not in _OWN_FIELDS}),
        intent_event_id=str(row.intent_id) if row.intent_id else "",
    )


def filter_from_pb(request: audit_pb2.ListAuditEventsRequest) -> EventFilter:
    """What the request asks for.

    Raises:
        InvalidRequest: INVALID_ID, or INVALID_REQUEST for an outcome that no event ends with.
    """
    unknown = [number for number in request.outcomes if number not in _WORDS]
    if unknown:
        word = word_of(audit_pb2.AuditOutcome, unknown[0]) or "UNSPECIFIED"
        raise InvalidRequest(f"outcomes: expected how an event ended, found {word}", reason="INVALID_REQUEST")
    resource_type, _, resource_id = request.resource.partition("/")
    return EventFilter(
        principal_id=parse_id(request.principal_id, "principal_id") if request.principal_id else None,
        operation=request.operation,
        resource_type=resource_type,
        resource_id=resource_id,
        entity_type=request.entity_type,
        outcomes=tuple(_WORDS[number] for number in request.outcomes),
        start=moment(request.time, "start"),
        end=moment(request.time, "end"),
    )
