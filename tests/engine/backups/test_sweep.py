"""Sweeping backups: what came to nothing goes, what is recorded or in use stays, whatever storage has lost."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from engine.backups.model import BackupRequest, Trigger
from engine.backups.record import new_backup
from engine.backups.service import Backups, remove
from engine.backups.sweep import BackupSweeper, SweepResult
from engine.db.models import BackupRow, JobRow
from engine.errors import Unavailable
from engine.storage.memory import MemoryStorage
from tests.engine.backups.bench import RING, Diary, Later, folders, names, records
from tests.world import World

THINGS = "CREATE TABLE public.things (id int PRIMARY KEY); INSERT INTO public.things VALUES (1)"
DAY = timedelta(days=1)


class Bench:
    """A world whose storage keeps a diary and a clock that can be moved."""

    def __init__(self, world: World) -> None:
        self.world, self.resources = world, world.resources
        self.clock = Later()
        self.storage = Diary(MemoryStorage(self.clock))
        self.resources.repository.__init__(self.storage, RING)  # type: ignore[misc]
        self.backups = Backups(self.resources)
        self.sweeper = BackupSweeper(self.resources)

    def backup(self) -> BackupRow:
        row = self.backups.create(self.world.caller, BackupRequest(("things",)), *self.world.request())
        self.world.work()
        return self.row(row.id)

    def before_import(self) -> BackupRow:
        imported = self.world.load("things", b"id\n%d\n" % (2 + len(records(self.world))))
        assert imported.pre_import_backup_id is not None
        return self.row(imported.pre_import_backup_id)

    def row(self, backup_id: uuid.UUID) -> BackupRow:
        return self.backups.get(self.world.caller, backup_id)

    def change(self, row: BackupRow, **values: Any) -> None:
        with self.resources.db.transaction() as session:
            found = session.get(BackupRow, row.id)
            for name, value in values.items():
                setattr(found, name, value)

    def sweep(self) -> SweepResult:
        return self.sweeper.sweep(self.clock())

    def stored(self) -> set[str]:
        return {name.split("/")[1] for name in folders(self.storage)}


@pytest.fixture
def bench(made: Callable[..., World]) -> Bench:
    return Bench(made(THINGS))


def test_an_idle_sweep_takes_nothing(bench: Bench) -> None:
    row, safety = bench.backup(), bench.before_import()
    before = names(bench.storage)

    assert bench.sweep() == SweepResult()
    assert names(bench.storage) == before
    assert (bench.row(row.id).status, bench.row(safety.id).status) == ("COMPLETED", "COMPLETED")


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "COMPLETED"])
def test_a_record_whose_job_has_ended_without_it_is_failed_and_its_objects_go(state: str, bench: Bench) -> None:
    row = bench.backup()
    with bench.resources.db.transaction() as session:
        job = session.get(JobRow, row.job_id)
        assert job is not None
        job.state = state
    bench.change(row, status="PENDING", manifest_sha256=None)

    assert bench.sweep() == SweepResult(lost=1, removed=1)
    found = bench.row(row.id)
    assert (found.status, (found.error or {})["reason"], found.artifact_id) == ("FAILED", "BACKUP_INCOMPLETE", None)
    assert names(bench.storage) == []
    assert bench.sweep() == SweepResult()


def test_a_backup_that_is_being_made_is_left_alone(bench: Bench) -> None:
    row = bench.backups.create(bench.world.caller, BackupRequest(("things",)), *bench.world.request())
    artifact_id = uuid.uuid4()
    bench.change(row, artifact_id=artifact_id)
    bench.storage.put(f"segments/{artifact_id.hex}/{'0' * 32}", b"x")
    bench.clock.ahead = 3 * DAY

    assert bench.sweep() == SweepResult()
    assert bench.row(row.id).status == "PENDING"
    assert len(names(bench.storage)) == 1


@pytest.mark.parametrize("status", ["FAILED", "CANCELLED", "EXPIRED", "DELETED"])
def test_what_ended_without_use_goes(status: str, bench: Bench) -> None:
    going, staying = bench.backup(), bench.backup()
    bench.change(going, status=status)

    assert bench.sweep() == SweepResult(removed=1)
    assert (bench.row(going.id).status, bench.row(going.id).artifact_id) == (status, None)
    assert bench.stored() == {staying.artifact_id.hex}  # type: ignore[union-attr]


def test_deleting_takes_one_object_and_leaves_the_rest_to_the_sweep(bench: Bench) -> None:
    row = bench.backup()
    before, deleted = names(bench.storage), []
    bench.storage.before = lambda act, name: deleted.append(name) if act == "delete" else None

    assert bench.backups.delete(bench.world.caller, row.id).status == "DELETED"

    assert [name.split("/")[0::2] for name in deleted] == [["manifests", "0"]]
    assert names(bench.storage) == [name for name in before if name not in deleted]
    assert list(bench.resources.repository.artifact_ids()) == []
    assert bench.sweep() == SweepResult(removed=1)
    assert (names(bench.storage), bench.row(row.id).artifact_id) == ([], None)


def test_a_backup_that_could_not_be_deleted_is_deleted_by_asking_again(bench: Bench) -> None:
    row = bench.backup()

    def refuse(act: str, _name: str) -> None:
        if act == "delete":
            raise Unavailable("read-only", reason="STORAGE_FAILED")

    bench.storage.before = refuse
    with pytest.raises(Unavailable):
        bench.backups.delete(bench.world.caller, row.id)
    bench.storage.before = lambda _act, _name: None

    assert bench.backups.delete(bench.world.caller, row.id).status == "DELETED"
    assert list(bench.resources.repository.artifact_ids()) == []


def test_a_recorded_backup_that_lost_its_manifest_keeps_its_segments(bench: Bench) -> None:
    row = bench.backup()
    assert row.artifact_id is not None
    (manifest,) = names(bench.storage, "manifests/")
    lost = bench.storage.get(manifest)
    bench.storage.delete(manifest)
    bench.clock.ahead = 400 * DAY

    assert bench.sweep() == SweepResult()
    bench.storage.put(manifest, lost)
    bench.backups.archive(row).require_present()


def test_what_no_record_knows_goes_after_a_day_unless_it_has_a_manifest(bench: Bench) -> None:
    row = bench.backup()
    unrecorded = bench.backup()
    with bench.resources.db.transaction() as session:
        session.delete(session.get(BackupRow, unrecorded.id))
    dead = uuid.uuid4()
    bench.storage.put(f"segments/{dead.hex}/{'0' * 32}", b"x")
    bench.storage.put(f"keys/{dead.hex}/00000001", b"x")
    bench.clock.ahead = timedelta(hours=23)
    assert bench.sweep() == SweepResult()
    bench.clock.ahead = timedelta(hours=25)

    assert bench.sweep() == SweepResult(orphans=1)
    assert bench.stored() == {row.artifact_id.hex, unrecorded.artifact_id.hex}  # type: ignore[union-attr]


def test_a_sweep_that_dies_anywhere_is_ended_by_the_next(bench: Bench) -> None:
    row = bench.backup()
    bench.change(row, status="FAILED")
    count = len(names(bench.storage))
    for left in range(count):
        deletes = iter(range(100))

        def die(act: str, _name: str, deletes: Any = deletes) -> None:
            if act == "delete" and next(deletes) == 1:
                raise Unavailable("gone", reason="STORAGE_FAILED")

        bench.storage.before = die
        if len(names(bench.storage)) > 1:
            with pytest.raises(Unavailable):
                bench.sweep()
            assert list(bench.resources.repository.artifact_ids()) == []
            assert bench.row(row.id).artifact_id == row.artifact_id, "its rest must be found again"
        assert left < count
    bench.storage.before = lambda _act, _name: None

    assert bench.sweep() == SweepResult(removed=1)
    assert (names(bench.storage), bench.row(row.id).artifact_id) == ([], None)


def test_one_that_cannot_be_deleted_keeps_no_other_from_its_turn(bench: Bench) -> None:
    rows = [bench.backup() for _ in range(3)]
    for row in rows:
        bench.change(row, status="FAILED")
    stuck = rows[0].artifact_id
    assert stuck is not None

    def refuse(act: str, name: str) -> None:
        if act == "delete" and stuck.hex in name:
            raise Unavailable("read-only", reason="STORAGE_FAILED")

    bench.storage.before = refuse
    with pytest.raises(Unavailable):
        bench.sweep()
    assert bench.stored() == {stuck.hex}


def test_two_sweeps_at_once_are_harmless(bench: Bench) -> None:
    kept = bench.backup()
    for _ in range(4):
        bench.change(bench.backup(), status="FAILED")
    bench.change(bench.before_import(), status="EXPIRED")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: BackupSweeper(bench.resources).sweep(bench.clock()), range(3)))

    assert bench.stored() == {kept.artifact_id.hex}  # type: ignore[union-attr]
    assert sorted(row.status for row in records(bench.world)) == ["COMPLETED", "EXPIRED", *["FAILED"] * 4]


def test_a_retry_between_the_look_and_the_deletion_loses_nothing(bench: Bench) -> None:
    """The sweep has seen a failed record; its job is put back to PENDING before the bytes are touched."""
    row = bench.backup()
    bench.change(row, status="PENDING", manifest_sha256=None)

    remove(bench.resources, row.id)

    assert bench.stored() == {row.artifact_id.hex}  # type: ignore[union-attr]


def test_a_record_without_a_job_is_nobodys_and_ends(bench: Bench) -> None:
    with bench.resources.db.transaction() as session:
        row = new_backup(bench.world.caller, Trigger.MANUAL, ["things"], "", bench.clock())
        session.add(row)

    assert bench.sweep() == SweepResult(lost=1)
