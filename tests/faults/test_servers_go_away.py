"""Redis emptied or away, PostgreSQL restarted, rings doubled: nothing lost, nothing twice."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import Settings
from engine.db import migrate
from examples.stack.servers import PostgresServer, ValkeyServer
from tests.engine.jobs import kit
from tests.engine.jobs.kit import BATCHES, Bench
from tests.fix_workers import Start


@pytest.fixture
def own_valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


def test_redis_emptied_with_jobs_running_and_waiting(
    bench: Bench, job_settings: Settings, valkey: ValkeyServer, start_worker: Start
) -> None:
    settings = job_settings.model_copy(update={"redis_url": valkey.url})
    with kit.open_bench(settings) as ringing:
        worker = start_worker(settings, "effect.batch2")
        running = ringing.create("EFFECT")
        worker.wait_at("effect.batch2")
        waiting = [ringing.create("EFFECT") for _ in range(3)]

        valkey.flush()
        worker.open_gate("effect.batch2")

        for job_id in [running, *waiting]:
            job = bench.wait_for_end(job_id)
            assert (job.state, job.attempt, bench.effects(job_id)) == ("COMPLETED", 1, BATCHES)


def test_redis_restarted_jobs_run_meanwhile_and_rings_are_heard_again(
    bench: Bench, job_settings: Settings, own_valkey: ValkeyServer, start_worker: Start
) -> None:
    # Only a ring can be answered soon: this worker looks by itself once a minute.
    settings = job_settings.model_copy(update={"redis_url": own_valkey.url, "look_seconds": 60.0})
    with kit.open_bench(settings) as ringing:
        start_worker(settings)
        first = ringing.create("PLAIN")
        assert bench.wait_for_end(first).state == "COMPLETED"
        own_valkey.halt()
        unheard = ringing.create("PLAIN")  # creating it does not fail
        own_valkey.start()

        def heard() -> bool:
            ringing.resources.bell.ring()
            return bench.job(unheard).state == "COMPLETED"

        kit.wait_until(heard, 50, lambda: bench.describe(unheard))


def test_postgres_restarted_in_mid_job(tmp_path: Path, job_settings: Settings, start_worker: Start) -> None:
    with PostgresServer() as server:
        control, platform = server.create_database("control"), server.create_database("platform")
        migrate.upgrade(control)
        kit.prepare(control, platform)
        settings = job_settings.model_copy(update={"control_dsn": control, "platform_dsn": platform})
        with kit.open_bench(settings) as bench:
            worker = start_worker(settings, "effect.batch2")
            job_id = bench.create("EFFECT")
            worker.wait_at("effect.batch2")

            server.restart()
            worker.open_gate("effect.batch2")

            job = bench.wait_for_end(job_id)
            assert (job.state, job.attempt, bench.effects(job_id)) == ("COMPLETED", 2, BATCHES)
            tried = [e.payload for e in bench.events(job_id) if e.kind == "STATE" and e.payload.get("error")]
            assert [payload["error"]["reason"] for payload in tried] == ["DATABASE_LOST"]
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0


def test_rung_many_times_by_many_workers_it_runs_once(
    bench: Bench, job_settings: Settings, valkey: ValkeyServer, start_worker: Start
) -> None:
    settings = job_settings.model_copy(update={"redis_url": valkey.url})
    with kit.open_bench(settings) as ringing:
        workers = [start_worker(settings), start_worker(settings)]
        for worker in workers:
            worker.wait_ready()
        job_id = ringing.create("EFFECT")
        for _ in range(50):
            ringing.resources.bell.ring()

        job = bench.wait_for_end(job_id)

        assert (job.state, job.attempt, bench.effects(job_id)) == ("COMPLETED", 1, BATCHES)
        for worker in workers:
            worker.signal(signal.SIGTERM)
        assert [worker.wait() for worker in workers] == [0, 0]
