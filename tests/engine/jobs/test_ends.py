"""How jobs end, and when they do not yet."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import pytest
from sqlalchemy import text

from engine.errors import FailedPrecondition, NotFound, Unavailable
from engine.faults import InjectedFault
from engine.ids import new_id
from engine.jobs import ending, service
from engine.jobs.model import ClaimMode
from engine.jobs.retry import backoff
from engine.jobs.run import JobRun
from tests.engine.jobs.kit import BATCHES, Bench, Scripted, wait_until


def script(bench: Bench, *acts: Callable[[JobRun], None]) -> None:
    handler = bench.handlers["SCRIPTED"]
    assert isinstance(handler, Scripted)
    handler.acts[:] = acts


def fail_with(error: Exception) -> Callable[[JobRun], None]:
    def act(_run: JobRun) -> None:
        raise error

    return act


def skip_pause(bench: Bench) -> None:
    with bench.resources.db.transaction() as session:
        session.execute(text("UPDATE dataops.jobs SET run_at = created_at WHERE state = 'PENDING'"))


def attempts_used_up(bench: Bench) -> None:
    with bench.resources.db.transaction() as session:
        session.execute(text("UPDATE dataops.jobs SET max_attempts = attempt"))


def test_a_domain_error_fails_at_once_and_is_told(bench: Bench) -> None:
    job_id = bench.create("REFUSED", ("users", ClaimMode.WRITE))

    bench.runner().run_next()

    job = bench.job(job_id)
    assert (job.state, job.attempt, bench.status(job_id)) == ("FAILED", 1, "FAILED EMPTY_FILE")
    want = {
        "reason": "EMPTY_FILE",
        "message": "file: found no rows",
        "metadata": {"rows": "0"},
        "retryable": False,
    }
    assert job.error is not None
    assert {name: job.error[name] for name in want} == want
    assert bench.events(job_id)[-1].payload["error"] == job.error
    with bench.resources.db.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM dataops.job_claims")) == 0


def test_an_unknown_exception_is_internal_and_its_text_stays_in_the_log(bench: Bench) -> None:
    job_id = bench.create("SCRIPTED")
    script(bench, fail_with(ValueError("password=hunter2")))

    bench.runner().run_next()

    job = bench.job(job_id)
    assert (job.state, bench.status(job_id)) == ("FAILED", "FAILED INTERNAL")
    assert "hunter2" not in bench.describe(job_id)
    assert job.error is not None
    assert job.error["metadata"]["error_id"] in job.error["message"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (psycopg.errors.DeadlockDetected(), "DEADLOCK"),
        (psycopg.errors.SerializationFailure(), "SERIALIZATION_CONFLICT"),
        (psycopg.errors.LockNotAvailable(), "LOCK_TIMEOUT"),
        (psycopg.errors.AdminShutdown(), "DATABASE_LOST"),
        (psycopg.OperationalError("server closed the connection"), "DATABASE_LOST"),
        (
            Unavailable("platform database: cannot open a session", reason="PLATFORM_UNREACHABLE"),
            "PLATFORM_UNREACHABLE",
        ),
    ],
)
def test_what_goes_away_by_itself_is_tried_again_later(
    error: Exception, reason: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # else the second attempt is due after half a second, and may be due before this has looked for it
    monkeypatch.setattr(ending, "backoff", lambda attempt: 1_000 * backoff(attempt))
    job_id = bench.create("SCRIPTED")
    script(bench, fail_with(error))

    bench.runner().run_next()

    job = bench.job(job_id)
    assert (job.state, job.attempt, bench.status(job_id)) == ("PENDING", 1, "WORKING")
    assert job.error is not None
    assert job.error["reason"] == reason
    assert job.run_at > bench.resources.clock()
    assert not bench.runner().run_next()
    skip_pause(bench)
    assert bench.run_until_end(job_id).state == "COMPLETED"
    assert bench.job(job_id).error is None


def test_the_fifth_failure_is_the_last(bench: Bench) -> None:
    job_id = bench.create("SCRIPTED")
    script(bench, *[fail_with(psycopg.errors.DeadlockDetected())] * 9)

    for _ in range(5):
        skip_pause(bench)
        assert bench.runner().run_next()

    job = bench.job(job_id)
    assert (job.state, job.attempt, bench.status(job_id)) == ("FAILED", 5, "FAILED DEADLOCK")


def test_a_statement_that_meets_a_real_lock_timeout_is_tried_again(bench: Bench) -> None:
    def lock(run: JobRun) -> None:
        with run.platform("lock", lock_timeout="50ms") as connection:
            connection.execute("LOCK TABLE public.effects IN SHARE MODE")

    job_id = bench.create("SCRIPTED")
    script(bench, lock)
    with bench.resources.platform.connect("blocker") as blocker:
        blocker.execute("LOCK TABLE public.effects IN ACCESS EXCLUSIVE MODE")
        bench.runner().run_next()

    assert (bench.job(job_id).error or {})["reason"] == "LOCK_TIMEOUT"
    assert bench.job(job_id).state == "PENDING"


def test_retry_puts_a_failed_job_back_with_its_claims_and_next_attempt(bench: Bench) -> None:
    job_id = bench.create("SCRIPTED", ("users", ClaimMode.WRITE))
    script(bench, fail_with(ValueError("defect")))
    bench.runner().run_next()

    with bench.resources.db.transaction() as session:
        job = service.retry_job(session, job_id, intent_id=None, now=bench.resources.clock(), handlers=bench.handlers)

    assert (job.state, bench.status(job_id)) == ("PENDING", "NEW")
    other = bench.create("PLAIN", ("users", ClaimMode.WRITE))
    with bench.resources.db.transaction() as session:
        assert service.blocked_by(session, [other]) == {other: [job_id]}
    done = bench.run_until_end(job_id)
    assert (done.state, done.attempt, bench.status(job_id)) == ("COMPLETED", 2, "DONE")


@pytest.mark.parametrize("kind", ["REFUSED", "PLAIN"])
def test_retry_of_what_cannot_go_better_is_refused(kind: str, bench: Bench) -> None:
    job_id = bench.create(kind)
    bench.runner().run_next()

    with bench.resources.db.transaction() as session, pytest.raises(FailedPrecondition) as refused:
        service.retry_job(session, job_id, intent_id=None, now=bench.resources.clock(), handlers=bench.handlers)

    assert refused.value.reason == "JOB_NOT_RETRYABLE"


def test_a_pending_job_is_cancelled_at_once(bench: Bench) -> None:
    job_id = bench.create("PLAIN", ("users", ClaimMode.EXCLUSIVE))
    behind = bench.create("PLAIN", ("users", ClaimMode.READ))

    assert bench.cancel(job_id).state == "CANCELLED"

    assert bench.status(job_id) == "CANCELLED"
    assert bench.run_until_end(behind).state == "COMPLETED"
    assert bench.job(job_id).attempt == 0


def test_cancel_of_what_has_ended_changes_nothing(bench: Bench) -> None:
    job_id = bench.create("PLAIN")
    bench.runner().run_next()
    before = bench.describe(job_id)

    assert bench.cancel(job_id).state == "COMPLETED"
    assert bench.describe(job_id) == before


def test_cancel_is_heard_at_progress(bench: Bench) -> None:
    def work(run: JobRun) -> None:
        bench.cancel(run.job.id)
        deadline = time.monotonic() + 10  # 2 s are promised
        while time.monotonic() < deadline:
            run.progress(rows=1)
            time.sleep(0.01)

    job_id = bench.create("SCRIPTED")
    script(bench, work)

    bench.runner().run_next()

    assert (bench.job(job_id).state, bench.status(job_id)) == ("CANCELLED", "CANCELLED")


def test_cancel_of_a_job_whose_worker_is_lost_needs_no_worker_that_answers(bench: Bench) -> None:
    def vanish(run: JobRun) -> None:
        bench.lease_runs_out(run.job.id)
        bench.runner("other")._claim()

    job_id = bench.create("SCRIPTED")
    script(bench, vanish)
    bench.runner().run_next()
    assert bench.job(job_id).state == "RUNNING"

    bench.cancel(job_id)

    assert bench.take_over(job_id).state == "CANCELLED"


def test_a_stop_that_a_handler_takes_for_an_error_of_its_own_is_still_a_stop(bench: Bench) -> None:
    job_id = bench.create("SCRIPTED")
    runner = bench.runner()

    def mistake_it(run: JobRun) -> None:
        runner.stop()
        wait_until(lambda: run.interrupt is not None, 30)
        raise Unavailable("the database: found a cancelled statement", reason="STATEMENT_LOST")

    script(bench, mistake_it)
    runner.run_next()

    job = bench.job(job_id)
    assert (job.state, job.attempt, job.error) == ("PENDING", 0, None)


def test_unknown_job_is_not_found(bench: Bench) -> None:
    with bench.resources.db.transaction() as session, pytest.raises(NotFound) as unknown:
        service.list_events(session, new_id(), 0, 10)
    assert unknown.value.reason == "JOB_UNKNOWN"


def test_a_lost_worker_on_the_last_attempt_fails_the_job(bench: Bench) -> None:
    job_id = bench.create("PLAIN")
    bench.runner("lost")._claim()
    attempts_used_up(bench)

    job = bench.take_over(job_id)

    assert (job.state, bench.status(job_id)) == ("FAILED", "FAILED WORKER_LOST")
    assert (job.error or {})["retryable"] is True


class _LostReply:
    """A connection whose COMMIT is done, and whose reply never comes."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        self._connection = connection

    def commit(self) -> None:
        self._connection.commit()
        raise psycopg.OperationalError("server closed the connection unexpectedly")


def write_once(run: JobRun, *, end: str) -> None:
    if run.take_over() is not None:
        return
    with run.platform("effect") as connection:
        run.announce(connection)
        run.hold(connection)
        connection.execute("INSERT INTO public.effects VALUES (%s, 0)", (run.job.id,))
        run.mark(connection, {"rows": 1})
        if end == "lost reply":
            run.commit(_LostReply(connection))  # type: ignore[arg-type]
        elif end == "killed in commit":
            with psycopg.connect(run.resources.settings.platform_dsn, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))
            run.commit(connection)
        else:
            run.commit(connection)
            raise InjectedFault(end)


def test_a_lost_reply_to_commit_is_decided_by_the_mark(bench: Bench) -> None:
    job_id = bench.create("SCRIPTED")
    script(bench, lambda run: write_once(run, end="lost reply"))

    bench.runner().run_next()

    assert (bench.job(job_id).state, bench.job(job_id).attempt, bench.effects(job_id)) == ("COMPLETED", 1, 1)


def test_a_commit_that_did_not_happen_is_done_again(bench: Bench) -> None:
    job_id = bench.create("SCRIPTED")
    script(bench, lambda run: write_once(run, end="killed in commit"), lambda run: write_once(run, end="lost reply"))

    bench.runner().run_next()
    assert (bench.job(job_id).state, bench.effects(job_id)) == ("PENDING", 0)
    skip_pause(bench)
    bench.runner().run_next()

    assert (bench.job(job_id).state, bench.job(job_id).attempt, bench.effects(job_id)) == ("COMPLETED", 2, 1)


def test_a_defect_after_the_commit_does_not_make_the_record_say_failed(bench: Bench) -> None:
    job_id = bench.create("SCRIPTED")
    script(bench, lambda run: write_once(run, end="defect"))

    bench.runner().run_next()
    assert bench.job(job_id).state == "PENDING"
    skip_pause(bench)
    bench.runner().run_next()

    assert (bench.job(job_id).state, bench.effects(job_id)) == ("COMPLETED", 1)


def test_a_defect_after_the_commit_that_stays_is_told_with_the_effect(bench: Bench) -> None:
    job_id = bench.create("SCRIPTED")
    script(bench, lambda run: write_once(run, end="defect"))
    attempts = bench.runner()
    with bench.resources.db.transaction() as session:
        session.execute(text("UPDATE dataops.jobs SET max_attempts = 1"))

    attempts.run_next()

    job = bench.job(job_id)
    assert job.state == "FAILED"
    assert (job.error or {})["metadata"]["effect"] == "committed"
    assert bench.effects(job_id) == 1


def test_a_job_whose_truth_is_out_of_reach_is_left_open_until_it_is_not(bench: Bench) -> None:
    # The platform database cannot be asked when the attempts are used up: neither FAILED nor COMPLETED would be known.
    def commit_then_lose_the_platform(run: JobRun) -> None:
        write_once(run, end="lost reply")
        allow_connections(bench, False)
        raise psycopg.errors.AdminShutdown

    job_id = bench.create("SCRIPTED")
    script(bench, commit_then_lose_the_platform)
    with bench.resources.db.transaction() as session:
        session.execute(text("UPDATE dataops.jobs SET max_attempts = 1"))

    bench.runner().run_next()
    assert bench.job(job_id).state == "RUNNING"
    allow_connections(bench, True)

    assert bench.take_over(job_id).state == "COMPLETED"
    assert bench.effects(job_id) == 1


def allow_connections(bench: Bench, allowed: bool) -> None:
    name = bench.resources.settings.platform_dsn.rsplit("/", 1)[1]
    with psycopg.connect(bench.resources.settings.control_dsn, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}".encode())


def test_a_lease_that_runs_out_by_time_is_taken_over(bench: Bench) -> None:
    settings = bench.resources.settings.model_copy(update={"lease_seconds": 0.5})
    job_id = bench.create("EFFECT")
    short = Bench(bench.resources, bench.handlers)
    object.__setattr__(short.resources, "settings", settings)
    short.runner("lost")._claim()
    survivor = short.runner("survivor")

    wait_until(survivor.run_next, 30)

    assert (bench.job(job_id).state, bench.job(job_id).attempt, bench.effects(job_id)) == ("COMPLETED", 2, BATCHES)
