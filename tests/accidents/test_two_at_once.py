"""Two that write one table: the second waits and says for whom, a job delivered twice has one effect."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from engine.jobs.calls import Jobs
from tests.engine.jobs.kit import wait_until
from tests.faults.test_imports_die import left_over, take_over
from tests.fix_workers import Start
from tests.world import World

SCHEMA = (
    "CREATE TABLE public.things (id int PRIMARY KEY, note text);"
    "CREATE TABLE public.parts (id int PRIMARY KEY, thing int REFERENCES public.things ON DELETE CASCADE);"
    "CREATE TABLE public.others (id int PRIMARY KEY);"
    "INSERT INTO public.things SELECT n, 'old' FROM generate_series(1, 100) n;"
    "INSERT INTO public.parts SELECT n, n FROM generate_series(1, 100) n"
)
UPSERT = {"import_type": "UPSERT"}
REPLACE: dict[str, Any] = {"import_type": "REPLACE", "max_deletes": 1_000, "allow_cascade": ["parts"]}
NEW = b"id,note\n" + b"".join(b"%d,new\n" % n for n in range(51, 151))


@pytest.fixture
def things(made: Callable[..., World]) -> World:
    return made(SCHEMA, heartbeat_seconds=0.3, look_seconds=0.2, fault_hooks=True)


def blocked_by(world, job_id):
    jobs = Jobs(world.resources.db, world.resources.bell, world.resources.clock)
    job, facts = jobs.get(world.caller, job_id)
    assert job.state == "PENDING"
    return facts.blocked_by.get(job.id, [])


def test_an_update_waits_visibly_for_a_replacement_of_its_entity_and_is_stale_after_it(things: World) -> None:
    first = things.plan("things", NEW, **REPLACE)
    second = things.plan("things", b"id,note\n1,mine\n", **UPSERT)
    first = things.apply(first, work=False)
    second = things.apply(second, work=False)

    assert blocked_by(things, first.apply_job_id) == []
    assert blocked_by(things, second.apply_job_id) == [first.apply_job_id]
    things.work()

    assert things.imports.get(things.caller, first.id).status == "COMPLETED"
    second = things.imports.get(things.caller, second.id)
    assert things.reason(second) == "PLAN_STALE"  # row 1 went with the replacement: it was shown as an update
    assert things.sql("SELECT count(*) FROM public.things WHERE id = 1") == [(0,)]


def test_an_import_of_what_a_cascade_reaches_waits_for_it_and_nothing_else_does(things: World) -> None:
    replacement = things.plan("things", NEW, **REPLACE)
    parts = things.plan("parts", b"id,thing\n500,60\n", **UPSERT)
    others = things.plan("others", b"id\n1\n", **UPSERT)
    replacement, parts, others = (things.apply(row, work=False) for row in (replacement, parts, others))

    assert blocked_by(things, parts.apply_job_id) == [replacement.apply_job_id]
    assert blocked_by(things, others.apply_job_id) == []
    reading = things.create("parts", b"id,thing\n501,60\n", **UPSERT)
    assert blocked_by(things, reading.plan_job_id) == []  # a plan only reads
    things.work()

    assert {things.imports.get(things.caller, r.id).status for r in (replacement, parts, others)} == {"COMPLETED"}
    assert things.sql("SELECT count(*) FROM public.parts") == [(51,)]


@pytest.mark.parametrize("options", [UPSERT, REPLACE], ids=["UPSERT", "REPLACE"])
@pytest.mark.parametrize("point", ["imports.apply.loaded", "imports.apply.written", "effect.before_commit"])
def test_a_paused_worker_that_wakes_after_the_take_over_changes_nothing(
    things: World, start_worker: Start, point: str, options: dict[str, Any]
) -> None:
    row = things.plan("things", NEW, **options)
    worker = start_worker(things.resources.settings, point)
    row = things.apply(row, work=False)
    worker.wait_at(point)
    worker.signal(signal.SIGSTOP)
    take_over(things, row.apply_job_id)
    things.sql("UPDATE public.things SET note = 'later' WHERE id = 51")
    worker.open_gate(point)

    worker.signal(signal.SIGCONT)
    wait_until(
        lambda: "job_left_to_another" in worker.log.read_text() or worker.poll() is not None, 60, worker.log.read_text
    )

    row = things.imports.get(things.caller, row.id)
    total = 100 if options is REPLACE else 150
    assert (row.status, things.sql("SELECT count(*) FROM public.things")) == ("COMPLETED", [(total,)])
    assert things.sql("SELECT note FROM public.things WHERE id = 51") == [("later",)]
    assert left_over(things) == (0, 0)


@pytest.mark.parametrize("options", [UPSERT, REPLACE], ids=["UPSERT", "REPLACE"])
def test_a_job_that_three_workers_hear_of_has_one_effect(
    things: World, start_worker: Start, options: dict[str, Any]
) -> None:
    things.sql(
        "CREATE TABLE public.noted (what text); CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO public.noted VALUES (tg_op); RETURN NULL; END $$;"
        "CREATE TRIGGER f AFTER INSERT OR UPDATE OR DELETE ON public.things EXECUTE FUNCTION public.f()"
    )
    row = things.plan("things", NEW, **options)
    workers = [start_worker(things.resources.settings) for _ in range(3)]
    for worker in workers:
        worker.wait_ready()
    row = things.apply(row, work=False)
    for _ in range(20):
        things.resources.bell.ring()
    wait_until(lambda: things.imports.get(things.caller, row.id).status == "COMPLETED", 60)
    time.sleep(0.5)

    assert things.job(row.apply_job_id).attempt == 1
    operations = dict(things.sql("SELECT what, count(*) FROM public.noted GROUP BY 1"))
    assert operations == {"INSERT": 1, "UPDATE": 1} | ({"DELETE": 1} if options is REPLACE else {})
