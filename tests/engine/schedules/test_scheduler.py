"""Firing: what becomes of each time, of backups that go on, that fail, and of a principal who may not any more."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import select

from engine.backups.model import BackupType, VerifyLevel
from engine.db.models import BackupVerificationRow, JobRow
from engine.schedules.model import Overlap
from engine.schedules.record import KEPT_FOR, forget_runs
from engine.schedules.scheduler import MISSED_KEPT, Scheduler
from tests.engine.schedules.kit import LOST, Bench, audited


def test_a_time_that_has_come_makes_one_backup_with_its_job_and_intent(bench: Bench) -> None:
    schedule_id = bench.create(retention_seconds=7200.0, backup_type=BackupType.INCREMENTAL)
    assert bench.fire(hours=1) == 0

    assert [bench.fire(hours=1, seconds=2), bench.fire(seconds=5)] == [1, 0]

    (backup,) = bench.backups(schedule_id)
    assert (backup.trigger_type, backup.backup_type, backup.retention_seconds) == ("SCHEDULED", "INCREMENTAL", 7200)
    assert (backup.entity_types, backup.principal_id) == (["things"], bench.caller.principal_id)
    assert backup.name == "nightly, 2026-01-01 02:00 UTC"
    job = bench.world.job(backup.job_id)
    assert (job.kind, job.state, job.claims) == ("BACKUP", "PENDING", [{"entity": "things", "mode": "READ"}])
    assert audited(bench, backup.id) == [("INTENT", "backups.create", "")]
    row = bench.row(schedule_id)
    assert (row.last_backup_id, row.last_run_at) == (backup.id, bench.clock() - timedelta(seconds=5))
    assert f"{row.next_run_at:%m-%d %H:%M}" == "01-02 02:00"
    assert bench.outcomes(schedule_id) == [("01-01 02:00", "STARTED")]


def test_groups_and_all_entities_are_those_there_are_when_it_fires(bench: Bench) -> None:
    schedule_id = bench.create(entity_types=())
    bench.world.sql("CREATE TABLE public.later (id int PRIMARY KEY)")
    bench.resources.catalogs.forget()

    bench.fire(hours=3)

    assert sorted(bench.backups(schedule_id)[0].entity_types) == ["later", "others", "things"]


@pytest.mark.parametrize(
    ("cron", "down", "missed", "begun"),
    [
        ("@daily", timedelta(days=3, hours=5), 3, 1),
        ("@weekly", timedelta(days=4), 1, 0),  # Sunday was 25 hours ago
        ("@weekly", timedelta(days=3, hours=20), 0, 1),
        ("0 * * * *", timedelta(days=3), 71, 1),
    ],
)
def test_after_downtime_at_most_one_is_caught_up(
    cron: str, down: timedelta, missed: int, begun: int, bench: Bench
) -> None:
    schedule_id = bench.create(cron)
    if cron == "@weekly":
        bench.clock.pass_by(hours=3)

    assert bench.fire(seconds=down.total_seconds()) == begun
    assert bench.fire(seconds=5) == 0

    row = bench.row(schedule_id)
    assert (row.missed_runs, len(bench.backups(schedule_id))) == (missed, begun)
    assert [outcome for _, outcome in bench.outcomes(schedule_id)] == ["MISSED"] * missed + ["STARTED"] * begun
    assert row.next_run_at is not None
    assert row.next_run_at > bench.clock()


def test_the_window_is_the_schedules_own(bench: Bench) -> None:
    schedule_id = bench.create(catch_up_seconds=3600.0)

    assert bench.fire(hours=3, seconds=1) == 0
    assert bench.fire(days=1, hours=-1) == 1
    assert bench.outcomes(schedule_id) == [("01-01 02:00", "MISSED"), ("01-02 02:00", "STARTED")]


def test_of_very_many_missed_times_all_are_counted_and_the_newest_written_down(bench: Bench) -> None:
    schedule_id = bench.create("* * * * *")

    assert bench.fire(days=10) == 1
    assert bench.row(schedule_id).missed_runs == 10 * 1440 - 1
    assert len(bench.runs(schedule_id)) == MISSED_KEPT + 1


def test_a_time_that_meets_the_run_before_is_skipped_and_counted(bench: Bench) -> None:
    schedule_id = bench.create("0 * * * *")

    assert [bench.fire(hours=1), bench.fire(hours=1), bench.fire(hours=1)] == [1, 0, 0]
    bench.end(schedule_id)
    assert bench.fire(hours=1) == 1

    assert bench.row(schedule_id).skipped_runs == 2
    assert [outcome for _, outcome in bench.outcomes(schedule_id)] == ["STARTED", "SKIPPED", "SKIPPED", "STARTED"]


def test_with_a_buffer_one_time_waits_and_runs_once_after_the_run_before(bench: Bench) -> None:
    schedule_id = bench.create("0 * * * *", overlap_policy=Overlap.BUFFER_ONE)

    assert [bench.fire(hours=1), bench.fire(hours=1), bench.fire(hours=1), bench.fire(minutes=1)] == [1, 0, 0, 0]
    assert [outcome for _, outcome in bench.outcomes(schedule_id)] == ["STARTED", "WAITING", "SKIPPED"]
    bench.end(schedule_id)
    assert [bench.fire(minutes=1), bench.fire(minutes=1)] == [1, 0]

    assert [outcome for _, outcome in bench.outcomes(schedule_id)] == ["STARTED", "STARTED", "SKIPPED"]
    assert bench.backups(schedule_id)[-1].name == "nightly, 2026-01-01 02:00 UTC"
    assert bench.row(schedule_id).skipped_runs == 1


def test_what_waited_past_its_window_is_missed(bench: Bench) -> None:
    schedule_id = bench.create(overlap_policy=Overlap.BUFFER_ONE, catch_up_seconds=3600.0)
    bench.fire(hours=2)
    bench.fire(days=1)
    bench.clock.pass_by(hours=2)
    bench.end(schedule_id)

    assert bench.fire() == 0
    assert bench.outcomes(schedule_id) == [("01-01 02:00", "STARTED"), ("01-02 02:00", "MISSED")]
    assert bench.row(schedule_id).missed_runs == 1


def test_a_complete_backup_gets_its_verification_in_the_same_transaction(bench: Bench) -> None:
    schedule_id = bench.create(verify_level=VerifyLevel.DECODED)
    bench.fire(hours=2)
    bench.end(schedule_id)

    (backup,) = bench.backups(schedule_id)
    with bench.resources.db.transaction() as session:
        (proof,) = session.scalars(
            select(BackupVerificationRow).where(BackupVerificationRow.backup_id == backup.id)
        ).all()
        job = session.get_one(JobRow, proof.job_id)
    assert (proof.level, job.kind, job.state, job.resource_id) == ("DECODED", "BACKUP_VERIFY", "PENDING", backup.id)
    assert ("INTENT", "backups.verify", "") in audited(bench, backup.id)


def test_real_jobs_make_the_backup_and_prove_it(bench: Bench) -> None:
    schedule_id = bench.create(verify_level=VerifyLevel.DECODED, retention_seconds=7200.0)
    bench.fire(hours=2)

    assert bench.world.work() == 2

    (backup,) = bench.backups(schedule_id)
    assert (backup.status, sorted(backup.verifications)) == ("COMPLETED", ["DECODED", "PRESENT"])
    assert backup.expires_at is not None
    assert backup.completed_at is not None
    assert backup.expires_at - backup.completed_at == timedelta(hours=2)
    assert bench.row(schedule_id).last_error is None


def test_a_real_job_that_fails_is_heard_of(bench: Bench) -> None:
    schedule_id = bench.create()
    bench.fire(hours=2)
    bench.world.sql("DROP TABLE public.things")
    bench.resources.catalogs.forget()

    bench.world.work()

    (run,) = bench.runs(schedule_id)
    assert (run.outcome, bench.backups(schedule_id)[0].status) == ("FAILED", "FAILED")
    assert run.error is not None
    assert bench.row(schedule_id).last_error == run.error


def test_a_clock_that_went_ahead_elsewhere_does_not_double_a_run(bench: Bench) -> None:
    schedule_id = bench.create()
    bench.fire(hours=2)
    bench.end(schedule_id)
    bench.clock.pass_by(seconds=-30)
    bench.schedules.pause(bench.caller, schedule_id)
    assert f"{bench.schedules.resume(bench.caller, schedule_id).next_run_at:%d %H}" == "01 02"

    assert bench.fire(seconds=31) == 0
    assert len(bench.backups(schedule_id)) == 1
    assert f"{bench.row(schedule_id).next_run_at:%d %H}" == "02 02"


def test_a_clock_that_was_a_year_ahead_for_a_while_leaves_no_schedule_silent(bench: Bench) -> None:
    daily, often = bench.create(), bench.create("0 */6 * * *", catch_up_seconds=600.0)
    assert bench.fire(days=365, hours=2, minutes=5) == 1, "one is caught up, for the other it is too late"
    bench.end(daily)
    changed = bench.create("0 5 * * *")

    assert bench.fire(days=-365) == 0
    assert bench.fire(hours=4) == 2, "06:00 of the one and 05:00 of the one that was made meanwhile"
    assert bench.fire(hours=20) == 1

    begun = [f"{run.due_at:%Y-%m-%d %H}" for run in bench.runs(daily) if run.outcome == "STARTED"]
    assert begun == ["2026-01-02 02", "2027-01-01 02"]
    assert [len(bench.backups(made)) for made in (often, changed)] == [1, 1]


def fired_at_once(bench: Bench, **span: float) -> int:
    """What three schedulers begin together that look at the same moment."""
    now, barrier = bench.clock.pass_by(**span), threading.Barrier(3)

    def fire(_number: int) -> int:
        barrier.wait(60)
        return Scheduler(bench.resources).fire(now)

    with ThreadPoolExecutor(3) as pool:
        return sum(pool.map(fire, range(3)))


def test_schedulers_that_fire_at_once_make_each_run_once(bench: Bench) -> None:
    bench.clock.pass_by(minutes=10)
    ids = [bench.create(f"{minute} * * * *") for minute in range(6)]
    for _ in range(4):
        assert fired_at_once(bench, hours=1) == 6
        for schedule_id in ids:
            bench.end(schedule_id)

    for schedule_id in ids:
        assert [outcome for _, outcome in bench.outcomes(schedule_id)] == ["STARTED"] * 4
        assert len(bench.backups(schedule_id)) == 4


def test_what_waits_is_begun_once_by_schedulers_that_fire_at_once(bench: Bench) -> None:
    ids = [bench.create("0 * * * *", overlap_policy=Overlap.BUFFER_ONE) for _ in range(6)]
    bench.fire(hours=1)
    for schedule_id in ids[:3]:
        bench.end(schedule_id, LOST)
    assert fired_at_once(bench, minutes=5) == 3
    bench.fire(minutes=55)
    for schedule_id in ids:
        bench.end(schedule_id)
    assert fired_at_once(bench, seconds=5) == 6

    for schedule_id in ids:
        tries = 2 if schedule_id in ids[:3] else 1
        assert [(run.outcome, run.attempts) for run in bench.runs(schedule_id)] == [("STARTED", tries), ("STARTED", 1)]
        assert len(bench.backups(schedule_id)) == tries + 1


def test_a_schedule_that_somebody_holds_is_left_to_them(bench: Bench) -> None:
    schedule_id = bench.create()
    with psycopg.connect(bench.resources.settings.control_dsn) as holder:
        holder.execute("SELECT 1 FROM dataops.schedules WHERE id = %s FOR UPDATE", (schedule_id,))
        assert bench.fire(hours=2) == 0

    assert bench.fire(seconds=5) == 1


def test_what_became_of_a_time_is_remembered_for_90_days(bench: Bench) -> None:
    schedule_id = bench.create()
    bench.fire(hours=2)
    with bench.resources.db.transaction() as session:
        assert forget_runs(session, bench.clock() + KEPT_FOR) == 0
        assert forget_runs(session, bench.clock() + KEPT_FOR + timedelta(seconds=1)) == 1
    assert bench.runs(schedule_id) == []
