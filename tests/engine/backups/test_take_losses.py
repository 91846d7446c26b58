"""Taking a backup: nothing is lost in silence. What is not every row is no backup."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from psycopg import sql

from engine.backups import rows
from engine.backups import take as taking
from engine.backups.model import BackupRequest
from engine.backups.service import Backups
from engine.db.models import JobRow
from engine.errors import DataLoss, Unavailable
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

    def other(*arguments: Any) -> sql.Composed:
        text = copy(*arguments).as_string().replace("COPY (", "").replace(") TO STDOUT", "")
        return sql.SQL("COPY ({}) TO STDOUT").format(sql.SQL(change.format(text)))

    monkeypatch.setattr(taking, "copy_of", other)


LOSSES = {
    "a row is missing": "SELECT * FROM ({}) x OFFSET 1",
    "all rows are missing": "SELECT * FROM ({}) x LIMIT 0",
    "a row is there twice": "SELECT * FROM (({0}) UNION ALL ({0} LIMIT 1)) x",
    "a row stands for another": "SELECT * FROM (({0} LIMIT 4999) UNION ALL ({0} LIMIT 1)) x",
}


@pytest.mark.parametrize("apart", [0, 1 << 40], ids=["two sessions", "one session"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_stream_that_is_not_the_table_is_no_backup(
    loss: str, apart: int, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "APART_BYTES", apart)
    world = fresh(THINGS)
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
