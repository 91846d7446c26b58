"""A crash or a lost connection in the middle of an update or a replacement: the old rows or the new ones,
nothing between,
the record says which, and trying again ends well."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from engine.errors import FailedPrecondition
from engine.imports import locks
from engine.jobs.calls import Jobs
from tests.faults.test_imports_die import finish, left_over, take_over
from tests.fix_workers import Start
from tests.world import World

pytestmark = pytest.mark.long

SCHEMA = (
    "CREATE TABLE public.things (id serial PRIMARY KEY, code text UNIQUE, note text);"
    "CREATE TABLE public.parts (id int PRIMARY KEY, thing int REFERENCES public.things ON DELETE CASCADE);"
    "INSERT INTO public.things SELECT n, 'c' || n, 'old' FROM generate_series(1, 2000) n;"
    "INSERT INTO public.parts SELECT n, n FROM generate_series(1, 2000, 10) n"
)
# unchanged 1-100, a chain of codes that move, updates to 1000, new from 5001
FILE = (
    b"id,code,note\n"
    + b"".join(b"%d,c%d,old\n" % (n, n) for n in range(1, 101))
    + b"".join(b"%d,%s,new\n" % (n, b"c%d" % (n + 1) if n < 110 else b"d%d" % n) for n in range(101, 1001))
    + b"".join(b"%d,e%d,new\n" % (n, n) for n in range(5001, 5501))
)
OPTIONS: dict[str, dict[str, Any]] = {
    "UPSERT": {"import_type": "UPSERT"},
    "REPLACE": {"import_type": "REPLACE", "max_deletes": 5_000, "allow_cascade": ["parts"]},
}
COUNTS = {
    "UPSERT": {"unchanged": 100, "updated": 900, "inserted": 500, "deleted": 0, "cascaded": 0},
    "REPLACE": {"unchanged": 100, "updated": 900, "inserted": 500, "deleted": 1_000, "cascaded": 100},
}


@pytest.fixture
def things(made: Callable[..., World]) -> World:
    return made(SCHEMA, heartbeat_seconds=0.3, fault_hooks=True)


def state(world: World) -> list[tuple[Any, ...]]:
    return world.sql(
        "SELECT (SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM public.things t),"
        " (SELECT md5(string_agg(p::text, '|' ORDER BY id)) FROM public.parts p)"
    )


def jobs_of(world: World) -> Jobs:
    return Jobs(world.resources.db, world.resources.bell, world.resources.clock)


def assert_done(world: World, mode: str) -> None:
    assert world.sql("SELECT count(*) FROM public.things") == [(2_500 if mode == "UPSERT" else 1_500,)]
    assert world.sql("SELECT count(*) FROM public.parts") == [(200 if mode == "UPSERT" else 100,)]
    assert world.sql("SELECT count(*) FROM public.things WHERE note = 'new'") == [(1_400,)]
    assert world.sql("SELECT code FROM public.things WHERE id IN (101, 109, 110) ORDER BY id") == [
        ("c102",), ("c110",), ("d110",),
    ]  # fmt: skip
    world.sql("INSERT INTO public.things (note) VALUES ('plain')")  # the sequence has followed, once
    assert world.sql("SELECT id FROM public.things WHERE note = 'plain'") == [(5_501,)]


@pytest.mark.parametrize("mode", ["UPSERT", "REPLACE"])
@pytest.mark.parametrize("point", ["imports.plan.staged", "imports.plan.judged", "imports.plan.written"])
def test_killed_while_planning_nothing_has_changed_and_the_plan_is_made_again(point, mode, things, start_worker):
    before = state(things)
    worker = start_worker(things.resources.settings, kill=point)
    row = things.create("things", FILE, **OPTIONS[mode])
    assert worker.wait() == -signal.SIGKILL
    assert things.imports.get(things.caller, row.id).status == "VALIDATING"
    assert state(things) == before

    take_over(things, row.plan_job_id)

    row = things.apply(things.imports.get(things.caller, row.id))
    assert (row.status, {name: row.report[name] for name in COUNTS[mode]}) == ("COMPLETED", COUNTS[mode])
    assert_done(things, mode)
    assert left_over(things) == (0, 0)


@pytest.mark.parametrize("mode", ["UPSERT", "REPLACE"])
@pytest.mark.parametrize(
    ("point", "stands"),
    [
        ("imports.apply.loaded", False),
        ("imports.apply.written", False),
        ("effect.before_commit", False),
        ("effect.after_commit", True),
        ("jobs.before_end", True),
    ],
)
def test_killed_while_applying_it_is_old_or_new_and_then_new_once(point, stands, mode, things, start_worker):
    before = state(things)
    row = things.plan("things", FILE, **OPTIONS[mode])
    worker = start_worker(things.resources.settings, kill=point)
    row = things.apply(row, work=False)
    assert worker.wait() == -signal.SIGKILL
    assert things.imports.get(things.caller, row.id).status == "PROCESSING"
    assert (state(things) == before) is not stands

    take_over(things, row.apply_job_id)

    row = things.imports.get(things.caller, row.id)
    assert (row.status, {name: row.report[name] for name in COUNTS[mode]}) == ("COMPLETED", COUNTS[mode])
    assert things.sql("SELECT state, count(*) FROM dataops_work.applied GROUP BY 1") == [("DONE", 1)]
    assert_done(things, mode)
    assert left_over(things) == (0, 0)


@pytest.mark.parametrize("mode", ["UPSERT", "REPLACE"])
@pytest.mark.parametrize(
    "point", ["imports.plan.staged", "imports.plan.judged", "imports.apply.loaded", "imports.apply.written",
              "effect.before_commit", "effect.after_commit"],
)  # fmt: skip
def test_a_session_that_the_server_ends_is_begun_anew(point, mode, things, start_worker):
    before, applies = state(things), not point.startswith("imports.plan")
    row = things.plan("things", FILE, **OPTIONS[mode]) if applies else None
    worker = start_worker(things.resources.settings, point)
    row = things.apply(row, work=False) if row else things.create("things", FILE, **OPTIONS[mode])
    worker.wait_at(point)

    things.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
               " AND pid <> pg_backend_pid()")  # fmt: skip
    assert (state(things) == before) is (point != "effect.after_commit")
    worker.open_gate(point)

    finish(things, row.apply_job_id or row.plan_job_id)
    row = things.imports.get(things.caller, row.id)
    row = row if applies else things.apply(row)
    assert (row.status, {name: row.report[name] for name in COUNTS[mode]}) == ("COMPLETED", COUNTS[mode])
    assert_done(things, mode)
    worker.signal(signal.SIGTERM)
    worker.wait()
    assert left_over(things) == (0, 0)


@pytest.mark.parametrize("mode", ["UPSERT", "REPLACE"])
def test_a_cancel_after_the_commit_takes_nothing_back(mode: str, things: World, start_worker: Start) -> None:
    row = things.plan("things", FILE, **OPTIONS[mode])
    worker = start_worker(things.resources.settings, "effect.after_commit")
    row = things.apply(row, work=False)
    worker.wait_at("effect.after_commit")
    things.imports.cancel(things.caller, row.id)
    worker.open_gate("effect.after_commit")

    finish(things, row.apply_job_id)

    row = things.imports.get(things.caller, row.id)
    assert (row.status, things.job(row.apply_job_id).state) == ("COMPLETED", "COMPLETED")
    assert_done(things, mode)


@pytest.mark.parametrize("mode", ["UPSERT", "REPLACE"])
def test_a_failure_that_may_pass_is_retried_by_hand_and_applies_the_same_plan(mode, things, monkeypatch):
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.1)
    row = things.plan("things", FILE, **OPTIONS[mode])
    before = state(things)
    with psycopg.connect(things.resources.platform.dsn) as other:
        other.execute("LOCK public.things IN SHARE ROW EXCLUSIVE MODE")
        row = things.apply(row, work=False)
        with things.resources.db.transaction() as session:
            session.execute(text("UPDATE dataops.jobs SET max_attempts = 1 WHERE id = :id"), {"id": row.apply_job_id})
        things.work()
        row = things.imports.get(things.caller, row.id)
        assert (row.status, things.reason(row), state(things)) == ("FAILED", "LOCK_TIMEOUT", before)

    jobs_of(things).retry(things.caller, row.apply_job_id, *things.request())
    things.work()

    row = things.imports.get(things.caller, row.id)
    assert (row.status, row.error, row.report["updated"]) == ("COMPLETED", None, 900)
    assert_done(things, mode)


@pytest.mark.parametrize("mode", ["UPSERT", "REPLACE"])
def test_a_stale_plan_is_not_retried(mode, things):
    row = things.plan("things", FILE, **OPTIONS[mode])
    things.sql("UPDATE public.things SET note = 'moved' WHERE id = 500")
    row = things.apply(row)

    assert things.reason(row) == "PLAN_STALE"
    with pytest.raises(FailedPrecondition) as caught:
        jobs_of(things).retry(things.caller, row.apply_job_id, *things.request())
    assert caught.value.reason == "JOB_NOT_RETRYABLE"
