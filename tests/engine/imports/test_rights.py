"""Who may see and do what with an import: asked of every entity written or shown, at the call and at the effect."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from sqlalchemy import text

from engine.db.models import RoleRow
from engine.errors import Aborted, NotFound, PermissionDenied
from engine.imports.model import ChangeKind, FieldMapping, ReportPart
from engine.paging import Paging
from server.convert.plans import plan_summary, report

PAY = (
    "CREATE TABLE public.a (id int PRIMARY KEY, v text UNIQUE, password_hash text DEFAULT '!');"
    "INSERT INTO public.a (id, v) VALUES (1, 'x'), (2, 'y');"
    "CREATE TABLE public.payroll (id int PRIMARY KEY, a int REFERENCES public.a ON DELETE CASCADE, salary int);"
    "INSERT INTO public.payroll VALUES (1, 2, 123456)"
)


@pytest.fixture
def pay(made):
    return made(PAY)


def may(world, *permissions):
    """A caller with these permissions alone."""
    return replace(world.caller, roles=("some",), permissions=permissions)


def test_rows_that_foreign_keys_change_are_shown_only_to_who_may_see_their_entity(pay):
    row = pay.plan("a", b"id,v\n1,x\n", import_type="REPLACE", max_deletes=5, allow_cascade=["payroll"])
    assert row.status == "AWAITING_APPROVAL", row.error
    reader = may(pay, "imports.read:a")

    assert pay.imports.get(reader, row.id).id == row.id
    for look in (
        lambda: pay.imports.changes(reader, row.id, Paging()),
        lambda: pay.imports.report_part(reader, row.id, ReportPart.CHANGES),
    ):
        with pytest.raises(PermissionDenied) as caught:
            look()
        assert caught.value.metadata["entity"] == "payroll"
    shown, _ = pay.imports.changes(may(pay, "imports.read:*"), row.id, Paging(), [ChangeKind.CASCADE])
    assert [f.old for _, change in shown for f in change.fields] == ["1", "2", "123456"]


def test_an_entity_that_foreign_keys_would_change_asks_for_its_own_right(pay):
    pay.caller = may(pay, "imports.*:a", "uploads.*")
    with pytest.raises(PermissionDenied) as caught:
        pay.plan("a", b"id,v\n1,x\n", import_type="REPLACE", max_deletes=5, allow_cascade=["payroll"])
    assert caught.value.metadata["entity"] == "payroll"


def test_a_plan_that_sets_secrets_is_applied_only_by_who_may_set_them(pay):
    row = pay.plan("a", b"id,v,password_hash\n3,z,hash\n")
    pay.caller = may(pay, "imports.*:a")

    with pytest.raises(PermissionDenied) as caught:
        pay.apply(row)
    assert caught.value.metadata["operation"] == "secrets.set"


def test_a_lookup_asks_for_the_right_to_see_where_it_looks(pay):
    mapping = (FieldMapping("a", "who", lookup="v"),)
    with pay.resources.db.transaction() as session:
        session.add(
            RoleRow(name="payer", permissions=["imports.*:payroll", "uploads.*"], updated_at=pay.resources.clock())
        )
    pay.caller = pay.caller_with("payer", "somebody")
    row = pay.plan("payroll", b"id,who\n5,x\n", mapping=mapping)

    assert pay.reason(row) == "PERMISSION_MISSING"
    assert row.error["metadata"] == {"operation": "imports.read", "entity": "a"}
    assert pay.plan("payroll", b"id,a\n5,1\n").status == "AWAITING_APPROVAL"


def test_what_was_secret_when_it_was_planned_stays_masked_when_the_table_has_changed(pay):
    row = pay.plan("a", b"id,v,password_hash\n3,z,hunter2\n")
    pay.sql("ALTER TABLE public.a DROP COLUMN password_hash; ALTER TABLE public.a ADD COLUMN extra text")
    pay.resources.catalogs.forget()

    ((_, change),), _ = pay.imports.changes(pay.caller, row.id, Paging())
    fields = {f.field: f for f in change.fields}
    assert (fields["password_hash"].masked, fields["password_hash"].new) == (True, "***")
    assert "hunter2" not in str(change)


def test_no_value_of_a_plan_stands_in_the_index_of_its_parts(pay):
    row = pay.plan("a", b"id,v\n77001,needle\n")
    with pay.resources.db.transaction() as session:
        query = text("SELECT string_agg(index::text, ' ') FROM dataops.artifact_parts WHERE artifact_id = :id")
        held = session.execute(query, {"id": row.plan_artifact_id}).scalar_one()
    assert "77001" not in held
    assert "needle" not in held


def test_an_import_of_the_release_before_is_nobody_elses_to_read_and_can_be_shown(pay):
    row = pay.plan("a", b"id,v\n3,z\n")
    old = {"counts": {"total": 1, "insert": 1, "skip": 0, "failed": 0, "blank": 0}, "rows_before": 2, "notices": [],
           "lock": {"mode": "ROW EXCLUSIVE", "seconds": 0.1}, "planned_at": "2026-11-01T00:00:00+00:00",
           "server_assigned": ["x"], "mapped": {}}  # fmt: skip
    columns = (
        "import_type, entity_type, status, upload_id, options, principal_id, context, plan_artifact_id, plan_digest"
    )
    with pay.resources.db.transaction() as session:
        session.execute(
            text(
                f"INSERT INTO dataops.imports (id, {columns}, plan_summary, total_records, successful_records,"
                f" failed_records, created_at, updated_at) SELECT gen_random_uuid(), {columns}, CAST(:old AS jsonb),"
                " 1, 0, 0, created_at, updated_at FROM dataops.imports"
            ),
            {"old": json.dumps(old)},
        )
    page = pay.imports.list(pay.caller, Paging())
    (before,) = (i for i in page.items if i.id != row.id)

    assert before.entity_types == ["a"]
    shown = plan_summary(before)
    assert shown is not None
    assert (shown.counts.inserts, shown.entities[0].entity, list(shown.server_assigned_fields)) == (1, "a", ["a.x"])
    before.report = {"total_records": 1, "inserted": 1, "notices": []}
    done = report(before)
    assert done is not None
    assert done.entities[0].inserted == 1
    with pytest.raises(NotFound):
        pay.imports.get(may(pay, "imports.read:payroll"), before.id)
    assert not pay.imports.list(may(pay, "imports.read:payroll"), Paging()).items


def test_a_plan_of_another_release_is_stale(pay, monkeypatch):
    row = pay.plan("a", b"id,v\n3,z\n")
    monkeypatch.setattr("engine.imports.planfile.FORMAT", 1)
    with pytest.raises(Aborted) as caught:
        pay.imports.changes(pay.caller, row.id, Paging())
    assert caught.value.reason == "PLAN_STALE"
