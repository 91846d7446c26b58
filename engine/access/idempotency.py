"""Request ids: the same call made twice starts its work once."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from engine.access.caller import Caller
from engine.db.models import RequestIdRow
from engine.errors import AlreadyExists
from engine.ids import parse_id

KEPT_FOR = timedelta(days=2)
"""The contract promises 24 hours; a day more leaves room for clocks and for a sweeper that was away."""

_NOT_YET = uuid.UUID(int=0)


def once(
    session: Session,
    caller: Caller,
    rpc: str,
    request_id: str,
    body_sha256: bytes,
    make: Callable[[], uuid.UUID],
    now: datetime,
) -> tuple[uuid.UUID, bool]:
    """The id of what this request started, and whether it was started just now by `make`.

    The row goes in before the work: of two racing calls one inserts, the other waits for its commit and then finds
    it, or, when it was rolled back, starts the work itself. `make` runs at most once, in this transaction.

    Raises:
        AlreadyExists: REQUEST_ID_REUSED when the id has started something by another body.
        InvalidRequest: INVALID_ID.
    """
    key = {"principal_id": caller.principal_id, "rpc": rpc, "request_id": parse_id(request_id, "request_id")}
    inserted = session.execute(
        insert(RequestIdRow)
        .values(**key, body_sha256=body_sha256, resource_id=_NOT_YET, created_at=now)
        .on_conflict_do_nothing()
        .returning(RequestIdRow.request_id)
    ).scalar_one_or_none()
    if inserted is None:
        return _earlier(session, key, body_sha256), False
    resource_id = make()
    session.execute(
        update(RequestIdRow)
        .filter_by(**key)
        .values(resource_id=resource_id)
        .execution_options(synchronize_session=False)
    )
    return resource_id, True


def sweep_request_ids(session: Session, now: datetime) -> int:
    """Forget request ids older than KEPT_FOR; how many."""
    old = delete(RequestIdRow).where(RequestIdRow.created_at < now - KEPT_FOR).returning(RequestIdRow.request_id)
    return len(session.execute(old).all())


def _earlier(session: Session, key: dict[str, object], body_sha256: bytes) -> uuid.UUID:
    columns = select(RequestIdRow.body_sha256, RequestIdRow.resource_id).filter_by(**key)
    row = session.execute(columns).one()
    if bytes(row.body_sha256) != body_sha256:
        raise AlreadyExists(
            "request_id: has started something by another request body; expected a fresh id or the same body",
            reason="REQUEST_ID_REUSED",
            metadata={"request_id": str(key["request_id"])},
        )
    resource_id: uuid.UUID = row.resource_id
    return resource_id
