"""`dataops-admin repository adopt`: how a new control schema learns of the backups that there are."""

from __future__ import annotations

import stat
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import chain
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import select
from typer.testing import Result

from engine.access import Caller
from engine.admin import adopt as adopting
from engine.backups.repository import Repository
from engine.backups.service import Backups
from engine.backups.sweep import BackupSweeper
from engine.config import Settings
from engine.db import migrate
from engine.db.models import AuditEventRow, BackupRow, GrantRow, PrincipalRow, RoleRow
from engine.errors import NotFound
from engine.ids import new_id
from engine.resources import open_resources
from engine.schedules.model import ScheduleSpec
from engine.schedules.service import Schedules
from examples.stack.servers import PostgresServer
from tests.engine.admin.stores import THINGS, Store, run
from tests.engine.backups.bench import records
from tests.engine.retention.kit import retain
from tests.world import World


@pytest.fixture
def site(made: Callable[..., World], tmp_path: Path) -> Store:
    return Store(made(THINGS), tmp_path)


class Disaster:
    """The same storage and ring under a new control schema, as after the loss of the old one."""

    def __init__(self, site: Store, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
        migrate.upgrade(dsn)
        old = site.world.resources.settings
        settings = Settings(**old.model_dump(exclude_unset=True) | {"control_dsn": dsn})
        self.world = World(open_resources(settings, name="tests", pool_size=3))
        for name in ("control_dsn", "platform_dsn", "artifacts", "keys"):
            monkeypatch.setenv(f"DATAOPS_{name.upper()}", str(getattr(settings, name)))

    def adopt(self, *more: str) -> Result:
        return run("repository", "adopt", *more)

    def audits(self, operation: str) -> list[AuditEventRow]:
        with self.world.resources.db.transaction() as session:
            query = select(AuditEventRow).filter_by(operation=operation, kind="INTENT", issuer="dataops-admin")
            return list(session.scalars(query))


@pytest.fixture
def disaster(
    site: Store, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Disaster]]:
    name, opened = f"after_{uuid.uuid4().hex[:8]}", []

    def strike() -> Disaster:
        opened.append(Disaster(site, postgres.create_database(name), monkeypatch))
        return opened[-1]

    yield strike
    for one in opened:
        one.world.resources.close()
    postgres.drop_database(name)


def test_every_whole_backup_gets_its_record_again(site: Store, disaster: Callable[[], Disaster]) -> None:
    first, second = site.backup("things", name="the first"), site.backup()
    site.world.load("things", b"id,note\n5000,new\n")
    after = disaster()
    assert records(after.world) == []

    dry = after.adopt("--dry-run")
    assert (dry.exit_code, dry.stdout.count("would be adopted")) == (0, 3)
    assert records(after.world) == []
    assert after.adopt().stdout.count("adopted: ") == 3
    again = after.adopt()
    assert (again.exit_code, again.stdout.count("known: ")) == (0, 3)

    found = {row.id: row for row in records(after.world)}
    for before in records(site.world):
        row = found.pop(before.id)
        for name in ("status", "trigger_type", "name", "artifact_id", "manifest_sha256", "file_size_bytes"):
            assert getattr(row, name) == getattr(before, name), name
        for name in ("backup_type", "parent_id", "chain_id", "total_size_bytes"):
            assert getattr(row, name) == getattr(before, name), name
        for name in ("entities", "entity_types", "not_covered", "created_at", "snapshot_at", "principal_id"):
            assert getattr(row, name) == getattr(before, name), name
        Backups(after.world.resources).archive(row).require_present()
    assert found == {}
    assert [row.backup_type for row in records(after.world)] == ["FULL", "FULL", "INCREMENTAL"]
    assert {first.id, second.id} <= {uuid.UUID(event.resource_id) for event in after.audits("backups.create")}


def test_an_adopted_safety_backup_is_not_swept_for_its_age(site: Store, disaster: Callable[[], Disaster]) -> None:
    site.world.load("things", b"id,note\n5000,new\n")
    after = disaster()
    later = after.world.resources.clock() + timedelta(days=400)
    settings = after.world.resources.settings
    told = list(adopting.adopt(after.world.resources.db, after.world.resources.repository, settings, later))
    assert [one.outcome for one in told] == ["adopted"]

    retain(after.world, later + timedelta(days=29))
    assert [row.status for row in records(after.world)] == ["COMPLETED"]
    retain(after.world, later + timedelta(days=31))
    assert [row.status for row in records(after.world)] == ["EXPIRED"]


def test_a_new_control_schema_sweeps_no_backup_that_it_does_not_know(
    site: Store, disaster: Callable[[], Disaster]
) -> None:
    row = site.backup("things")
    after = disaster()
    BackupSweeper(after.world.resources).sweep(after.world.resources.clock() + timedelta(days=400))

    assert after.adopt().exit_code == 0
    Backups(after.world.resources).archive(records(after.world)[0]).require_present()
    assert records(after.world)[0].id == row.id


def test_damaged_ones_are_told_and_left(site: Store, disaster: Callable[[], Disaster]) -> None:
    good, missing, broken = site.backup("things"), site.backup("things"), site.backup("things")
    site.stored(missing, "segments").unlink()
    site.stored(broken, "keys").write_bytes(b"{}")
    before = sorted(str(path) for path in site.artifacts.rglob("*"))
    after = disaster()

    told = after.adopt()
    assert told.exit_code == 1
    assert told.stdout.count("left: ") == 2
    assert "BACKUP_INCOMPLETE" in told.stdout
    assert [row.id for row in records(after.world)] == [good.id]
    assert sorted(str(path) for path in site.artifacts.rglob("*")) == before


def test_a_recorded_backup_keeps_its_record_whatever_else_bears_its_id(
    site: Store, disaster: Callable[[], Disaster]
) -> None:
    row = site.backup("things")
    after = disaster()
    assert after.adopt().exit_code == 0
    with after.world.resources.db.transaction() as session:
        known = session.get(BackupRow, row.id)
        assert known is not None
        known.status, known.artifact_id = "DELETED", None

    told = after.adopt()
    assert (told.exit_code, "recorded as DELETED" in told.stdout) == (1, True)
    assert records(after.world)[0].status == "DELETED"


def test_two_adoptions_at_once_make_one_record_each(site: Store, disaster: Callable[[], Disaster]) -> None:
    for _ in range(5):
        site.backup("things")
    resources = disaster().world.resources

    def adopt(_: int) -> list[str]:
        told = adopting.adopt(resources.db, resources.repository, resources.settings, resources.clock())
        return [one.outcome for one in told]

    with ThreadPoolExecutor(3) as pool:
        outcomes = chain.from_iterable(pool.map(adopt, range(3)))

    assert sorted(outcomes) == ["adopted"] * 5 + ["known"] * 10


def lived(site: Store) -> tuple[Caller, Caller, uuid.UUID]:
    """Ann and bob, two roles of which bob had one until yesterday, and his schedule beside one that he deleted."""
    now = site.world.resources.clock()
    ann, bob = site.world.caller_with("admin", "ann"), site.world.caller_with("admin", "bob")
    with site.world.resources.db.transaction() as session:
        for name, permissions in (("loader", ["imports.*"]), ("reader", ["exports.*"])):
            session.add(RoleRow(name=name, description="d", permissions=permissions, built_in=False, updated_at=now))
        session.flush()
        for role, ends in (("loader", None), ("reader", now - timedelta(days=1))):
            session.add(
                GrantRow(
                    id=new_id(), principal_id=bob.principal_id, role=role, granted_by=ann.principal_id,
                    granted_at=now, expires_at=ends,
                )
            )  # fmt: skip
    schedules = Schedules(site.world.resources)
    nightly, gone = (
        schedules.create(bob, ScheduleSpec(name, "@daily", entity_types=("things",)), *site.world.request()).id
        for name in ("nightly", "gone")
    )
    schedules.delete(bob, gone)
    return ann, bob, nightly


def access_of(world: World) -> tuple[dict[str, list[str]], list[tuple[str, str, uuid.UUID | None]]]:
    """Permissions by role, but for the built-in ones; and the grants: to whom, which role, by whom."""
    with world.resources.db.transaction() as session:
        roles = {row.name: row.permissions for row in session.scalars(select(RoleRow).filter_by(built_in=False))}
        grants = session.execute(
            select(PrincipalRow.subject, GrantRow.role, GrantRow.granted_by).join(
                GrantRow, GrantRow.principal_id == PrincipalRow.id
            )
        ).all()
    return roles, [(subject, role, by) for subject, role, by in grants]


def test_settings_are_put_back_where_they_are_missing_and_nothing_is_overwritten(
    site: Store, disaster: Callable[[], Disaster]
) -> None:
    ann, bob, nightly = lived(site)
    held = site.backup("things", hold=True)
    carrier = site.backup("things")
    after = disaster()
    ann_now = after.world.caller_with("admin", "ann")
    with after.world.resources.db.transaction() as session:
        row = RoleRow(name="reader", description="", permissions=["none.at.all"], built_in=False)
        row.updated_at = after.world.resources.clock()
        session.add(row)
    assert ann_now.principal_id != ann.principal_id, "she has called before the settings came back"

    dry = after.adopt("--dry-run", "--settings", str(carrier.id))
    assert "would be put back" in dry.stdout
    assert after.audits("access.write") == []
    done = after.adopt("--settings", str(carrier.id))
    assert done.exit_code == 0, done.output
    put_back = [line.removeprefix("put back: ") for line in done.stdout.splitlines() if line.startswith("put back")]
    assert put_back == [
        "role loader",
        "principal tests bob",
        "grant of admin to tests bob",
        "grant of loader to tests bob",
        "schedule nightly, paused",
        f"hold on backup {held.id}",
    ]
    roles, grants = access_of(after.world)
    assert roles == {"loader": ["imports.*"], "reader": ["none.at.all"]}
    assert sorted((s, r) for s, r, _ in grants) == [
        ("ann", "admin"), ("bob", "admin"), ("bob", "loader"), ("root", "super_admin"),
    ]  # fmt: skip
    assert {by for s, r, by in grants if r == "loader"} == {ann_now.principal_id}
    assert [row.held for row in records(after.world) if row.id == held.id] == [True]
    counts = {name: len(after.audits(name)) for name in ("access.write", "backups.hold", "schedules.change")}
    assert counts == {"access.write": 3, "backups.hold": 1, "schedules.change": 1}

    schedules = Schedules(after.world.resources)
    back = schedules.get(after.world.caller, nightly)
    assert (back.paused, back.next_run_at, back.entity_types, back.cron) == (True, None, ["things"], "@daily")
    assert back.principal_id == bob.principal_id
    assert schedules.resume(after.world.caller, nightly).next_run_at is not None
    assert "put back" not in after.adopt("--settings", str(carrier.id)).stdout


def test_settings_of_a_backup_that_there_is_not_are_refused(site: Store, disaster: Callable[[], Disaster]) -> None:
    site.backup("things")
    after = disaster()

    assert str(after.adopt("--settings", str(uuid.uuid4())).exception).startswith("BACKUP_UNKNOWN")
    assert str(after.adopt("--settings", "x").exception).startswith("INVALID_ID")
    with pytest.raises(NotFound):
        adopting.archive_of(after.world.resources.repository, uuid.uuid4())
    assert isinstance(after.world.resources.repository, Repository)
    assert stat.S_ISDIR(site.artifacts.stat().st_mode)
    with psycopg.connect(after.world.resources.settings.control_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM dataops.backups").fetchone() == (1,)
