"""The fence, against real backends that hold it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from engine.db.platform import Connection, Platform
from engine.errors import InternalError, PlatformNotPrepared
from engine.ids import new_id
from engine.jobs import fence
from engine.jobs.interrupts import LeaseLost
from tests.engine.jobs.kit import Bench


@pytest.fixture
def platform(bench: Bench) -> Platform:
    with bench.resources.platform.connect("test", autocommit=True) as connection:
        fence.ensure_work_schema(connection)
    return bench.resources.platform


@pytest.fixture
def session(platform: Platform) -> Iterator[Connection]:
    with platform.connect("test", autocommit=True) as connection:
        yield connection


def test_take_over_ends_the_backend_that_holds_the_effect(platform: Platform, session: Connection) -> None:
    job = new_id()
    with platform.connect("old") as old:
        fence.announce(old, job, 1)
        fence.hold(old, job, 1)
        old.execute("INSERT INTO public.effects VALUES (%s, 0)", (job,))

        assert fence.raise_fence(session, job, 2) is None

        with pytest.raises(psycopg.OperationalError):
            old.execute("SELECT 1")
    assert session.execute("SELECT count(*) FROM public.effects").fetchone() == (0,)


def test_take_over_after_the_commit_reads_the_facts(platform: Platform, session: Connection) -> None:
    job = new_id()
    with platform.connect("old") as old:
        fence.announce(old, job, 1)
        fence.hold(old, job, 1)
        fence.mark(old, job, 1, {"rows": 3})
        old.commit()

    found = fence.raise_fence(session, job, 2)

    assert found is not None
    assert (found.state, found.facts) == ("DONE", {"rows": 3})


def test_an_older_fence_is_refused_at_every_step(platform: Platform, session: Connection) -> None:
    job = new_id()
    with platform.connect("old") as old:
        fence.announce(old, job, 1)
        fence.raise_fence(session, job, 2)

        with pytest.raises(LeaseLost):
            fence.hold(old, job, 1)
        with pytest.raises(LeaseLost):
            fence.mark(old, job, 1, {})
        old.rollback()
        with pytest.raises(LeaseLost):
            fence.announce(old, job, 1)
    with pytest.raises(LeaseLost):
        fence.raise_fence(session, job, 1)


def test_a_session_that_did_not_announce_itself_may_not_hold(platform: Platform, session: Connection) -> None:
    # A take-over could not find it to end it.
    job = new_id()
    fence.announce(session, job, 1)
    with platform.connect("another") as another, pytest.raises(LeaseLost):
        fence.hold(another, job, 1)


def test_a_committed_effect_cannot_be_begun_again(platform: Platform) -> None:
    job = new_id()
    with platform.connect("first") as connection:
        fence.announce(connection, job, 1)
        fence.hold(connection, job, 1)
        fence.mark(connection, job, 1, {})
        connection.commit()
        fence.announce(connection, job, 1)
        with pytest.raises(InternalError):
            fence.hold(connection, job, 1)


def test_take_over_waits_for_a_commit_that_is_on_its_way(platform: Platform, session: Connection) -> None:
    # A deferred trigger makes COMMIT itself slow. The terminated backend rolls back, and only then is the mark read.
    job = new_id()
    session.execute(
        "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_catalog.pg_sleep(30); RETURN NULL; END';"
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON public.effects DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION public.slow()"
    )
    try:
        with platform.connect("old") as old:
            fence.announce(old, job, 1)
            fence.hold(old, job, 1)
            old.execute("INSERT INTO public.effects VALUES (%s, 0)", (job,))
            fence.mark(old, job, 1, {})
            failure: list[BaseException] = []

            def commit() -> None:
                try:
                    old.commit()
                except psycopg.Error as error:
                    failure.append(error)

            thread = threading.Thread(target=commit)
            thread.start()
            while session.execute(
                "SELECT wait_event FROM pg_stat_activity WHERE pid = %s", (old.info.backend_pid,)
            ).fetchone() != ("PgSleep",):
                pass

            found = fence.raise_fence(session, job, 2)

            thread.join(30)
        assert found is None
        assert len(failure) == 1
        assert session.execute("SELECT count(*) FROM public.effects").fetchone() == (0,)
    finally:
        session.execute("DROP TRIGGER slow ON public.effects; DROP FUNCTION public.slow()")


def test_without_the_right_to_make_the_schema_the_sql_is_given_and_works(
    bench: Bench, platform: Platform, session: Connection
) -> None:
    session.execute(
        "DROP SCHEMA dataops_work CASCADE; DROP ROLE IF EXISTS clerk; CREATE ROLE clerk LOGIN PASSWORD 'clerk'"
    )
    owner = bench.resources.settings.platform_dsn
    clerk = psycopg.conninfo.make_conninfo(owner, user="clerk", password="clerk")
    try:
        with psycopg.connect(clerk, autocommit=True) as connection:
            with pytest.raises(PlatformNotPrepared) as refused:
                fence.ensure_work_schema(connection)
            session.execute(refused.value.metadata["sql"].encode())
            assert fence.ensure_work_schema(connection) is False
            assert fence.raise_fence(connection, new_id(), 1) is None
    finally:
        session.execute(sql.SQL("DROP OWNED BY clerk; DROP ROLE clerk"))


def test_two_workers_make_the_schema_at_once(bench: Bench) -> None:
    made: list[bool] = []

    def make() -> None:
        with bench.resources.platform.connect("test", autocommit=True) as connection:
            made.append(fence.ensure_work_schema(connection))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(made) == 4
