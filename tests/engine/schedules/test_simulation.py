"""Months of schedules, with downtime, changes of the clocks and failures: each time becomes what it must, once."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta

import pytest
from sqlalchemy import func, select

from engine.db.models import BackupRow, JobRow
from engine.schedules.model import Overlap
from engine.schedules.scheduler import Scheduler
from tests.engine.schedules import calendar
from tests.engine.schedules.conftest import MakeBench
from tests.engine.schedules.expected import Expected
from tests.engine.schedules.kit import BROKEN, LOST, Bench

START = datetime(2026, 3, 6, tzinfo=UTC)
"""Within a month the clocks of New York, Berlin and Lord Howe are changed."""

Reckoning = Callable[[str, datetime, datetime], list[datetime]]
ENDS = {"good": None, "lost": LOST, "broken": BROKEN}


def daily(*at: time, days: Callable[[date], bool] = lambda _day: True) -> Reckoning:
    """The times of each `at`, those that fall together once."""
    return lambda zone, start, end: sorted({t for one in at for t in calendar.daily(zone, one, start, end, days)})


SCHEDULES: Sequence[tuple[str, str, Overlap, float, Reckoning]] = (
    ("30 2 * * *", "America/New_York", Overlap.SKIP, 24, daily(time(2, 30))),
    ("30 2 * * *", "Europe/Berlin", Overlap.BUFFER_ONE, 2, daily(time(2, 30))),
    ("@weekly", "Australia/Lord_Howe", Overlap.SKIP, 30, daily(time(2), days=lambda day: day.isoweekday() == 7)),
    ("0 1,2,3,13 * * *", "Europe/Berlin", Overlap.BUFFER_ONE, 24, daily(time(1), time(2), time(3), time(13))),
    ("@monthly", "UTC", Overlap.SKIP, 24, daily(time(2), days=lambda day: day.day == 1)),
)


def fate(due_at: datetime, attempt: int) -> tuple[timedelta, str]:
    """Most backups are good and short; some last hours, some fail, some of them until the end."""
    chance = random.Random(f"{due_at} {attempt}")
    lasts = timedelta(minutes=chance.choice((1, 5, 20, 45, 200, 900)), seconds=chance.randrange(60))
    return lasts, chance.choice(("good", "good", "good", "lost", "lost", "broken"))


def outages(chance: random.Random, days: int) -> list[tuple[datetime, datetime]]:
    """Some of minutes, some of days; no worker looks meanwhile."""
    found, at = [], START
    while at < START + timedelta(days=days):
        at += timedelta(hours=chance.uniform(20, 200))
        ends = at + timedelta(hours=chance.choice((0.1, 1.5, 9, 30, 90)))
        found.append((at, ends))
        at = ends
    return found


@pytest.mark.parametrize("days", [32, pytest.param(400, marks=pytest.mark.long)])
def test_each_time_becomes_what_it_must_and_none_is_lost_or_doubled(days: int, make_bench: MakeBench) -> None:
    bench, chance = make_bench(START.isoformat()), random.Random(7)
    end = START + timedelta(days=days)
    down = outages(chance, days)
    expected = {
        bench.create(cron, time_zone=zone, overlap_policy=overlap, catch_up_seconds=hours * 3600.0): Expected(
            reckoning(zone, START, end + timedelta(days=40)),
            overlap is Overlap.BUFFER_ONE,
            timedelta(hours=hours),
            fate,
        )
        for cron, zone, overlap, hours, reckoning in SCHEDULES
    }
    second = Scheduler(bench.resources)

    while (now := min(one.next_event(bench.clock()) for one in expected.values())) < end:
        now += timedelta(seconds=chance.uniform(0.001, 5))
        bench.clock.now = next((ends for begins, ends in down if begins <= now < ends), now)
        for schedule_id, one in expected.items():
            if ending := one.ended(bench.clock()):
                assert bench.end(schedule_id, ENDS[ending]) == 1
        assert bench.fire() == sum(one.fire(bench.clock()) for one in expected.values())
        if chance.random() < 0.1:
            assert second.fire(bench.clock()) == 0

    for (cron, zone, *_), (schedule_id, one) in zip(SCHEDULES, expected.items(), strict=True):
        runs = {run.due_at: run for run in bench.runs(schedule_id)}
        assert {due_at: run.outcome for due_at, run in runs.items()} == one.outcomes, (cron, zone)
        assert {due_at: run.attempts for due_at, run in runs.items() if run.attempts} == one.attempts
        row = bench.row(schedule_id)
        assert (row.missed_runs, row.skipped_runs, row.failed_runs) == tuple(
            one.count(outcome) for outcome in ("MISSED", "SKIPPED", "FAILED")
        )
    assert all(sum(one.count(o) for one in expected.values()) for o in ("STARTED", "MISSED", "SKIPPED", "FAILED"))
    assert_no_orphans(bench, sum(sum(one.attempts.values()) for one in expected.values()))


def assert_no_orphans(bench: Bench, backups: int) -> None:
    """As many backups, each with a job of its own, as were begun."""
    with bench.resources.db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(BackupRow)) == backups
        jobs = select(func.count(JobRow.resource_id.distinct())).where(JobRow.kind == "BACKUP")
        assert session.scalar(jobs) == backups
