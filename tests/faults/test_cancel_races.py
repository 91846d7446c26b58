"""A cancel that meets the commit: what the record says is what happened."""

from __future__ import annotations

import time

from engine.config import Settings
from tests.engine.jobs.kit import BATCHES, Bench
from tests.fix_workers import Start


def test_cancel_in_mid_statement_stops_it(bench: Bench, job_settings: Settings, start_worker: Start) -> None:
    start_worker(job_settings)
    job_id = bench.create("SLEEP_IN_EFFECT")
    bench.wait_for_stage(job_id, "sleep")

    assert bench.cancel(job_id).state == "CANCEL_REQUESTED"

    job = bench.wait_for_end(job_id)
    assert (job.state, bench.status(job_id), bench.effects(job_id)) == ("CANCELLED", "CANCELLED", 0)


def test_cancel_after_the_commit_leaves_a_completed_job(
    bench: Bench, job_settings: Settings, start_worker: Start
) -> None:
    worker = start_worker(job_settings, "effect.after_commit")
    job_id = bench.create("EFFECT")
    worker.wait_at("effect.after_commit")

    bench.cancel(job_id)
    worker.open_gate("effect.after_commit")

    job = bench.wait_for_end(job_id)
    assert (job.state, bench.status(job_id), bench.effects(job_id)) == ("COMPLETED", "DONE", BATCHES)


def test_cancel_of_a_job_whose_worker_died_after_the_commit_is_completed(
    bench: Bench, job_settings: Settings, start_worker: Start
) -> None:
    worker = start_worker(job_settings, kill="effect.after_commit")
    job_id = bench.create("EFFECT")
    worker.wait()

    assert bench.cancel(job_id).state == "CANCEL_REQUESTED"

    job = bench.take_over(job_id)
    assert (job.state, bench.status(job_id), bench.effects(job_id)) == ("COMPLETED", "DONE", BATCHES)


def test_cancel_racing_the_commit_either_way_the_record_is_true(
    bench: Bench, job_settings: Settings, start_worker: Start
) -> None:
    worker = start_worker(job_settings, "effect.before_commit")
    for pause in (0.0, 0.1, 0.3, 0.5, 0.7):
        job_id = bench.create("EFFECT")
        worker.wait_at("effect.before_commit")

        bench.cancel(job_id)
        time.sleep(pause)  # spreads the COMMIT over the heartbeat's rounds; every outcome below is right
        worker.open_gate("effect.before_commit")

        job = bench.wait_for_end(job_id)
        want = {"COMPLETED": ("DONE", BATCHES), "CANCELLED": ("CANCELLED", 0)}[job.state]
        assert (bench.status(job_id), bench.effects(job_id)) == want
        worker.close_gate("effect.before_commit")
