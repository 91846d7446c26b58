"""Giving and taking roles. Each change writes its intent and its outcome in the transaction that makes it."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from engine.access.caller import Caller
from engine.access.idempotency import once
from engine.access.roles import SUPER_ADMIN
from engine.access.service import ensure_principal
from engine.audit import record_intent, record_outcome
from engine.db.models import GrantRow, RoleRow
from engine.errors import FailedPrecondition, InvalidRequest, NotFound
from engine.ids import new_id
from engine.paging import Page, Paging, by_name, newest_first

CHANGE = "access.write"


def list_roles(session: Session, paging: Paging) -> Page[RoleRow]:
    """Roles by name."""
    return by_name(list(session.scalars(select(RoleRow))), paging, lambda role: role.name)


def list_grants(
    session: Session, paging: Paging, *, role: str = "", principal_id: uuid.UUID | None = None
) -> Page[GrantRow]:
    """Grants, newest first; ended ones are among them until they are revoked or given again."""
    wanted = select(GrantRow)
    if role:
        wanted = wanted.where(GrantRow.role == role)
    if principal_id:
        wanted = wanted.where(GrantRow.principal_id == principal_id)
    return newest_first(session, wanted, paging, GrantRow.granted_at, GrantRow.id)


def grant_role(
    session: Session,
    caller: Caller,
    *,
    issuer: str,
    subject: str,
    kind: str,
    role: str,
    expires_at: datetime | None,
    request_id: str,
    body_sha256: bytes,
    now: datetime,
) -> GrantRow:
    """Give `role` to a principal, made when we never saw it. One that is there is answered, with the end now asked for.

    Raises:
        NotFound: ROLE_UNKNOWN.
        InvalidRequest: GRANT_ENDED when it would have ended already.
        AlreadyExists: REQUEST_ID_REUSED.
    """
    caller.require(CHANGE)

    def make() -> uuid.UUID:
        if session.get(RoleRow, role) is None:
            raise NotFound(f"role: found none called {role[:63]!r}", reason="ROLE_UNKNOWN")
        if expires_at is not None and expires_at <= now:
            raise InvalidRequest("expires_at: expected a time to come", reason="GRANT_ENDED")
        if role == SUPER_ADMIN and expires_at is not None:
            _lock_super_admins(session)
        principal = ensure_principal(session, issuer, subject, kind, now)
        return _give(session, caller, principal.id, role, expires_at, f"{issuer} {subject}", now)

    grant_id, _ = once(session, caller, "/dataops.v1.AccessService/GrantRole", request_id, body_sha256, make, now)
    row = session.get(GrantRow, grant_id)
    if row is None:
        raise NotFound("grant: was revoked since this request gave it", reason="GRANT_UNKNOWN")
    return row


def revoke_role(session: Session, caller: Caller, grant_id: uuid.UUID, now: datetime) -> None:
    """Take a grant away; it ends for calls that begin from now on.

    Raises:
        NotFound: GRANT_UNKNOWN.
        FailedPrecondition: LAST_SUPER_ADMIN for the last grant of super_admin that does not end by itself.
    """
    caller.require(CHANGE)
    row = session.get(GrantRow, grant_id)
    if row is not None and row.role == SUPER_ADMIN:
        _lock_super_admins(session)
    row = session.get(GrantRow, grant_id, with_for_update=True, populate_existing=True)
    if row is None:
        raise NotFound("grant: found none of this id", reason="GRANT_UNKNOWN")
    if row.role == SUPER_ADMIN and row.expires_at is None:
        _keep_one(session, row)
    details = {"role": row.role, "principal": str(row.principal_id), "change": "revoke"}
    intent = record_intent(session, caller, CHANGE, "grants", row.id, details, now)
    session.delete(row)
    record_outcome(session, intent, "COMPLETED", {}, now)


def _give(
    session: Session,
    caller: Caller,
    principal_id: uuid.UUID,
    role: str,
    expires_at: datetime | None,
    name: str,
    now: datetime,
) -> uuid.UUID:
    found = select(GrantRow).where(GrantRow.principal_id == principal_id, GrantRow.role == role).with_for_update()
    row = session.scalars(found).one_or_none()
    if row is not None and row.expires_at == expires_at:
        return row.id
    if row is None:
        row = GrantRow(id=new_id(), principal_id=principal_id, role=role, granted_by=caller.principal_id)
        row.granted_at = now
        session.add(row)
    elif role == SUPER_ADMIN and row.expires_at is None:
        _keep_one(session, row)  # an end put to the last one would take it away just as well
    row.expires_at = expires_at
    until = expires_at.isoformat() if expires_at else None
    details = {"role": role, "granted_to": name, "until": until, "change": "grant"}
    intent = record_intent(session, caller, CHANGE, "grants", row.id, details, now)
    record_outcome(session, intent, "COMPLETED", {}, now)
    return row.id


def _lock_super_admins(session: Session) -> None:
    """Two revocations at once would each see the other's grant as the one that stays: they take turns."""
    session.execute(select(RoleRow.name).where(RoleRow.name == SUPER_ADMIN).with_for_update())


def _keep_one(session: Session, row: GrantRow) -> None:
    others = select(func.count()).select_from(GrantRow)
    others = others.where(GrantRow.role == SUPER_ADMIN, GrantRow.expires_at.is_(None), GrantRow.id != row.id)
    if not session.scalar(others):
        raise FailedPrecondition(
            "super_admin: the last grant stays, give the role to another first", reason="LAST_SUPER_ADMIN"
        )
