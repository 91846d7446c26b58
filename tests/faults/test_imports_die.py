"""Imports and exports whose worker ends in the middle: one effect, a true record, nothing left over."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select, text

from engine.backups.sweep import BackupSweeper
from engine.db.models import ArtifactPartRow, ArtifactRow, BackupRow
from engine.jobs.registry import handlers
from engine.jobs.runner import Runner
from tests.engine.jobs.kit import wait_until
from tests.fix_workers import Start
from tests.world import World

ROWS = 3_000
FILE = b"id,note\n" + b"".join(b"%d,row %d\n" % (i, i) for i in range(1, ROWS)) + b"x,bad\n"


@pytest.fixture
def things(made: Callable[..., World]) -> World:
    return made("CREATE TABLE public.things (id int PRIMARY KEY, note text)", heartbeat_seconds=0.3, fault_hooks=True)


def take_over(world: World, job_id: uuid.UUID | None) -> None:
    """What another worker does once the lease has run out."""
    with world.resources.db.transaction() as session:
        session.execute(
            text("UPDATE dataops.jobs SET lease_expires_at = clock_timestamp() - interval '1 s' WHERE id = :id"),
            {"id": job_id},
        )
    finish(world, job_id)


def finish(world: World, job_id: uuid.UUID | None) -> None:
    runner = Runner(world.resources, handlers(), "survivor")

    def ended() -> bool:
        runner.run_next()
        return world.job(job_id).state in ("COMPLETED", "FAILED", "CANCELLED")

    wait_until(ended, 60, lambda: str(world.job(job_id).error))


def left_over(world: World) -> tuple[int, int]:
    """After the sweeps: artifacts that are still a job's, and objects that no row and no good backup names."""
    world.resources.artifacts.sweep()
    BackupSweeper(world.resources).sweep(world.resources.clock())
    with world.resources.db.transaction() as session:
        owned = session.scalars(select(ArtifactRow).where(ArtifactRow.owner_type == "job")).all()
        named = set(session.scalars(select(ArtifactPartRow.name)))
        good = session.scalars(select(BackupRow.artifact_id).where(BackupRow.status == "COMPLETED"))
        backed = [artifact_id.hex for artifact_id in good if artifact_id is not None]
    files = (p for p in Path(world.resources.settings.artifacts).rglob("*") if p.is_file())
    stored = {p.name for p in files if p.parent.name not in backed}
    return len(owned), len([name for name in stored if not any(name in known for known in named)])


def rows(world: World) -> int:
    return int(world.sql("SELECT count(*) FROM public.things")[0][0])


@pytest.mark.parametrize("point", ["imports.plan.staged", "imports.plan.written", "jobs.before_end"])
def test_killed_in_mid_plan_the_plan_is_made_again(point: str, things: World, start_worker: Start) -> None:
    worker = start_worker(things.resources.settings, kill=point)
    row = things.create("things", FILE)
    assert worker.wait() == -signal.SIGKILL

    take_over(things, row.plan_job_id)

    row = things.imports.get(things.caller, row.id)
    assert (row.status, row.plan_summary and row.plan_summary["counts"]["insert"]) == ("AWAITING_APPROVAL", ROWS - 1)
    assert things.apply(row).report == things.imports.get(things.caller, row.id).report
    assert rows(things) == ROWS - 1
    assert left_over(things) == (0, 0)


@pytest.mark.parametrize(
    ("point", "stands"),
    [
        ("imports.apply.loaded", False),
        ("imports.apply.written", False),
        ("effect.before_commit", False),
        ("effect.after_commit", True),
        ("jobs.before_end", True),
    ],
)
def test_killed_in_mid_apply_it_is_applied_once(point: str, stands: bool, things: World, start_worker: Start) -> None:
    row = things.plan("things", FILE)
    worker = start_worker(things.resources.settings, kill=point)
    row = things.apply(row, work=False)
    assert worker.wait() == -signal.SIGKILL
    assert rows(things) == (ROWS - 1 if stands else 0)

    take_over(things, row.apply_job_id)

    row = things.imports.get(things.caller, row.id)
    assert (row.status, row.report and row.report["inserted"], rows(things)) == ("COMPLETED", ROWS - 1, ROWS - 1)
    assert left_over(things) == (0, 0)


@pytest.mark.parametrize("point", ["imports.plan.staged", "imports.apply.written", "exports.written"])
def test_sigterm_gives_the_job_back_and_another_worker_ends_it(point: str, things: World, start_worker: Start) -> None:
    things.load("things", b"id,note\n100000,there\n")
    row = things.plan("things", FILE) if point == "imports.apply.written" else None
    worker = start_worker(things.resources.settings, point)
    if row is not None:
        job_id = things.apply(row, work=False).apply_job_id
    elif point == "exports.written":
        job_id = things.begin_export("things").job_id
    else:
        job_id = things.create("things", FILE).plan_job_id
    worker.wait_at(point)

    worker.signal(signal.SIGTERM)
    worker.wait_interrupted()  # what is past its last look at the signal may end its job, and would here
    worker.open_gate(point)

    assert worker.wait() == 0, worker.log.read_text()
    job = things.job(job_id)
    assert (job.state, job.attempt) == ("PENDING", 0)
    finish(things, job_id)
    assert things.job(job_id).state == "COMPLETED"
    assert rows(things) == (ROWS if row is not None else 1)
    assert left_over(things) == (0, 0)


def test_a_paused_worker_that_wakes_after_the_take_over_changes_nothing(things: World, start_worker: Start) -> None:
    row = things.plan("things", FILE)
    worker = start_worker(things.resources.settings, "imports.apply.written")
    row = things.apply(row, work=False)
    worker.wait_at("imports.apply.written")
    worker.signal(signal.SIGSTOP)
    take_over(things, row.apply_job_id)
    worker.open_gate("imports.apply.written")

    worker.signal(signal.SIGCONT)
    wait_until(
        lambda: "job_left_to_another" in worker.log.read_text() or worker.poll() is not None, 60, worker.log.read_text
    )

    row = things.imports.get(things.caller, row.id)
    assert (row.status, rows(things)) == ("COMPLETED", ROWS - 1)
    assert left_over(things) == (0, 0)


def test_cancel_in_mid_apply_leaves_nothing_half_applied(things: World, start_worker: Start) -> None:
    row = things.plan("things", FILE)
    worker = start_worker(things.resources.settings, "imports.apply.written")
    row = things.apply(row, work=False)
    worker.wait_at("imports.apply.written")
    things.imports.cancel(things.caller, row.id)
    worker.wait_interrupted()  # before it may go on
    worker.open_gate("imports.apply.written")

    wait_until(lambda: things.imports.get(things.caller, row.id).status == "CANCELLED", 50, worker.log.read_text)

    assert rows(things) == 0
    assert left_over(things) == (0, 0)


def test_an_export_killed_in_the_middle_is_made_again(things: World, start_worker: Start) -> None:
    things.load("things", FILE)
    worker = start_worker(things.resources.settings, kill="exports.written")
    row = things.begin_export("things")
    assert worker.wait() == -signal.SIGKILL

    take_over(things, row.job_id)

    row = things.exports.get(things.caller, row.id)
    assert (row.status, row.record_count) == ("COMPLETED", ROWS - 1)
    assert left_over(things) == (0, 0)
