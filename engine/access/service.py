"""Looking callers up. Roles come from the grants kept here, never from a token, and are read at every call:
a grant or a revocation holds from the next call on, in every process.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from engine.access.caller import SYSTEM_CONTEXT, CallContext, Caller
from engine.access.roles import SUPER_ADMIN, seed_roles
from engine.audit import record_intent, record_outcome
from engine.db.models import GrantRow, PrincipalRow, RoleRow
from engine.errors import PermissionDenied
from engine.ids import new_id

SEEN_EVERY = timedelta(minutes=1)
"""`last_seen_at` moves at most this often: a write at every call would make each read a write."""


def resolve_caller(
    session: Session,
    issuer: str,
    subject: str,
    kind: str,
    display_name: str,
    context: CallContext,
    now: datetime,
) -> Caller:
    """The caller known to `issuer` as `subject`; one we never saw becomes a principal without a role."""
    row = find_principal(session, issuer, subject)
    if row is None:
        row = ensure_principal(session, issuer, subject, kind, now, display_name=display_name)
    if row.last_seen_at is None or now - row.last_seen_at > SEEN_EVERY:
        # By statement and without waiting for another call's same write: the value only says "about now".
        session.execute(
            update(PrincipalRow)
            .where(
                PrincipalRow.id.in_(
                    select(PrincipalRow.id).where(PrincipalRow.id == row.id).with_for_update(skip_locked=True)
                )
            )
            .values(last_seen_at=now)
            .execution_options(synchronize_session=False)
        )
    return _caller(session, row, context, now)


def caller_of(session: Session, principal_id: uuid.UUID, context: CallContext, now: datetime | None = None) -> Caller:
    """The principal with the roles it holds now: for the check at the moment of effect.

    Raises:
        PermissionDenied: PRINCIPAL_UNKNOWN.
    """
    row = session.get(PrincipalRow, principal_id)
    if row is None:
        raise PermissionDenied("the principal of this work is not known any more", reason="PRINCIPAL_UNKNOWN")
    return _caller(session, row, context, now)


def find_principal(session: Session, issuer: str, subject: str) -> PrincipalRow | None:
    """The principal that `issuer` calls `subject`, if we know it."""
    found = select(PrincipalRow).where(PrincipalRow.issuer == issuer, PrincipalRow.subject == subject)
    return session.scalars(found).one_or_none()


def ensure_principal(
    session: Session, issuer: str, subject: str, kind: str, now: datetime, *, display_name: str = ""
) -> PrincipalRow:
    """The principal, made when there is none; two callers may make it at once. A known one keeps its kind."""
    session.execute(
        insert(PrincipalRow)
        .values(id=new_id(), issuer=issuer, subject=subject, kind=kind, display_name=display_name, created_at=now)
        .on_conflict_do_nothing(index_elements=["issuer", "subject"])
    )
    row = find_principal(session, issuer, subject)
    assert row is not None, "a principal is never deleted"
    return row


def bootstrap(session: Session, issuer: str, subjects: Iterable[str], now: datetime) -> list[str]:
    """Write the built-in roles and make `subjects` super_admin; the subjects that were not before, in order.

    Called at every start: what is there already stays, and a subject taken out of the setting keeps its grant.
    """
    seed_roles(session, now)
    made = []
    for subject in filter(None, (s.strip() for s in subjects)):
        principal = ensure_principal(session, issuer, subject, "USER", now)
        inserted = session.execute(
            insert(GrantRow)
            .values(id=new_id(), principal_id=principal.id, role=SUPER_ADMIN, granted_by=None, granted_at=now)
            .on_conflict_do_nothing(index_elements=["principal_id", "role"])
            .returning(GrantRow.id)
        ).scalar_one_or_none()
        if inserted is None:
            continue
        made.append(subject)
        system = Caller(principal.id, issuer, subject, "USER", (), (), SYSTEM_CONTEXT)
        details = {"role": SUPER_ADMIN, "granted_to": f"{issuer} {subject}", "by": "configuration"}
        intent = record_intent(session, system, "access.write", "grants", inserted, details, now)
        record_outcome(session, intent, "COMPLETED", {}, now)
    return made


def _caller(session: Session, row: PrincipalRow, context: CallContext, now: datetime | None) -> Caller:
    held = select(RoleRow.name, RoleRow.permissions).join(GrantRow, GrantRow.role == RoleRow.name)
    held = held.where(GrantRow.principal_id == row.id).order_by(RoleRow.name)
    if now is not None:
        held = held.where(or_(GrantRow.expires_at.is_(None), GrantRow.expires_at > now))
    roles = session.execute(held).all()
    permissions = sorted({permission for role in roles for permission in role.permissions})
    return Caller(
        principal_id=row.id,
        issuer=row.issuer,
        subject=row.subject,
        kind=row.kind,
        roles=tuple(role.name for role in roles),
        permissions=tuple(permissions),
        context=context,
    )


def principals(session: Session, ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, PrincipalRow]:
    """The principals with these ids, for showing who did something; unknown ones are left out."""
    wanted = set(ids)
    if not wanted:
        return {}
    return {row.id: row for row in session.scalars(select(PrincipalRow).where(PrincipalRow.id.in_(wanted)))}
