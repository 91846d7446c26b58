"""Another person's approval of a plan that deletes many rows: of this plan, in its time, by who still may."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import delete, select

from engine.db.models import AuditEventRow, GrantRow, ImportRow, RoleRow
from engine.errors import Aborted, FailedPrecondition, PermissionDenied

TABLES = (
    "CREATE TABLE public.people (id int PRIMARY KEY, name text);"
    "INSERT INTO public.people SELECT g, 'p' || g FROM generate_series(1, 10) g;"
    "CREATE TABLE public.notes (id int PRIMARY KEY, person int REFERENCES public.people ON DELETE CASCADE);"
    "INSERT INTO public.notes VALUES (1, 8), (2, 9)"
)
EIGHT = b"id,name\n" + b"".join(b"%d,p%d\n" % (n, n) for n in range(1, 9))
"""Deletes two people, and one note by the foreign key."""


@pytest.fixture
def world(fresh, monkeypatch):
    made = fresh(TABLES)
    monkeypatch.setitem(vars(made.resources.settings), "approval_deletes", 2)
    monkeypatch.setattr(made, "caller", made.caller)
    return made


def plan(world, data=EIGHT, **options):
    options = {"import_type": "REPLACE", "allow_cascade": ["notes"], "max_deletes": 9} | options
    row = world.plan("people", data, **options)
    assert row.status == "AWAITING_APPROVAL", row.error
    return row


def approve(world, row, who="super_admin", subject="eve", digest=None):
    return world.imports.approve(world.caller_with(who, subject), row.id, digest or row.plan_digest)


def people(world):
    return world.sql("SELECT count(*) FROM public.people")[0][0]


def test_deletes_and_what_goes_with_them_wait_for_another_person(world):
    row = plan(world)
    assert (row.approval_needed, row.approved_by) == (True, None)

    with pytest.raises(FailedPrecondition, match="APPROVAL_NEEDED"):
        world.apply(row)
    with pytest.raises(PermissionDenied, match="APPROVAL_BY_ANOTHER"):
        world.imports.approve(world.caller, row.id, row.plan_digest)
    assert world.work() == 0

    approved = approve(world, row)
    again = approve(world, row, subject="olga")
    assert (approved.approved_by, approved.approved_digest) == (again.approved_by, row.plan_digest)
    done = world.apply(row)
    assert done.status == "COMPLETED", done.error
    assert (people(world), done.approved_by) == (8, approved.approved_by)
    assert approve(world, row).status == "COMPLETED"


def test_as_many_as_are_let_pass_need_nobody_and_cannot_be_approved(world):
    row = plan(world, EIGHT + b"9,p9\n")
    assert row.approval_needed is False

    with pytest.raises(FailedPrecondition, match="APPROVAL_NOT_NEEDED"):
        approve(world, row)
    assert world.apply(row).status == "COMPLETED"


def test_without_the_setting_nobody_is_asked_for(fresh):
    world = fresh(TABLES)
    assert world.apply(plan(world)).status == "COMPLETED"


def test_the_approval_has_its_own_row_in_the_audit_log(world):
    row = plan(world)
    approver = world.caller_with("super_admin", "eve")
    world.imports.approve(approver, row.id, row.plan_digest)
    world.imports.approve(approver, row.id, row.plan_digest)

    with world.resources.db.transaction() as session:
        written = session.scalars(select(AuditEventRow).where(AuditEventRow.resource_id == str(row.id))).all()
    approvals = sorted((r.kind, r.subject) for r in written if r.operation == "imports.approve")
    assert approvals == [("INTENT", "eve"), ("OUTCOME", "eve")]


def test_who_asked_for_it_is_never_told_that_it_is_approved(world):
    row = plan(world)
    approve(world, row)
    with pytest.raises(PermissionDenied, match="APPROVAL_BY_ANOTHER"):
        world.imports.approve(world.caller, row.id, row.plan_digest)
    world.apply(row, deletes=(row.plan_summary or {})["counts"]["delete"])
    third = world.caller_with("super_admin", "third")
    with pytest.raises(FailedPrecondition, match="IMPORT_STATE"):
        world.imports.approve(third, row.id, row.plan_digest)


def test_it_is_not_applied_by_who_approved_it(world):
    row = plan(world)
    approve(world, row)
    world.caller = world.caller_with("super_admin", "eve")
    with pytest.raises(PermissionDenied, match="APPROVAL_BY_ANOTHER"):
        world.apply(row)

    world.caller = world.caller_with("admin", "anne")
    assert world.apply(row).status == "COMPLETED"


def test_an_approval_is_of_the_plan_that_was_looked_at_and_ends_with_it(world):
    row = plan(world)
    with pytest.raises(Aborted, match="PLAN_DIGEST_MISMATCH"):
        approve(world, row, digest=bytes(32))
    approve(world, row)
    with world.resources.db.transaction() as session:
        session.get_one(ImportRow, row.id).approved_digest = bytes(32)  # of the plan before
    with pytest.raises(FailedPrecondition, match="APPROVAL_NEEDED"):
        world.apply(row)
    _expire(world, row)
    with pytest.raises(FailedPrecondition, match="PLAN_EXPIRED"):
        approve(world, row)
    assert world.imports.expire(world.resources.clock()) == 1
    with pytest.raises(FailedPrecondition, match="IMPORT_STATE"):
        approve(world, row)


def test_a_plan_that_is_over_by_its_turn_is_not_applied(world):
    row = plan(world)
    approve(world, row)
    world.apply(row, work=False)
    _expire(world, row)
    world.work()

    row = world.imports.get(world.caller, row.id)
    assert (row.status, world.reason(row), people(world)) == ("FAILED", "PLAN_EXPIRED", 10)


def test_who_approves_needs_the_right_on_every_entity_in_this_mode_still_at_the_effect(world):
    row, now = plan(world), world.resources.clock()
    with world.resources.db.transaction() as session:
        for name, permissions in {
            "few": ["imports.approve:people"],
            "other": ["imports.approve:*:UPSERT"],
            "enough": ["imports.approve:people:REPLACE", "imports.approve:notes"],
        }.items():
            session.add(RoleRow(name=name, permissions=permissions, updated_at=now))
    for role in ("few", "other"):
        with pytest.raises(PermissionDenied, match="PERMISSION_MISSING"):
            approve(world, row, role, role)
    approved = approve(world, row, "enough", "olga")
    world.apply(row, work=False)
    with world.resources.db.transaction() as session:
        session.execute(delete(GrantRow).where(GrantRow.principal_id == approved.approved_by))
    world.work()

    row = world.imports.get(world.caller, row.id)
    assert (row.status, world.reason(row), people(world)) == ("FAILED", "PERMISSION_MISSING", 10)


def test_what_is_to_be_applied_by_itself_stops_and_a_new_plan_needs_a_new_approval(world):
    row = plan(world, auto_apply=True, on_drift="REPLAN")
    approved = approve(world, row)
    world.sql("UPDATE public.people SET name = 'moved' WHERE id = 10")
    again = world.apply(row)

    assert (again.status, again.approved_by, again.approved_digest) == ("AWAITING_APPROVAL", None, None)
    assert (again.approval_needed, people(world)) == (True, 10)
    assert again.plan_digest != approved.plan_digest
    with pytest.raises(FailedPrecondition, match="APPROVAL_NEEDED"):
        world.apply(again)
    approve(world, again)
    assert world.apply(again).status == "COMPLETED"


def test_a_plan_of_the_release_before_is_judged_when_it_is_applied(world):
    row = plan(world)
    with world.resources.db.transaction() as session:
        session.get_one(ImportRow, row.id).approval_needed = None

    with pytest.raises(FailedPrecondition, match="APPROVAL_NEEDED"):
        world.apply(row)
    approve(world, row)
    assert world.apply(row).status == "COMPLETED"


def _expire(world, row):
    with world.resources.db.transaction() as session:
        session.get_one(ImportRow, row.id).plan_expires_at -= timedelta(days=2)
