"""Housekeeping: one process does it, every duty gets its turn, and what it removes is over."""

from __future__ import annotations

from datetime import datetime, timedelta

from engine.ids import new_id
from engine.jobs import fence, marks
from tests.engine.jobs.kit import Bench
from workers.app import default_duties
from workers.housekeeping import LEASE, Duty, Housekeeping, give_lease, take_lease


def test_only_the_holder_of_the_lease_does_the_duties(bench: Bench) -> None:
    done: list[str] = []
    first, second = (
        Housekeeping(bench.resources, [Duty("note", lambda _now, name=name: done.append(name))], name)  # type: ignore[misc]
        for name in ("first", "second")
    )

    assert [first.round(), second.round(), first.round()] == [True, False, True]
    give_lease(bench.resources.db, LEASE, "first")
    assert second.round()
    assert done == ["first", "first", "second"]


def test_a_lease_that_ran_out_goes_to_the_next(bench: Bench) -> None:
    assert take_lease(bench.resources.db, "duty", "first", -1)
    assert take_lease(bench.resources.db, "duty", "second", 60)
    assert not take_lease(bench.resources.db, "duty", "first", 60)


def test_a_duty_that_fails_does_not_keep_the_others_from_their_turn(bench: Bench) -> None:
    done: list[datetime] = []

    def fail(_now: datetime) -> None:
        raise ValueError("defect")

    assert Housekeeping(bench.resources, [Duty("bad", fail), Duty("good", done.append)], "me").round()
    assert len(done) == 1


def test_every_default_duty_runs_on_an_empty_installation(bench: Bench) -> None:
    for duty in default_duties(bench.resources):
        duty.act(bench.resources.clock())


def test_marks_live_a_day_longer_than_their_job_and_those_of_others_stay(bench: Bench) -> None:
    job_id, foreign = bench.create("EFFECT"), new_id()
    bench.runner().run_next()
    with bench.resources.platform.connect("test", autocommit=True) as connection:
        fence.raise_fence(connection, foreign, 1)
    now = bench.resources.clock()

    assert marks.sweep(bench.resources, now + timedelta(hours=23)) == 0
    assert marks.sweep(bench.resources, now + timedelta(hours=25)) == 1

    with bench.resources.platform.connect("test", autocommit=True) as connection:
        left = connection.execute("SELECT job_id FROM dataops_work.applied").fetchall()
    assert left == [(foreign,)]
    assert bench.job(job_id).state == "COMPLETED"
