"""Workers that end in the middle: exactly one effect, and a record that says what happened."""

from __future__ import annotations

import signal

import pytest

from engine.config import Settings
from tests.engine.jobs.kit import BATCHES, Bench
from tests.fix_workers import Start


@pytest.mark.parametrize("point", ["effect.batch2", "effect.before_commit"])
def test_killed_before_commit_another_worker_has_the_one_effect(
    point: str, bench: Bench, job_settings: Settings, start_worker: Start
) -> None:
    worker = start_worker(job_settings, kill=point)
    job_id = bench.create("EFFECT")
    assert worker.wait() == -signal.SIGKILL
    assert bench.effects(job_id) == 0

    bench.take_over(job_id)

    job = bench.job(job_id)
    assert (job.state, job.attempt, bench.effects(job_id)) == ("COMPLETED", 2, BATCHES)
    restarts = [e.payload for e in bench.events(job_id) if e.kind == "STATE" and e.payload["attempt"] == 2]
    assert restarts[0]["error"]["reason"] == "WORKER_LOST"


@pytest.mark.parametrize("point", ["effect.after_commit", "jobs.before_end"])
def test_killed_after_commit_the_mark_keeps_the_effect_from_happening_twice(
    point: str, bench: Bench, job_settings: Settings, start_worker: Start
) -> None:
    worker = start_worker(job_settings, kill=point)
    job_id = bench.create("EFFECT")
    assert worker.wait() == -signal.SIGKILL
    assert bench.effects(job_id) == BATCHES

    bench.take_over(job_id)

    assert (bench.job(job_id).state, bench.status(job_id)) == ("COMPLETED", "DONE")
    assert bench.effects(job_id) == BATCHES


def test_sigterm_in_mid_effect_rolls_back_and_gives_the_job_back_uncounted(
    bench: Bench, job_settings: Settings, start_worker: Start
) -> None:
    worker = start_worker(job_settings)
    job_id = bench.create("SLEEP_IN_EFFECT")
    bench.wait_for_stage(job_id, "sleep")

    worker.signal(signal.SIGTERM)

    assert worker.wait() == 0, worker.log.read_text()
    job = bench.job(job_id)
    assert (job.state, job.attempt, job.lease_owner, bench.effects(job_id)) == ("PENDING", 0, None, 0)


def test_sigterm_after_commit_the_next_attempt_only_finishes_the_record(
    bench: Bench, job_settings: Settings, start_worker: Start
) -> None:
    # This handler does not listen while it waits: the process gives the job back over its head and ends.
    worker = start_worker(job_settings, "effect.after_commit", rollback_seconds=1.0)
    job_id = bench.create("EFFECT")
    worker.wait_at("effect.after_commit")

    worker.signal(signal.SIGTERM)

    assert worker.wait() == 1
    assert bench.job(job_id).state == "PENDING"
    job = bench.run_until_end(job_id)
    assert (job.state, job.attempt, bench.effects(job_id)) == ("COMPLETED", 1, BATCHES)


@pytest.mark.parametrize("point", ["jobs.claimed", "effect.announced", "effect.before_commit"])
def test_paused_worker_that_wakes_after_the_take_over_is_refused(
    point: str, bench: Bench, job_settings: Settings, start_worker: Start
) -> None:
    worker = start_worker(job_settings, point)
    job_id = bench.create("EFFECT")
    worker.wait_at(point)
    worker.signal(signal.SIGSTOP)
    bench.take_over(job_id)
    record = bench.describe(job_id)

    worker.open_gate(point)
    worker.signal(signal.SIGCONT)
    following = bench.create("PLAIN")

    # It noticed, wrote nothing, and serves the next job.
    assert bench.wait_for_end(following).state == "COMPLETED"
    assert bench.effects(job_id) == BATCHES
    assert bench.describe(job_id) == record
    assert (bench.job(job_id).state, bench.job(job_id).attempt) == ("COMPLETED", 2)
