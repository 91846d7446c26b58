"""Taking a backup: its rows are those of one moment, whoever writes, truncates or migrates beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from engine.backups import take as taking
from engine.backups.rows import Counted
from engine.catalog import moment
from engine.errors import DataOpsError
from tests.engine.backups.bench import Direct, copied, names, read_all, take_directly
from tests.engine.jobs.kit import wait_until
from tests.world import World

Fresh = Callable[[str], World]

pytestmark = pytest.mark.usefixtures("two_sessions")

THINGS = (
    "CREATE TABLE public.things (id int PRIMARY KEY, note text);"
    "INSERT INTO public.things SELECT n, 'row ' || n FROM generate_series(1, 5000) n"
)
TWO = (
    "CREATE TABLE public.a (id int PRIMARY KEY, v int); CREATE TABLE public.b (id int PRIMARY KEY, v int);"
    "INSERT INTO public.a SELECT n, 0 FROM generate_series(1, 40000) n;"
    "INSERT INTO public.b SELECT n, 0 FROM generate_series(1, 1000) n"
)


def elsewhere(world: World, statement: str) -> threading.Thread:
    """Another session's statement, on a thread: it may have to wait for the backup's locks."""
    thread = threading.Thread(target=world.sql, args=[statement])
    thread.start()
    return thread


def waiting(world: World, mode: str) -> Callable[[], bool]:
    query = "SELECT count(*) FROM pg_locks WHERE mode = %s AND NOT granted AND relation IS NOT NULL"
    return lambda: world.sql(query, mode)[0][0] > 0


def test_what_others_write_meanwhile_is_not_in_it(fresh: Fresh) -> None:
    world = fresh(TWO)
    want = copied(world, "TABLE public.a"), copied(world, "TABLE public.b")
    work, told = Direct(world.resources.platform.dsn), []

    def write(rows: int) -> None:
        told.append(rows)
        world.sql("INSERT INTO public.a SELECT -n, 1 FROM generate_series(%s::int, %s::int) n", rows, rows + 9)
        world.sql("INSERT INTO public.b SELECT -n, 1 FROM generate_series(%s::int, %s::int) n", rows, rows + 9)
        world.sql("UPDATE public.b SET v = v + 1; DELETE FROM public.b WHERE id % 7 = 0")
        world.sql("UPDATE public.a SET id = id + 100000 WHERE id BETWEEN 39000 AND 39010")

    work.on_progress = write
    archive = take_directly(world, "a", "b", work=work)

    assert len(told) > 1
    assert (read_all(archive)["a"], read_all(archive)["b"]) == want


def test_a_truncate_that_waits_for_the_backup_lets_it_end(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the session that counts would wait behind the TRUNCATE, and that for the other session: until a timeout."""
    world = fresh(TWO)
    want = copied(world, "TABLE public.b")
    count, threads = taking._count, []

    def late(*arguments: Any) -> list[Counted]:
        threads.append(elsewhere(world, "TRUNCATE public.b"))
        wait_until(waiting(world, "AccessExclusiveLock"), 20)
        return count(*arguments)

    monkeypatch.setattr(taking, "_count", late)
    archive = take_directly(world, "a", "b")
    threads[0].join(20)

    assert read_all(archive)["b"] == want
    assert world.sql("SELECT count(*) FROM public.b") == [(0,)], "it has happened, behind the backup"


def test_a_truncate_that_was_first_is_waited_for_and_then_seen(fresh: Fresh) -> None:
    """A snapshot from before it would find an empty table: TRUNCATE goes past all snapshots."""
    world, done = fresh(TWO), []
    with psycopg.connect(world.resources.platform.dsn) as other:
        other.execute("TRUNCATE public.b")
        other.execute("INSERT INTO public.b VALUES (1, 1), (2, 2)")
        thread = threading.Thread(target=lambda: done.append(take_directly(world, "b")))
        world.resources.catalogs.forget()
        thread.start()
        wait_until(waiting(world, "AccessShareLock"), 20)
        other.commit()
    thread.join(20)

    assert read_all(done[0])["b"] == b"1\t1\n2\t2\n"


def test_a_table_that_changes_its_definition_before_the_lock_ends_it(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, lock = fresh(THINGS), moment.lock_shared

    def late(*arguments: Any) -> None:
        monkeypatch.setattr(taking, "lock_shared", lock)
        world.sql("ALTER TABLE public.things ADD COLUMN more int")
        lock(*arguments)

    monkeypatch.setattr(taking, "lock_shared", late)
    with pytest.raises(DataOpsError) as caught:
        take_directly(world, "things")

    assert caught.value.reason == "CATALOG_MOVED"


def test_a_lock_that_cannot_be_had_ends_it_within_seconds_and_leaves_nothing(fresh: Fresh) -> None:
    world = fresh(THINGS)
    before = names(world.resources.repository._storage)
    with psycopg.connect(world.resources.platform.dsn) as other:
        other.execute("LOCK public.things IN ACCESS EXCLUSIVE MODE")
        begun = time.monotonic()
        with pytest.raises(psycopg.errors.LockNotAvailable):  # by lock_timeout, 3 s
            take_directly(world, "things")
    assert time.monotonic() - begun < 30
    assert names(world.resources.repository._storage) == before


def test_an_interrupt_ends_it_and_nothing_is_published(fresh: Fresh) -> None:
    class Stop(BaseException):
        pass

    world = fresh(TWO)
    before = set(world.resources.repository.artifact_ids())
    work = Direct(world.resources.platform.dsn)

    def stop(_rows: int) -> None:
        raise Stop

    work.on_progress = stop
    with pytest.raises(Stop):
        take_directly(world, "a", "b", work=work)
    assert set(world.resources.repository.artifact_ids()) == before
