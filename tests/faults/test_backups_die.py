"""Backups whose worker ends in the middle: one backup in the end, whole, and nothing left beside it."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.backups.model import BackupRequest, BackupType
from engine.backups.service import Backups
from engine.backups.sweep import BackupSweeper
from engine.db.models import BackupRow
from tests.engine.backups.bench import records
from tests.engine.jobs.kit import wait_until
from tests.faults.test_imports_die import FILE, ROWS, finish, left_over, rows, take_over
from tests.fix_workers import Start
from tests.world import World

POINTS = ["backups.written", "backups.published", "jobs.before_end"]


@pytest.fixture
def things(made: Callable[..., World]) -> World:
    return made(
        "CREATE TABLE public.things (id int PRIMARY KEY, note text);"
        "INSERT INTO public.things SELECT -n, 'there' FROM generate_series(1, 1000) n",
        heartbeat_seconds=0.3,
        fault_hooks=True,
    )


def begin(world: World) -> BackupRow:
    return Backups(world.resources).create(world.caller, BackupRequest(("things",)), *world.request())


def artifacts(world: World) -> set[str]:
    """Of backups, those of which there are objects."""
    root = Path(world.resources.settings.artifacts)
    return {
        path.name
        for kind in ("segments", "keys", "manifests")
        for path in root.glob(f"{kind}/*")
        if any(path.iterdir())
    }


def assert_the_one(world: World, backup_id: uuid.UUID) -> None:
    row = Backups(world.resources).get(world.caller, backup_id)
    assert (row.status, row.entities[0]["rows"]) == ("COMPLETED", 1000)
    archive = Backups(world.resources).archive(row)
    archive.require_present()
    assert b"".join(archive.rows(archive.manifest.entities[0])).count(b"\n") == 1000
    assert artifacts(world) == {archive.manifest.artifact_id.hex}


@pytest.mark.parametrize("point", POINTS)
def test_killed_in_mid_increment_the_next_attempt_makes_it(point: str, things: World, start_worker: Start) -> None:
    full = begin(things)
    things.work()
    things.sql("UPDATE public.things SET note = 'since' WHERE id > -10")
    worker = start_worker(things.resources.settings, kill=point)
    request = BackupRequest(("things",), backup_type=BackupType.INCREMENTAL)
    row = Backups(things.resources).create(things.caller, request, *things.request())
    assert worker.wait() == -signal.SIGKILL

    take_over(things, row.job_id)

    row = Backups(things.resources).get(things.caller, row.id)
    assert (row.status, row.backup_type, row.parent_id) == ("COMPLETED", "INCREMENTAL", full.id)
    archive = Backups(things.resources).archive(row)
    archive.require_present()
    assert b"".join(archive.rows(archive.manifest.entities[0])).count(b"\tsince\n") == 9
    assert artifacts(things) == {link.manifest.artifact_id.hex for link in archive.chain}


@pytest.mark.parametrize("point", POINTS)
def test_killed_in_mid_backup_the_next_attempt_makes_the_one(point: str, things: World, start_worker: Start) -> None:
    worker = start_worker(things.resources.settings, kill=point)
    row = begin(things)
    assert worker.wait() == -signal.SIGKILL
    published = len(list(things.resources.repository.artifact_ids()))
    assert published == (point != "backups.written")

    take_over(things, row.job_id)

    assert_the_one(things, row.id)
    before = artifacts(things)
    BackupSweeper(things.resources).sweep(things.resources.clock())
    assert artifacts(things) == before
    Backups(things.resources).delete(things.caller, row.id)
    BackupSweeper(things.resources).sweep(things.resources.clock())
    assert artifacts(things) == set()


@pytest.mark.parametrize("point", POINTS)
def test_killed_and_never_tried_again_the_sweep_takes_what_is_left(
    point: str, things: World, start_worker: Start
) -> None:
    worker = start_worker(things.resources.settings, kill=point)
    row = begin(things)
    assert worker.wait() == -signal.SIGKILL
    assert artifacts(things) != set()
    assert row.job_id is not None
    things.sql("SELECT 1")
    with things.resources.db.transaction() as session:
        job = things.job(row.job_id)
        job.state, job.lease_owner, job.lease_expires_at = "FAILED", None, None
        session.merge(job)

    BackupSweeper(things.resources).sweep(things.resources.clock())

    assert Backups(things.resources).get(things.caller, row.id).status == "FAILED"
    assert artifacts(things) == set()


def test_sigterm_gives_the_backup_back_and_another_worker_makes_it(things: World, start_worker: Start) -> None:
    worker = start_worker(things.resources.settings, "backups.written")
    row = begin(things)
    worker.wait_at("backups.written")

    worker.signal(signal.SIGTERM)
    worker.wait_interrupted()
    worker.open_gate("backups.written")

    assert worker.wait() == 0, worker.log.read_text()
    job = things.job(row.job_id)
    assert (job.state, job.attempt) == ("PENDING", 0)
    finish(things, row.job_id)
    assert_the_one(things, row.id)


def test_cancel_in_mid_backup_leaves_nothing(things: World, start_worker: Start) -> None:
    worker = start_worker(things.resources.settings, "backups.written")
    row = begin(things)
    worker.wait_at("backups.written")
    assert row.job_id is not None
    from engine.jobs.service import cancel_job

    with things.resources.db.transaction() as session:
        cancel_job(session, row.job_id, things.resources.clock())
    worker.wait_interrupted()  # before it may go on
    worker.open_gate("backups.written")

    backups = Backups(things.resources)
    wait_until(lambda: backups.get(things.caller, row.id).status == "CANCELLED", 50, worker.log.read_text)
    BackupSweeper(things.resources).sweep(things.resources.clock())
    assert artifacts(things) == set()


def test_a_paused_worker_that_wakes_after_the_take_over_leaves_no_second_backup(
    things: World, start_worker: Start
) -> None:
    worker = start_worker(things.resources.settings, "backups.written")
    row = begin(things)
    worker.wait_at("backups.written")
    worker.signal(signal.SIGSTOP)
    take_over(things, row.job_id)
    assert_the_one(things, row.id)
    worker.open_gate("backups.written")

    worker.signal(signal.SIGCONT)
    wait_until(
        lambda: "job_left_to_another" in worker.log.read_text() or worker.poll() is not None, 60, worker.log.read_text
    )

    assert_the_one(things, row.id)


@pytest.mark.parametrize("point", ["backups.written", "backups.published", "effect.after_commit"])
def test_killed_in_or_behind_the_backup_before_an_import_there_is_one_effect_and_one_backup_of_before(
    point: str, things: World, start_worker: Start
) -> None:
    planned = things.plan("things", FILE)
    worker = start_worker(things.resources.settings, kill=point)
    row = things.apply(planned, work=False)
    assert worker.wait() == -signal.SIGKILL

    take_over(things, row.apply_job_id)

    row = things.imports.get(things.caller, row.id)
    assert (row.status, rows(things)) == ("COMPLETED", 1000 + ROWS - 1)
    assert row.pre_import_backup_id is not None
    BackupSweeper(things.resources).sweep(things.resources.clock())
    assert_the_one(things, row.pre_import_backup_id)
    ended = ["FAILED", "COMPLETED"] if point.startswith("backups") else ["COMPLETED"]
    assert [backup.status for backup in records(things)] == ended
    assert left_over(things) == (0, 0)
