"""The worker's own health over HTTP: its threads live, it can work, its jobs are counted."""

from __future__ import annotations

import re
import signal

from engine.config import Settings
from engine.jobs.model import ClaimMode
from examples.stack.servers import PostgresServer
from tests.engine.health.kit import ask, away, failing, look, scrape
from tests.engine.jobs.kit import Bench, wait_until
from tests.fix_workers import Start, WorkerProcess


def told_by(worker: WorkerProcess) -> str:
    """Where it listens, as its log says."""
    worker.wait_ready()
    found = re.search(r"worker_ready.*health=(\S+)", worker.log.read_text())
    assert found is not None
    return found[1]


def listening(settings: Settings) -> Settings:
    return settings.model_copy(update={"health_listen": "127.0.0.1:0"})


def test_a_worker_process_says_how_it_is_while_it_works_and_while_it_stops(
    bench: Bench, start_worker: Start, postgres: PostgresServer
) -> None:
    worker = start_worker(listening(bench.resources.settings), "plain.step")
    address = told_by(worker)
    status, threads = look(address, "/livez")
    assert (status, set(threads)) == (200, {"look", "housekeeping", "scheduler", "webhooks"})
    wait_until(lambda: failing(address) == (200, set()), 60)

    with away(postgres, bench.resources.settings.control_dsn):
        wait_until(lambda: failing(address) == (503, {"control_database"}), 60)
        assert ask(address, "/livez")[0] == 200
    wait_until(lambda: failing(address) == (200, set()), 60)

    job_id = bench.create("PLAIN", ("users", ClaimMode.READ))
    worker.wait_at("plain.step")
    assert scrape(address)["process_resident_memory_bytes"][()] > 10 << 20
    worker.open_gate("plain.step")
    bench.wait_for_end(job_id)
    done = (("kind", "PLAIN"), ("outcome", "COMPLETED"))
    wait_until(lambda: scrape(address).get("dataops_job_attempts_total", {}).get(done) == 1, 60)
    assert scrape(address)["dataops_job_attempt_duration_seconds_count"] == {(("kind", "PLAIN"),): 1}

    worker.close_gate("plain.step")
    bench.create("PLAIN")
    worker.wait_at("plain.step")
    worker.signal(signal.SIGTERM)
    wait_until(lambda: failing(address) == (503, {"draining"}), 60, worker.log.read_text)
    worker.open_gate("plain.step")
    assert worker.wait() == 0


def test_how_attempts_end_is_counted_on_the_process_that_made_them(bench: Bench) -> None:
    refused, lost = bench.create("REFUSED"), bench.create("EFFECT")
    runner = bench.runner()
    runner.run_next()
    bench.runner("lost")._claim()
    bench.take_over(lost)
    meters = bench.resources.meters

    assert bench.job(refused).state == "FAILED"
    counted = {
        tuple(sample.labels.values()): sample.value
        for family in meters.job_attempts.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert counted == {("REFUSED", "FAILED"): 1, ("EFFECT", "COMPLETED"): 1}
    assert next(iter(meters.leases_expired.collect())).samples[0].value == 1


def test_an_endpoint_that_cannot_be_had_refuses_the_start(job_settings: Settings, start_worker: Start) -> None:
    worker = start_worker(job_settings.model_copy(update={"health_listen": "0.0.0.0:0"}))

    assert worker.wait() != 0
    assert "worker_ready" not in worker.log.read_text()
