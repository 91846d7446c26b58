"""The audit log: complete, filtered, and never changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from engine.access import CallContext, Caller, resolve_caller
from engine.audit import EventFilter, list_events, record_access, record_denied, record_intent, record_outcome
from engine.clock import utc_now
from engine.db.database import Database
from engine.errors import InternalError
from engine.ids import new_id
from engine.paging import Paging

NOW = utc_now()


@pytest.fixture
def db(control_dsn: str) -> Iterator[Database]:
    opened = Database(control_dsn)
    yield opened
    opened.close()


@pytest.fixture
def caller(db: Database) -> Caller:
    context = CallContext(peer="127.0.0.1:5", client="test/1", request_id="r", reason="why", rpc="/x")
    with db.transaction() as session:
        return resolve_caller(session, "iss", "sam", "USER", "", context, NOW)


def _list(db: Database, **wanted: object) -> list[tuple[str, str, str]]:
    with db.transaction() as session:
        rows = list_events(session, EventFilter(**wanted), Paging()).items  # type: ignore[arg-type]
    return [(row.kind, row.operation, row.outcome) for row in rows]


def test_an_outcome_tells_of_its_intents_caller_resource_and_entities(db: Database, caller: Caller) -> None:
    details = {"entity_types": ["users"], "digest": b"\x01\x02", "long": "x" * 10_000}
    with db.transaction() as session:
        intent = record_intent(session, caller, "imports.apply", "imports", new_id(), details, NOW)
        record_outcome(session, intent, "FAILED", {"reason": "MOVED", "rows": 3}, NOW)
    with db.transaction() as session:
        outcome, first = list_events(session, EventFilter(entity_type="users"), Paging()).items
    assert first.details == {"entity_types": ["users"], "digest": "0102", "long": "x" * 500}
    assert outcome.details == {"entity_types": ["users"], "reason": "MOVED", "rows": 3}
    assert (outcome.principal_id, outcome.resource_id, outcome.context) == (
        caller.principal_id,
        first.resource_id,
        caller.context.as_record(),
    )
    assert outcome.intent_id == first.id


def test_an_outcome_without_an_intent_is_a_defect(db: Database) -> None:
    with db.transaction() as session, pytest.raises(InternalError, match="AUDIT_INTENT_MISSING"):
        record_outcome(session, new_id(), "COMPLETED", {}, NOW)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE dataops.audit_events SET outcome = 'COMPLETED'",
        "DELETE FROM dataops.audit_events",
        "TRUNCATE dataops.audit_events",
    ],
)
def test_no_row_is_changed_or_removed_even_by_the_owner(db: Database, caller: Caller, statement: str) -> None:
    with db.transaction() as session:
        record_access(session, caller, "access.read", "access", "", {}, NOW)
    with pytest.raises(ProgrammingError, match="append-only"), db.transaction() as session:
        session.execute(text(statement))
    assert len(_list(db)) == 1


def test_events_are_found_by_who_what_how_and_when(db: Database, caller: Caller) -> None:
    later = NOW + timedelta(days=366)
    with db.transaction() as session:
        record_access(session, caller, "exports.download", "exports", "1", {}, NOW)
        record_denied(session, None, "imports.apply", "TOKEN_EXPIRED", CallContext(), {}, NOW)
        record_denied(session, caller, "imports.apply", "PERMISSION_MISSING", caller.context, {}, later)
    read = ("ACCESS", "exports.download", "COMPLETED")
    unknown = ("DENIED", "imports.apply", "TOKEN_EXPIRED")
    denied = ("DENIED", "imports.apply", "PERMISSION_MISSING")
    assert _list(db) == [denied, unknown, read]
    assert _list(db, principal_id=caller.principal_id) == [denied, read]
    assert _list(db, operation="imports.apply") == [denied, unknown]
    assert _list(db, outcomes=("DENIED",)) == [denied, unknown]
    assert _list(db, outcomes=("COMPLETED", "DENIED")) == [denied, unknown, read]
    assert _list(db, resource_type="exports", resource_id="1") == [read]
    assert _list(db, start=later) == [denied]
    assert _list(db, end=later) == [unknown, read]
