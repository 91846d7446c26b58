"""One slot in this process: what becomes of a job."""

from __future__ import annotations

from tests.engine.jobs.kit import BATCHES, Bench


def test_a_job_runs_to_its_end_and_its_effect_is_there_once(bench: Bench) -> None:
    job_id = bench.create("EFFECT")

    assert bench.runner().run_next()

    job = bench.job(job_id)
    assert (job.state, job.attempt, job.lease_owner, job.error) == ("COMPLETED", 1, None, None)
    assert bench.status(job_id) == "DONE"
    assert bench.effects(job_id) == BATCHES


def test_events_number_from_one_without_gaps_and_tell_the_whole_story(bench: Bench) -> None:
    job_id = bench.create("EFFECT")
    bench.runner().run_next()

    events = bench.events(job_id)

    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [(e.payload["old_state"], e.payload["new_state"]) for e in events if e.kind == "STATE"] == [
        (None, "PENDING"),
        ("PENDING", "RUNNING"),
        ("RUNNING", "COMPLETED"),
    ]
    assert [e.payload["new_stage"] for e in events if e.kind == "STAGE"] == ["effect", "report"]
    assert [e.payload["rows_done"] for e in events if e.kind == "PROGRESS"][-1] == BATCHES
