"""Another person's approval of a restore: neither who asked nor who confirmed, in the plan's time, by who still may."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import delete, select

from engine.db.models import AuditEventRow, GrantRow, RestoreRow
from engine.errors import FailedPrecondition, PermissionDenied
from engine.restores.service import Restores
from tests.engine.restores.kit import back_up, confirm, get, plan


@pytest.fixture
def waiting(fresh, monkeypatch):
    """A restore that root asked for and anne confirmed."""
    world = fresh("CREATE TABLE public.t (id int PRIMARY KEY); INSERT INTO public.t VALUES (1)")
    monkeypatch.setitem(vars(world.resources.settings), "restore_needs_approval", True)
    backup = back_up(world)
    world.sql("DELETE FROM public.t")
    row, root = plan(world, backup), world.caller
    world.caller = world.caller_with("super_admin", "anne")
    confirm(world, row)
    world.caller = root
    return world, get(world, row.id)


def approve(world, row, subject="eve"):
    return Restores(world.resources).approve(world.caller_with("super_admin", subject), row.id, row.plan_digest)


def test_neither_who_asked_nor_who_confirmed_approves_and_who_does_stands_in_the_audit_log(waiting):
    world, row = waiting
    for subject in ("root", "anne"):
        with pytest.raises(PermissionDenied, match="APPROVAL_BY_ANOTHER"):
            approve(world, row, subject)
    assert world.work() == 0

    approve(world, row)
    approve(world, row)
    world.work()
    assert get(world, row.id).status == "COMPLETED"
    with world.resources.db.transaction() as session:
        found = select(AuditEventRow.operation, AuditEventRow.subject, AuditEventRow.kind).where(
            AuditEventRow.resource_id == str(row.id), AuditEventRow.operation != "restores.create"
        )
        written = sorted(tuple(r) for r in session.execute(found))
    assert written == [
        ("restores.approve", "eve", "INTENT"),
        ("restores.approve", "eve", "OUTCOME"),
        ("restores.confirm", "anne", "INTENT"),  # that was recorded when it was confirmed
        ("restores.confirm", "anne", "INTENT"),
        ("restores.confirm", "anne", "OUTCOME"),
        ("restores.confirm", "anne", "OUTCOME"),
    ]


def test_what_nobody_approves_in_time_expires(waiting):
    world, row = waiting
    with world.resources.db.transaction() as session:
        session.get_one(RestoreRow, row.id).plan_expires_at -= timedelta(minutes=16)
    with pytest.raises(FailedPrecondition, match="PLAN_EXPIRED"):
        approve(world, row)
    assert Restores(world.resources).expire(world.resources.clock()) == 1

    assert get(world, row.id).status == "EXPIRED"
    with pytest.raises(FailedPrecondition, match="RESTORE_STATE"):
        approve(world, row)


def test_who_may_no_longer_approve_has_not(waiting):
    world, row = waiting
    approved = approve(world, row)
    with world.resources.db.transaction() as session:
        session.execute(delete(GrantRow).where(GrantRow.principal_id == approved.approved_by))
    world.work()

    done = get(world, row.id)
    assert (done.status, world.reason(done)) == ("FAILED", "PERMISSION_MISSING")
    assert world.sql("SELECT count(*) FROM public.t") == [(0,)]
