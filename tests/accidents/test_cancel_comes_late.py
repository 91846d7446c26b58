"""A cancel that is heard after minutes, or leaves half of a large import: it ends within seconds, and nothing
has changed.

Two seconds are promised; five times as long is waited, since the machine may be busy with other things.
"""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from engine.config import Settings
from engine.db.models import ImportRow
from engine.resources import open_resources
from examples.stack.servers import PostgresServer
from tests.engine.jobs.kit import wait_until
from tests.faults.test_imports_die import left_over
from tests.fix_workers import Start, WorkerProcess
from tests.world import World

pytestmark = pytest.mark.long

ROWS = 300_000
PROMISED = 2.0
PATIENCE = 5 * PROMISED

SCHEMA = (
    "CREATE TABLE public.things (id int PRIMARY KEY, code text UNIQUE, note text);"
    "CREATE INDEX ON public.things (note);"
    "CREATE TABLE public.parts (id int PRIMARY KEY, thing int REFERENCES public.things ON DELETE CASCADE);"
    f"INSERT INTO public.things SELECT n, 'c' || n, 'note ' || n FROM generate_series(1, {ROWS}) n;"
    "INSERT INTO public.parts SELECT n, n FROM generate_series(1, 100000) n"
)
# a third each of updates, new rows, and rows that REPLACE deletes
FILE = b"id,code,note\n" + b"".join(b"%d,d%d,new %d\n" % (n, n, n) for n in range(ROWS // 3, ROWS * 4 // 3))
OPTIONS: dict[str, dict[str, Any]] = {
    "UPSERT": {"import_type": "UPSERT"},
    "REPLACE": {"import_type": "REPLACE", "max_deletes": ROWS, "allow_cascade": ["parts"]},
}


@pytest.fixture(scope="module")
def large(postgres: PostgresServer, control_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = Settings(
        control_dsn=postgres.create_database("large_control", control_template),
        platform_dsn=postgres.create_database("large_platform"),
        artifacts=str(tmp_path_factory.mktemp("artifacts")),
        keys="test " + "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        fault_hooks=True,
        look_seconds=0.2,
    )
    resources = open_resources(settings, name="tests", pool_size=5)
    world = World(resources)
    world.sql(SCHEMA)
    yield world
    resources.close()
    postgres.drop_database("large_control")
    postgres.drop_database("large_platform")


@pytest.fixture(scope="module")
def upload(large: World) -> uuid.UUID:
    return large.upload(FILE)


@pytest.fixture(scope="module")
def before(large: World) -> list[tuple[Any, ...]]:
    return state(large)


def state(world: World) -> list[tuple[Any, ...]]:
    return world.sql(
        "SELECT (SELECT sum(hashtextextended(t::text, 0)) FROM public.things t), (SELECT count(*) FROM public.parts)"
    )


def cancelled(world: World, row: ImportRow, worker: WorkerProcess) -> float:
    """Cancels and gives the seconds until the import is CANCELLED."""
    started = time.monotonic()
    world.imports.cancel(world.caller, row.id)
    wait_until(
        lambda: world.imports.get(world.caller, row.id).status == "CANCELLED", PATIENCE,
        lambda: f"{world.imports.get(world.caller, row.id).status}\n{worker.log.read_text()[-2000:]}",
    )  # fmt: skip
    return time.monotonic() - started


def wait_for_stage(world: World, job_id: uuid.UUID | None, stage: str, worker: WorkerProcess) -> None:
    wait_until(lambda: world.job(job_id).stage == stage, 60, worker.log.read_text)


@pytest.mark.parametrize("mode", ["UPSERT", "REPLACE"])
@pytest.mark.parametrize(("stage", "gate"), [("COMPARE", "imports.plan.staged"), ("PLAN", "imports.plan.judged")])
def test_cancelled_while_planning(
    large: World, upload: uuid.UUID, before: object, start_worker: Start, mode: str, stage: str, gate: str
) -> None:
    worker = start_worker(large.resources.settings, gate)
    row = large.create("things", upload, **OPTIONS[mode])
    worker.wait_at(gate)
    worker.open_gate(gate)
    wait_for_stage(large, row.plan_job_id, stage, worker)
    time.sleep(0.2)

    seconds = cancelled(large, row, worker)

    print(f"cancelled in {stage} of {mode} after {seconds:.2f} s")
    assert state(large) == before
    assert left_over(large) == (0, 0)
    assert large.job(row.plan_job_id).state == "CANCELLED"


@pytest.mark.parametrize("mode", ["UPSERT", "REPLACE"])
def test_cancelled_while_loading_and_while_applying(
    large: World, upload: uuid.UUID, before: object, start_worker: Start, mode: str
) -> None:
    first, second = (large.create("things", upload, **OPTIONS[mode]) for _ in range(2))
    large.work()
    worker = start_worker(large.resources.settings)
    row = large.apply(large.imports.get(large.caller, first.id), work=False)
    wait_for_stage(large, row.apply_job_id, "LOAD", worker)
    loading = cancelled(large, row, worker)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0

    worker = start_worker(large.resources.settings)
    row = large.apply(large.imports.get(large.caller, second.id), work=False)
    wait_for_stage(large, row.apply_job_id, "APPLY", worker)
    time.sleep(0.5)
    applying = cancelled(large, row, worker)

    print(f"cancelled in LOAD of {mode} after {loading:.2f} s, in APPLY after {applying:.2f} s")
    assert state(large) == before
    assert left_over(large) == (0, 0)
    assert large.sql("SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE c.relname = 'things'"
                     " AND l.mode <> 'AccessShareLock'") == [(0,)]  # fmt: skip


def test_cancelled_while_new_rows_are_copied_straight_in(large: World, before: object, start_worker: Start) -> None:
    new = b"id,code,note\n" + b"".join(b"%d,e%d,new %d\n" % (n, n, n) for n in range(2 * ROWS, 4 * ROWS))
    row = large.plan("things", new)
    worker = start_worker(large.resources.settings)
    row = large.apply(large.imports.get(large.caller, row.id), work=False)
    wait_for_stage(large, row.apply_job_id, "APPLY", worker)
    time.sleep(0.3)
    seconds = cancelled(large, row, worker)

    print(f"cancelled in APPLY of new rows after {seconds:.2f} s")
    assert state(large) == before
    assert left_over(large) == (0, 0)
