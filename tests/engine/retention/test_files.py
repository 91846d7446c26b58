"""Uploads, exports, plans, reports, losses, comparisons: each at its time; and what is shown before is what happens."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from engine.access import Caller
from engine.db.models import ArtifactRow, BackupRow, ExportRow, GrantRow, ImportRow, RoleRow, UploadRow
from engine.errors import NotFound, PermissionDenied
from engine.ids import new_id
from engine.paging import Paging
from engine.restores.model import RestoreRequest
from engine.restores.service import Restores
from engine.retention.service import Swept
from tests.engine.retention.kit import DAY, Bench
from tests.world import World

THINGS = """
CREATE TABLE public.things (id int PRIMARY KEY CHECK (id <> 666));
INSERT INTO public.things VALUES (1)
"""
HOUR = timedelta(hours=1)


@pytest.fixture
def bench(made: Callable[..., World]) -> Bench:
    return Bench(made(THINGS), retention_floor=1)


def kinds_of(bench: Bench, owner_id: uuid.UUID) -> list[str]:
    """The files that can be opened."""
    with bench.resources.db.transaction() as session:
        wanted = select(ArtifactRow.kind).filter_by(owner_id=owner_id).where(ArtifactRow.state != "DELETING")
        return sorted(session.scalars(wanted))


def caller_with(bench: Bench, *permissions: str) -> Caller:
    """Somebody who may only this."""
    name, now = f"role-{uuid.uuid4()}", bench.clock()
    caller = bench.world.caller_with("admin", name)
    with bench.resources.db.transaction() as session:
        session.add(RoleRow(name=name, permissions=list(permissions), updated_at=now))
        session.flush()
        session.query(GrantRow).filter_by(principal_id=caller.principal_id).delete()
        session.add(GrantRow(id=new_id(), principal_id=caller.principal_id, role=name, granted_at=now))
    return Caller(caller.principal_id, "tests", name, "USER", (name,), permissions, caller.context)


def test_the_preview_is_what_the_sweep_does(bench: Bench) -> None:
    """Everything there is, of each some that go and some that stay."""
    world = bench.world
    base, last = bench.chain(of=2)
    backups = [base, last, bench.backup(), bench.backup()]
    bench.change(backups[2], held=True)
    exports = [world.export("things")[0], world.export("things")[0]]
    uploads = [world.upload(b"id\n9\n"), world.upload(b"id\n9\n")]
    waiting, applied = world.plan("things", b"id\n5\n"), world.load("things", b"id\n6\nx\n", error_budget=1)
    comparison = bench.backups.diff(world.caller, base, (), *world.request())
    restore = Restores(bench.resources).create(world.caller, RestoreRequest(base), *world.request())
    world.work()
    Restores(bench.resources).cancel(world.caller, restore.id)
    with bench.resources.db.transaction() as session:
        session.get_one(ExportRow, exports[1].id).expires_at = bench.clock() + 300 * DAY
        session.get_one(UploadRow, uploads[1]).expires_at = bench.clock() + 300 * DAY
    bench.clock.ahead = 100 * DAY

    owners = {"restores": restore.id, "backup_diffs": comparison}

    models: tuple[Any, ...] = (BackupRow, ExportRow, ImportRow, UploadRow)

    def state() -> dict[str, Any]:
        found: dict[str, Any] = {f"{kind}/{owner}": kinds_of(bench, owner) for kind, owner in owners.items()}
        with bench.resources.db.transaction() as session:
            for model in models:
                for row in session.scalars(select(model)):
                    status = getattr(row, "state" if model is UploadRow else "status")
                    found[f"{model.__tablename__}/{row.id}"] = [status, kinds_of(bench, row.id)]
        return found

    before, objects = state(), bench.stored()
    removals = bench.removals()
    page, freeable = bench.retention.preview(world.caller, Paging(1000, "", "t"))
    assert (state(), bench.stored()) == (before, objects), "looking removes nothing"
    bench.sweep()
    after = state()

    changed = {resource for resource, was in before.items() if after[resource] != was}
    assert changed == removals == set(bench.told())
    assert len(bench.told()) == len(removals)
    assert {
        f"exports/{exports[0].id}",
        f"uploads/{uploads[0]}",
        f"imports/{waiting.id}",
        f"imports/{applied.id}",
    } < changed
    assert {f"restores/{restore.id}", f"backup_diffs/{comparison}", f"backups/{base}", f"backups/{last}"} < changed
    assert not {f"exports/{exports[1].id}", f"uploads/{uploads[1]}", f"backups/{backups[2]}"} & changed
    assert {d.resource for d in page.items if d.remove} == removals
    assert freeable == sum(d.size for d in page.items if d.remove) > 0
    assert bench.removals() == {f"uploads/{waiting.upload_id}"}, "the file of the plan that has just ended"
    assert (bench.sweep(), bench.removals()) == (Swept(uploads=1), set())


def test_a_plan_that_nobody_applied_goes_after_a_day_with_all_its_files(bench: Bench) -> None:
    row = bench.world.plan("things", b"id\n5\nx\n", error_budget=1)
    resource = f"imports/{row.id}"
    bench.clock.ahead = 23 * HOUR
    assert (bench.preview()[resource], bench.sweep().imports) == ("NOT_EXPIRED", 0)
    assert kinds_of(bench, row.id) == ["PLAN", "REJECTS"]
    bench.clock.ahead = 25 * HOUR

    assert bench.preview()[resource] == "EXPIRED"
    assert bench.sweep().imports == 1
    assert (bench.world.imports.get(bench.world.caller, row.id).status, kinds_of(bench, row.id)) == ("EXPIRED", [])
    (told,) = (event for event in bench.audited() if event.resource_type == "imports")
    assert (told.resource_id, told.details["files"]) == (str(row.id), ["PLAN", "REJECTS"])
    assert told.details["size_bytes"] > 0


def test_the_plan_of_an_import_that_stands_is_its_way_back_and_stays_as_long(bench: Bench) -> None:
    row = bench.world.load("things", b"id\n5\n")
    bench.clock.ahead = 29 * DAY
    bench.sweep()
    assert kinds_of(bench, row.id) == ["PLAN", "REPORT"]
    bench.clock.ahead = 31 * DAY

    assert bench.sweep().files == 1
    assert kinds_of(bench, row.id) == []
    with pytest.raises(NotFound, match="ARTIFACT_GONE"):
        bench.world.imports.changes(bench.world.caller, row.id, Paging(10, "", "t"))


def test_the_plan_of_an_apply_that_came_to_nothing_goes_after_seven_days(bench: Bench) -> None:
    row = bench.world.plan("things", b"id\n5\n")
    bench.world.sql("INSERT INTO public.things VALUES (5)")
    row = bench.world.apply(row)
    assert row.status in ("FAILED", "ROLLED_BACK"), row.status
    bench.clock.ahead = 6 * DAY
    assert bench.sweep().files == 0
    bench.clock.ahead = 8 * DAY

    assert bench.removals() >= {f"imports/{row.id}"}
    assert bench.sweep().files == 1
    assert kinds_of(bench, row.id) == []


def test_a_file_that_work_needs_stays_past_its_time(bench: Bench) -> None:
    row = bench.world.plan("things", b"id\n5\n")
    bench.world.apply(row, work=False)
    upload = bench.world.imports.get(bench.world.caller, row.id).upload_id
    bench.clock.ahead = 100 * DAY

    assert [bench.preview()[r] for r in (f"imports/{row.id}", f"uploads/{upload}")] == ["IN_USE", "IN_USE"]
    bench.sweep()
    assert kinds_of(bench, row.id) == ["PLAN"]


def test_what_has_piled_up_goes_in_one_sweep_whatever_is_done_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.retention.record.AT_ONCE", 2)
    for number in range(5):
        bench.world.upload(b"id\n%d\n" % number)
    bench.clock.ahead = 100 * DAY

    assert (bench.sweep(), bench.sweep()) == (Swept(uploads=5), Swept())
    assert len(bench.told()) == 5


def test_who_may_not_list_a_thing_does_not_see_it_here(bench: Bench) -> None:
    backup, export = bench.backup(), bench.world.export("things")[0]
    bench.world.upload(b"id\n9\n")
    everything = {f"backups/{backup}", f"exports/{export.id}"}

    def seen(caller: Caller) -> set[str]:
        return {d.resource for d in bench.retention.preview(caller, Paging(0, "", "t"))[0].items}

    assert seen(bench.world.caller) > everything
    assert seen(caller_with(bench, "schedules.read")) == set()
    assert seen(caller_with(bench, "schedules.read", "exports.read:others", "backups.read:things")) == {
        f"backups/{backup}"
    }
    with pytest.raises(PermissionDenied):
        seen(caller_with(bench, "backups.read"))


def test_one_step_that_fails_keeps_no_other_from_its_turn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    export = bench.world.export("things")[0]
    bench.clock.ahead = 100 * DAY

    def fail(_now: object) -> int:
        raise RuntimeError("a defect")

    monkeypatch.setattr(bench.retention, "_expire_backups", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        bench.sweep()
    assert bench.world.exports.get(bench.world.caller, export.id).status == "EXPIRED"
