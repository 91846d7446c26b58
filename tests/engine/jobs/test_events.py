"""Events and progress: what a watcher may rely on."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from engine.jobs import events, service
from engine.jobs.model import EventKind
from engine.jobs.progress import INTERVAL, Meter
from tests.engine.jobs.kit import Bench


def add(bench: Bench, job_id: uuid.UUID, kind: EventKind, seconds_ago: float, **payload: object) -> None:
    with bench.resources.db.transaction() as session:
        job = service.get_job(session, job_id, lock=True)
        events.append(session, job, kind, payload, bench.resources.clock() - timedelta(seconds=seconds_ago))


def test_old_progress_is_thinned_at_the_end_and_each_gap_ends_in_a_snapshot(bench: Bench) -> None:
    job_id = bench.create("PLAIN")
    for rows in range(3):
        add(bench, job_id, EventKind.PROGRESS, 60, stage="read", rows_done=rows)
    add(bench, job_id, EventKind.STAGE, 50, old_stage="read", new_stage="write")
    add(bench, job_id, EventKind.PROGRESS, 40, stage="write", rows_done=7)
    add(bench, job_id, EventKind.NOTICE, 39, code="NOTE")
    add(bench, job_id, EventKind.PROGRESS, 1, stage="write", rows_done=8)
    add(bench, job_id, EventKind.PROGRESS, 1, stage="write", rows_done=9)

    bench.runner().run_next()

    story = [(event.sequence, event.kind) for event in bench.events(job_id)]
    assert story[:7] == [
        (1, "STATE"),
        (4, "SNAPSHOT"),  # stands for 2 and 3
        (5, "STAGE"),
        (6, "PROGRESS"),  # alone: nothing to thin
        (7, "NOTICE"),
        (8, "PROGRESS"),  # young: whoever watches has not read it yet
        (9, "PROGRESS"),
    ]
    snapshot = bench.events(job_id)[1].payload
    assert (snapshot["stage"], snapshot["progress"]["rows_done"]) == ("read", 2)


@pytest.mark.parametrize(("kind", "state"), [("PLAIN", "COMPLETED"), ("REFUSED", "FAILED"), ("PLAIN", "CANCELLED")])
def test_every_end_thins(kind: str, state: str, bench: Bench) -> None:
    job_id = bench.create(kind)
    for rows in range(4):
        add(bench, job_id, EventKind.PROGRESS, 60, stage="read", rows_done=rows)
    if state == "CANCELLED":
        bench.cancel(job_id)
    bench.runner().run_next()

    assert bench.job(job_id).state == state
    told = [event for event in bench.events(job_id) if 1 < event.sequence <= 5]
    assert [(event.kind, event.payload["progress"]["rows_done"]) for event in told] == [("SNAPSHOT", 3)]


def test_a_resume_from_any_sequence_misses_nothing_but_what_a_snapshot_stands_for(bench: Bench) -> None:
    job_id = bench.create("PLAIN")
    for rows in range(5):
        add(bench, job_id, EventKind.PROGRESS, 60, stage="read", rows_done=rows)
    bench.runner().run_next()
    stored = bench.events(job_id)

    for seen in range(stored[-1].sequence + 1):
        with bench.resources.db.transaction() as session:
            rest = service.list_events(session, job_id, seen, 1_000)
        assert [event.sequence for event in rest] == [e.sequence for e in stored if e.sequence > seen]
        for before, event in zip([seen, *[e.sequence for e in rest]], rest, strict=False):
            assert event.sequence == before + 1 or event.kind == "SNAPSHOT"


def test_events_are_forgotten_after_90_days(bench: Bench) -> None:
    job_id = bench.create("PLAIN")
    bench.runner().run_next()
    soon, late = (bench.resources.clock() + timedelta(days=days) for days in (89, 91))

    with bench.resources.db.transaction() as session:
        assert events.forget(session, soon) == 0
    with bench.resources.db.transaction() as session:
        assert events.forget(session, late) > 0
        assert service.list_events(session, job_id, 0, 10) == []


def test_progress_is_told_at_most_four_times_a_second_and_the_last_is_not_lost() -> None:
    meter = Meter("read", 1_000, None, 0.0)
    told = [meter.tell(n / 100) for n in range(101) if meter.update(n * 10, None, n / 100)]

    assert len(told) == 1 / INTERVAL + 1
    assert not meter.pending
    meter.update(1_000, None, 1.01)
    assert meter.pending


def test_rate_is_of_the_last_seconds_and_time_left_follows_it() -> None:
    meter = Meter("read", 2_000, None, 0.0)
    for second in range(1, 11):  # 10 rows a second first, then 100
        meter.update(10 * second if second <= 5 else 50 + 100 * (second - 5), None, second)
        payload = meter.tell(second)

    assert payload["rows_done"] == 550
    assert payload["rows_per_second"] == 100.0
    assert payload["eta_seconds"] == 14.5


def test_an_estimate_that_was_passed_gives_way_to_what_is_done() -> None:
    meter = Meter("read", 10, 100, 0.0)
    meter.update(25, 50, 1.0)

    payload = meter.tell(1.0)

    assert (payload["rows_estimated"], payload["bytes_estimated"], payload["eta_seconds"]) == (25, 100, 0.0)
