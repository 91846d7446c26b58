"""What a schedule does when its backup fails: tries again, gives up, and says why."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest

from engine.access import Caller
from engine.catalog import CatalogSource
from engine.db.models import JobRow, RoleRow
from engine.db.platform import Platform
from engine.errors import Unavailable
from engine.jobs import states
from engine.jobs.model import JobState
from engine.schedules.model import Overlap
from engine.schedules.service import Schedules
from tests.engine.backups.kit import caller_with
from tests.engine.schedules.kit import BROKEN, LOST, Bench, audited


def test_a_failed_backup_is_tried_again_as_the_same_run_at_growing_pauses(bench: Bench) -> None:
    schedule_id = bench.create()
    bench.fire(hours=2)
    for minutes in (5, 15, 60):
        assert bench.end(schedule_id, LOST) == 1
        (run,) = bench.runs(schedule_id)
        assert (run.outcome, run.retry_at) == ("WAITING", bench.clock() + timedelta(minutes=minutes))
        assert (run.error or {})["reason"] == "DATABASE_LOST"
        assert bench.fire(minutes=minutes, seconds=-1) == 0
        assert bench.fire(seconds=1) == 1
    assert bench.row(schedule_id).failed_runs == 0

    bench.end(schedule_id, LOST)

    (run,) = bench.runs(schedule_id)
    assert (run.outcome, run.attempts, run.retry_at, len(bench.backups(schedule_id))) == ("FAILED", 4, None, 4)
    row = bench.row(schedule_id)
    assert (row.failed_runs, (row.last_error or {})["reason"]) == (1, "DATABASE_LOST")
    assert bench.fire(hours=2) == 0


def test_a_try_that_succeeds_takes_the_error_away(bench: Bench) -> None:
    schedule_id = bench.create()
    bench.fire(hours=2)
    bench.end(schedule_id, LOST)
    assert bench.row(schedule_id).last_error is not None
    bench.fire(minutes=5)
    bench.end(schedule_id)

    (run,) = bench.runs(schedule_id)
    row = bench.row(schedule_id)
    assert (run.outcome, run.attempts, run.error, row.last_error, row.failed_runs) == ("STARTED", 2, None, None, 0)


def test_an_error_that_does_not_go_away_is_not_tried_again(bench: Bench) -> None:
    schedule_id = bench.create()
    bench.fire(hours=2)
    bench.end(schedule_id, BROKEN)

    assert bench.outcomes(schedule_id) == [("01-01 02:00", "FAILED")]
    assert bench.fire(hours=2) == 0
    assert bench.row(schedule_id).failed_runs == 1


def test_no_try_comes_after_the_next_time(bench: Bench) -> None:
    hourly = bench.create("0 * * * *")
    bench.fire(hours=1)
    bench.clock.pass_by(minutes=57)
    bench.end(hourly, LOST)  # 5 minutes on it would be past two o'clock
    assert bench.outcomes(hourly) == [("01-01 01:00", "FAILED")]

    assert bench.fire(minutes=3) == 1
    bench.end(hourly, LOST)
    assert bench.fire(hours=1, minutes=1) == 1  # no worker looked meanwhile: the try is overtaken
    assert bench.outcomes(hourly)[1:] == [("01-01 02:00", "FAILED"), ("01-01 03:00", "STARTED")]
    assert bench.row(hourly).failed_runs == 2


def test_a_failed_backup_gives_way_to_the_run_that_waits(bench: Bench) -> None:
    schedule_id = bench.create("0 * * * *", overlap_policy=Overlap.BUFFER_ONE)
    bench.fire(hours=1)
    bench.fire(hours=1)
    bench.end(schedule_id, LOST)

    assert bench.fire(seconds=5) == 1
    assert bench.outcomes(schedule_id) == [("01-01 01:00", "FAILED"), ("01-01 02:00", "STARTED")]


def test_a_job_put_back_by_hand_needs_no_other_try(bench: Bench) -> None:
    schedule_id = bench.create()
    bench.fire(hours=2)
    bench.end(schedule_id, LOST)
    with bench.resources.db.transaction() as session:
        session.merge(bench.backups(schedule_id)[0]).status = "PENDING"

    assert bench.fire(minutes=6) == 0
    with bench.resources.db.transaction() as session:
        session.merge(bench.backups(schedule_id)[0]).status = "CANCELLED"
    assert bench.fire(minutes=6) == 0
    assert bench.outcomes(schedule_id) == [("01-01 02:00", "STARTED")]


@pytest.mark.parametrize("change", [Schedules.pause, Schedules.delete])
def test_a_backup_that_fails_after_its_schedule_was_stopped_is_not_tried_again(
    change: Callable[[Schedules, Caller, uuid.UUID], object], bench: Bench
) -> None:
    schedule_id = bench.create()
    bench.fire(hours=2)
    change(bench.schedules, bench.caller, schedule_id)
    bench.end(schedule_id, LOST)

    assert bench.outcomes(schedule_id) == [("01-01 02:00", "FAILED")]


def test_a_run_that_failed_and_is_put_back_by_hand_counts_once_and_not_if_it_becomes_good(bench: Bench) -> None:
    schedule_id = bench.create()
    bench.fire(hours=2)
    bench.end(schedule_id, BROKEN)
    for error, outcome, failed in ((LOST, "FAILED", 1), (None, "STARTED", 0)):
        with bench.resources.db.transaction() as session:
            backup = session.merge(bench.backups(schedule_id)[0])
            backup.status = "PENDING"
            states.change(session, session.get_one(JobRow, backup.job_id), JobState.PENDING, bench.clock())
        bench.end(schedule_id, error)
        assert [found for _, found in bench.outcomes(schedule_id)] == [outcome]
        assert bench.row(schedule_id).failed_runs == failed


def test_a_principal_who_may_not_any_more_fails_the_run_and_the_schedule_says_so(bench: Bench) -> None:
    bench.caller = caller_with(bench.world, "schedules.*", "backups.create:things")
    schedule_id = bench.create()
    with bench.resources.db.transaction() as session:
        session.get_one(RoleRow, bench.caller.roles[0]).permissions = ["schedules.*", "backups.create:others"]

    assert bench.fire(hours=2) == 0

    (run,) = bench.runs(schedule_id)
    row = bench.row(schedule_id)
    assert (run.outcome, (run.error or {})["reason"], run.backup_id) == ("FAILED", "PERMISSION_MISSING", None)
    assert (row.failed_runs, (row.last_error or {})["metadata"]["entity"]) == (1, "things")
    refused = [("INTENT", "backups.create", ""), ("OUTCOME", "backups.create", "FAILED")]
    assert audited(bench, schedule_id)[-2:] == refused
    assert bench.backups(schedule_id) == []

    with bench.resources.db.transaction() as session:
        session.get_one(RoleRow, bench.caller.roles[0]).permissions = ["schedules.*", "backups.create"]
    assert bench.fire(days=1) == 1


def test_an_entity_that_is_gone_fails_the_run(bench: Bench) -> None:
    schedule_id = bench.create()
    bench.world.sql("DROP TABLE public.things")
    bench.resources.catalogs.forget()

    assert bench.fire(hours=2) == 0
    assert (bench.row(schedule_id).last_error or {})["reason"] == "ENTITY_UNKNOWN"


def test_a_platform_that_is_away_is_downtime_and_told(bench: Bench) -> None:
    schedule_id = bench.create()
    away = CatalogSource(Platform("postgresql://nobody@127.0.0.1:1/none"), "public", None)
    object.__setattr__(bench.scheduler._resources, "catalogs", away)
    with pytest.raises(Unavailable):
        bench.fire(days=2, hours=3)
    assert (bench.row(schedule_id).last_error or {})["reason"] == "PLATFORM_UNREACHABLE"
    assert bench.runs(schedule_id) == []

    object.__setattr__(bench.scheduler._resources, "catalogs", bench.world.resources.catalogs)
    assert bench.fire(hours=1) == 1
    assert [outcome for _, outcome in bench.outcomes(schedule_id)] == ["MISSED", "MISSED", "STARTED"]
