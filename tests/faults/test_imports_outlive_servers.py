"""PostgreSQL restarted and Redis emptied under real imports and exports: one effect, a true record, nothing left."""

from __future__ import annotations

import base64
import itertools
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from engine.config import Settings
from engine.db import migrate
from engine.db.models import AuditEventRow, ImportRow, JobEventRow
from engine.jobs.model import FINISHED
from engine.resources import open_resources
from examples.stack.servers import PostgresServer, ValkeyServer
from tests.engine.jobs.kit import wait_until
from tests.faults.test_imports_die import FILE, ROWS, left_over, rows
from tests.fix_workers import Start, WorkerProcess
from tests.world import World

SCHEMA = "CREATE TABLE public.things (id int PRIMARY KEY, note text)"
THERE = b"id,note\n100000,there\n"
OTHER = b"id,note\n200000,waits\n200001,too\n"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """A server that nobody else minds being restarted."""
    with PostgresServer() as server:
        migrate.upgrade(server.create_database("template_control"))
        yield server


@pytest.fixture
def restartable(own_postgres: PostgresServer, tmp_path: Path) -> Iterator[World]:
    number = next(_numbers)
    settings = Settings(
        control_dsn=own_postgres.create_database(f"control_{number}", "template_control"),
        platform_dsn=own_postgres.create_database(f"platform_{number}"),
        artifacts=str(tmp_path / "artifacts"),
        keys="test " + base64.b64encode(bytes(range(32))).decode(),
        heartbeat_seconds=0.3,
        look_seconds=0.2,
        fault_hooks=True,
    )
    resources = open_resources(settings, name="tests", pool_size=5)
    world = World(resources)
    world.sql(SCHEMA)
    yield world
    resources.close()


class Work:
    """One job stopped at a point in its middle; a plan, an apply and an export that wait behind it."""

    def __init__(self, world: World, start_worker: Start, point: str) -> None:
        self.world, self.point = world, point
        world.load("things", THERE)
        planned = world.plan("things", FILE)
        waits = world.plan("things", OTHER)
        self.worker: WorkerProcess = start_worker(world.resources.settings, point)
        self.running = self._begin(planned)
        self.worker.wait_at(point)
        self.waiting = [
            world.apply(waits, work=False).apply_job_id,
            world.create("things", b"id,note\n300000,planned only\n").plan_job_id,
            world.begin_export("things").job_id,
        ]
        assert {world.job(job_id).state for job_id in self.waiting} == {"PENDING"}

    @property
    def applies(self) -> bool:
        """Whether the job that is met in its middle has an effect in the platform database."""
        return self.point.startswith(("imports.apply", "effect"))

    def _begin(self, planned: ImportRow) -> uuid.UUID | None:
        if self.applies:
            return self.world.apply(planned, work=False).apply_job_id
        if self.point.startswith("exports"):
            return self.world.begin_export("things").job_id
        return self.world.create("things", FILE).plan_job_id

    def finish(self) -> None:
        """Let it go on, until every job has ended and the worker has stopped in good order."""
        self.worker.open_gate(self.point)
        jobs = [self.running, *self.waiting]
        wait_until(
            lambda: all(self.world.job(job_id).state in FINISHED for job_id in jobs),
            100,
            lambda: self.worker.log.read_text()[-4000:],
        )
        self.worker.signal(signal.SIGTERM)
        assert self.worker.wait() == 0, self.worker.log.read_text()

    def assert_true(self) -> None:
        """Each effect once, each record as the effect, nothing left over."""
        for job_id in (self.running, *self.waiting):
            job = self.world.job(job_id)
            assert (job.state, job.error) == ("COMPLETED", None)
            assert outcomes(self.world, job.intent_id) == ["COMPLETED"]
            self._assert_resource(job_id)
        assert rows(self.world) == 1 + 2 + (ROWS - 1 if self.applies else 0)
        marks = self.world.sql("SELECT state, count(*) FROM dataops_work.applied GROUP BY 1")
        assert dict(marks) == {"DONE": 3 if self.applies else 2}
        assert left_over(self.world) == (0, 0)

    def _assert_resource(self, job_id: uuid.UUID | None) -> None:
        world, job = self.world, self.world.job(job_id)
        if job.kind == "EXPORT":
            row = world.exports.get(world.caller, job.resource_id)
            data = world.read(world.exports.download(world.caller, row.id).artifact_id)
            assert (row.status, row.record_count) == ("COMPLETED", data.count(b"\n") - 1)
        elif job.kind == "IMPORT_APPLY":
            done = world.imports.get(world.caller, job.resource_id)
            want = ROWS - 1 if job_id == self.running else 2
            assert (done.status, done.report and done.report["inserted"]) == ("COMPLETED", want)
        else:
            assert world.imports.get(world.caller, job.resource_id).status == "AWAITING_APPROVAL"


def outcomes(world: World, intent_id: uuid.UUID | None) -> list[str]:
    found = select(AuditEventRow.outcome).where(AuditEventRow.intent_id == intent_id, AuditEventRow.kind == "OUTCOME")
    with world.resources.db.transaction() as session:
        return list(session.scalars(found))


def met(world: World, job_id: uuid.UUID | None) -> list[str]:
    """The reasons for which attempts of the job ended early."""
    found = select(JobEventRow.payload).where(JobEventRow.job_id == job_id, JobEventRow.kind == "STATE")
    with world.resources.db.transaction() as session:
        payloads = session.scalars(found.order_by(JobEventRow.sequence)).all()
    return [payload["error"]["reason"] for payload in payloads if payload.get("error")]


@pytest.mark.parametrize(
    ("point", "lost"),
    [
        ("imports.plan.staged", ["DATABASE_LOST"]),
        ("imports.apply.written", ["DATABASE_LOST"]),
        ("effect.after_commit", []),  # nothing is done anew: only the record is missing
        ("exports.written", ["DATABASE_LOST"]),
    ],
)
def test_postgres_restarted_in_the_middle_with_others_waiting(
    point: str, lost: list[str], restartable: World, own_postgres: PostgresServer, start_worker: Start
) -> None:
    work = Work(restartable, start_worker, point)
    before = rows(restartable)

    own_postgres.restart()
    assert rows(restartable) == before, "what was in its middle is rolled back, what was committed stands"
    work.finish()

    work.assert_true()
    assert met(restartable, work.running) == lost
    assert all(met(restartable, job_id) == [] for job_id in work.waiting)


@pytest.mark.parametrize("point", ["imports.apply.written", "exports.written"])
def test_redis_emptied_with_one_running_and_others_waiting(
    point: str, made: Callable[..., World], valkey: ValkeyServer, start_worker: Start
) -> None:
    world = made(SCHEMA, heartbeat_seconds=0.3, look_seconds=0.2, fault_hooks=True, redis_url=valkey.url)
    work = Work(world, start_worker, point)

    valkey.flush()
    work.finish()

    work.assert_true()
    assert [world.job(job_id).attempt for job_id in (work.running, *work.waiting)] == [1, 1, 1, 1]


def test_redis_emptied_before_anybody_heard_the_rings(
    made: Callable[..., World], valkey: ValkeyServer, start_worker: Start
) -> None:
    world = made(SCHEMA, heartbeat_seconds=0.3, look_seconds=0.2, redis_url=valkey.url)
    planned = world.plan("things", FILE)
    worker = start_worker(world.resources.settings)
    worker.wait_ready()
    worker.signal(signal.SIGSTOP)
    jobs = [world.apply(planned, work=False).apply_job_id, world.begin_export("things").job_id]

    valkey.flush()
    worker.signal(signal.SIGCONT)
    wait_until(lambda: all(world.job(job_id).state in FINISHED for job_id in jobs), 60, worker.log.read_text)

    for job_id in jobs:
        job = world.job(job_id)
        assert (job.state, job.attempt, outcomes(world, job.intent_id)) == ("COMPLETED", 1, ["COMPLETED"])
    assert rows(world) == ROWS - 1
    assert left_over(world) == (0, 0)
