"""Taking a backup: nothing is lost in silence. What is not every row is no backup."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from psycopg import sql

from engine.backups import rows
from engine.backups import take as taking
from engine.backups.model import BackupRequest
from engine.backups.service import Backups
from engine.db.models import JobRow
from engine.errors import DataLoss, DataOpsError, Unavailable
from engine.jobs.registry import handlers
from engine.jobs.service import retry_job
from tests.engine.backups.bench import folders, names, take_directly
from tests.world import World

Fresh = Callable[[str], World]

pytestmark = pytest.mark.usefixtures("two_sessions")

THINGS = (
    "CREATE TABLE public.things (id int PRIMARY KEY, note text);"
    "INSERT INTO public.things SELECT n, 'row ' || n FROM generate_series(1, 5000) n"
)


def broken(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """Makes the COPY give something else than the table holds."""
    copy = rows.copy_of

    def other(*arguments: Any, **options: Any) -> sql.Composed:
        text = copy(*arguments, **options).as_string().replace("COPY (", "").replace(") TO STDOUT", "")
        return sql.SQL("COPY ({}) TO STDOUT").format(sql.SQL(change.format(text)))

    monkeypatch.setattr(taking, "copy_of", other)


LOSSES = {
    "a row is missing": "SELECT * FROM ({}) x OFFSET 1",
    "all rows are missing": "SELECT * FROM ({}) x LIMIT 0",
    "a row is there twice": "SELECT * FROM (({0}) UNION ALL ({0} LIMIT 1)) x",
    "a row stands for another": "SELECT * FROM (({0} LIMIT 4999) UNION ALL ({0} LIMIT 1)) x",
}


@pytest.mark.parametrize("apart", [0, 1 << 40], ids=["two sessions", "one session"])
@pytest.mark.parametrize("column", ["text", "regtype"], ids=["by place", "by fingerprint"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_stream_that_is_not_the_table_is_no_backup(
    loss: str, column: str, apart: int, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "APART_BYTES", apart)
    world = fresh(f"{THINGS}; ALTER TABLE public.things ADD x {column}")
    before = set(world.resources.repository.artifact_ids())
    broken(monkeypatch, LOSSES[loss])
    with pytest.raises(DataLoss) as caught:
        take_directly(world, "things")

    assert (caught.value.reason, caught.value.metadata) == ("BACKUP_INCOMPLETE", {"entity": "things"})
    assert set(world.resources.repository.artifact_ids()) == before


def test_a_job_whose_stream_lost_rows_ends_failed(made: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    world = made(THINGS)
    backups = Backups(world.resources)
    broken(monkeypatch, LOSSES["a row is missing"])
    row = backups.create(world.caller, BackupRequest(("things",)), *world.request())
    world.work()

    row = backups.get(world.caller, row.id)
    assert (row.status, (row.error or {})["reason"]) == ("FAILED", "BACKUP_INCOMPLETE")
    assert world.job(row.job_id).state == "FAILED"
    assert names(world.resources.repository._storage, "manifests/") == []


def test_a_job_that_failed_in_its_middle_is_tried_again_and_makes_the_one_backup(
    made: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = made(THINGS)
    backups = Backups(world.resources)

    def fail(*_arguments: Any) -> None:
        raise Unavailable("the storage failed", reason="STORAGE_FAILED")

    with monkeypatch.context() as patched:
        patched.setattr(type(world.resources.repository), "publish", fail)
        row = backups.create(world.caller, BackupRequest(("things",)), *world.request())
        with world.resources.db.transaction() as session:
            job = session.get(JobRow, row.job_id)
            assert job is not None
            job.max_attempts = 1
        world.work()
    row = backups.get(world.caller, row.id)
    assert (row.status, (row.error or {})["reason"]) == ("FAILED", "STORAGE_FAILED")
    assert len(names(world.resources.repository._storage, "segments/")) > 0
    assert row.job_id is not None

    with world.resources.db.transaction() as session:
        retry_job(session, row.job_id, intent_id=None, now=world.resources.clock(), handlers=handlers())
    assert backups.get(world.caller, row.id).status == "PENDING"
    world.work()

    row = backups.get(world.caller, row.id)
    assert (row.status, row.error, row.entities[0]["rows"]) == ("COMPLETED", None, 5000)
    assert row.artifact_id is not None
    assert {name.split("/")[1] for name in folders(world.resources.repository._storage)} == {row.artifact_id.hex}


def test_an_index_that_lacks_rows_loses_none(made: Callable[..., World]) -> None:
    world = made("CREATE TABLE public.t (id int PRIMARY KEY); INSERT INTO public.t SELECT generate_series(1, 500)")
    ready = (
        "SET allow_system_table_mods = on; UPDATE pg_index SET indisready = {} WHERE indexrelid = 't_pkey'::regclass"
    )
    world.sql(ready.format("false"))
    world.sql("INSERT INTO public.t SELECT generate_series(501, 1000)")
    world.sql(ready.format("true"))
    name = world.sql("SELECT current_database()")[0][0]
    world.sql(f"ALTER DATABASE {name} SET enable_seqscan = off; ALTER DATABASE {name} SET enable_sort = off")
    assert world.sql("SELECT count(*) FROM (SELECT id FROM public.t ORDER BY id) t") == [(500,)], "a sick index"

    archive = take_directly(world, "t")
    assert archive.manifest.entities[0].rows == 1000


def test_rows_come_in_their_own_order_from_a_database_that_loves_to_read_in_parallel(fresh: Fresh) -> None:
    world = fresh("CREATE TABLE public.t (id int); INSERT INTO public.t SELECT generate_series(1, 50000)")
    (name,) = world.sql("SELECT current_database()")[0]
    for setting in ("parallel_tuple_cost", "parallel_setup_cost", "min_parallel_table_scan_size"):
        world.sql(f"ALTER DATABASE {name} SET {setting} = 0")
    archive = take_directly(world, "t")

    (entity,) = archive.manifest.entities
    assert b"".join(archive.rows(entity)) == b"".join(b"%d\n" % n for n in range(1, 50001))


RENAMED = {
    "a label": (
        "CREATE TYPE public.mood AS ENUM ('sad', 'ok'); CREATE DOMAIN public.felt AS public.mood;"
        "CREATE TABLE public.t (id int, m public.felt);"
        "INSERT INTO public.t SELECT g, 'ok' FROM generate_series(1, 50) g",
        "ALTER TYPE public.mood RENAME VALUE 'ok' TO 'fine'",
        "CATALOG_MOVED",
    ),
    "a label, and back": (
        "CREATE TYPE public.mood AS ENUM ('sad', 'ok'); CREATE TABLE public.t (id int, m public.mood);"
        "INSERT INTO public.t SELECT g, 'ok' FROM generate_series(1, 50) g",
        "ALTER TYPE public.mood RENAME VALUE 'ok' TO 'fine'; ALTER TYPE public.mood RENAME VALUE 'fine' TO 'ok'",
        "CATALOG_MOVED",
    ),
    "what a column names": (
        "CREATE TABLE public.other (); CREATE TABLE public.t (id int, m regclass);"
        "INSERT INTO public.t SELECT g, 'public.other' FROM generate_series(1, 50) g",
        "ALTER TABLE public.other RENAME TO another",
        "BACKUP_INCOMPLETE",
    ),
    "a foreign partition, by whoever makes its rows": (
        "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;"
        "CREATE TABLE public.t (id int, m text) PARTITION BY LIST (id);"
        "CREATE FOREIGN TABLE public.p PARTITION OF public.t FOR VALUES IN (1) SERVER files"
        " OPTIONS (program 'date +1,%N', format 'csv')",
        "SELECT 1",
        "BACKUP_INCOMPLETE",
    ),
}


@pytest.mark.parametrize("apart", [0, 1 << 40], ids=["two sessions", "one session"])
@pytest.mark.parametrize("what", RENAMED)
def test_rows_that_are_printed_in_two_ways_are_no_backup(
    what: str, apart: int, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a label's name nor that of a table is part of a snapshot."""
    schema, change, reason = RENAMED[what]
    world = fresh(schema)
    monkeypatch.setattr(taking, "APART_BYTES", apart)
    stream, count, streamed = taking._Taking._stream, rows.count_read, threading.Event()

    def then_change(*arguments: Any) -> Any:
        done = stream(*arguments)
        world.sql(change)
        streamed.set()
        return done

    def afterwards(*arguments: Any) -> Any:
        assert streamed.wait(20)
        return count(*arguments)

    monkeypatch.setattr(taking._Taking, "_stream", then_change)
    monkeypatch.setattr(taking, "count_read", afterwards)
    with pytest.raises(DataOpsError) as caught:
        take_directly(world, "t")
    assert caught.value.reason == reason
