"""The backup before an import: what the import writes, as it was; no import without it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from engine.backups import take as taking
from engine.backups.service import Backups
from engine.backups.uses import in_use
from engine.db.models import BackupRow
from engine.errors import DataLoss, FailedPrecondition
from engine.imports.apply import Applier
from engine.jobs import ending
from tests.engine.backups.bench import copied, read_all, records
from tests.engine.backups.kit import back_up
from tests.world import World

THINGS = "CREATE TABLE public.things (id int PRIMARY KEY, note text); INSERT INTO public.things VALUES (1, 'before')"
FILE = b"id,note\n1,after\n2,new\n"


@pytest.fixture
def things(made: Callable[..., World]) -> World:
    return made(THINGS)


def test_an_import_is_preceded_by_a_backup_of_what_it_writes(things: World) -> None:
    before = copied(things, "TABLE public.things")
    row = things.load("things", FILE, import_type="UPSERT")

    assert (row.status, row.report and row.report["updated"]) == ("COMPLETED", 1)
    (backup,) = records(things)
    assert (row.pre_import_backup_id, backup.job_id) == (backup.id, row.apply_job_id)
    assert (backup.status, backup.trigger_type, backup.entity_types) == ("COMPLETED", "PRE_IMPORT", ["things"])
    assert backup.expires_at is not None
    assert read_all(Backups(things.resources).archive(backup))["things"] == before
    assert "NOT_BACKED_UP" not in str(row.report)


def test_where_a_backup_holds_the_entity_an_increment_of_it_is_enough(made: Callable[..., World]) -> None:
    world = made(THINGS + "; CREATE TABLE public.more (id int)")
    full = back_up(world)
    world.sql("UPDATE public.things SET note = 'since' WHERE id = 1")
    before = copied(world, "TABLE public.things")
    world.load("things", FILE, import_type="UPSERT")
    world.load("things", b"id,note\n3,newer\n", import_type="UPSERT")

    _, first, second = records(world)
    for backup in (first, second):
        assert (backup.backup_type, backup.trigger_type, backup.entity_types) == (
            "INCREMENTAL",
            "PRE_IMPORT",
            ["things"],
        )
        assert (backup.parent_id, backup.chain_id) == (full.id, full.id), "one before an import is nobody's parent"
    archive = Backups(world.resources).archive(first)
    assert read_all(archive)["things"] == before
    assert first.total_size_bytes == first.file_size_bytes + full.file_size_bytes


def test_where_candidates_do_not_tell_what_changed_a_full_one_is_quicker(made: Callable[..., World]) -> None:
    world = made(THINGS + "; INSERT INTO public.things VALUES (8, 'goes')")
    back_up(world)
    world.sql("DELETE FROM public.things WHERE id = 8")
    world.load("things", FILE, import_type="UPSERT")

    _, backup = records(world)
    assert (backup.backup_type, backup.parent_id, backup.status) == ("FULL", None, "COMPLETED")
    assert backup.full_because == "things: candidates do not tell what has changed"


def test_rows_that_foreign_keys_will_change_are_in_it_too(made: Callable[..., World]) -> None:
    world = made(
        "CREATE TABLE public.parents (id int PRIMARY KEY); INSERT INTO public.parents VALUES (1), (2);"
        "CREATE TABLE public.children (id int PRIMARY KEY, parent int REFERENCES public.parents ON DELETE CASCADE);"
        "INSERT INTO public.children VALUES (10, 2)"
    )
    planned = world.plan("parents", b"id\n1\n", import_type="REPLACE", allow_cascade=["children"])
    row = world.apply(planned, deletes=1)

    assert row.status == "COMPLETED", row.error
    (backup,) = records(world)
    assert read_all(Backups(world.resources).archive(backup)) | {"settings": b""} == {
        "parents": b"1\n2\n",
        "children": b"10\t2\n",
        "settings": b"",
    }


def test_an_import_whose_backup_is_not_whole_does_not_start(things: World, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = things.plan("things", FILE, import_type="UPSERT")

    def incomplete(*_arguments: object) -> None:
        raise DataLoss("things: found 0 rows", reason="BACKUP_INCOMPLETE")

    monkeypatch.setattr(taking, "proven", incomplete)
    row = things.apply(planned)

    assert (row.status, things.reason(row), row.pre_import_backup_id) == ("FAILED", "BACKUP_INCOMPLETE", None)
    assert things.sql("TABLE public.things") == [(1, "before")]
    (backup,) = records(things)
    assert (backup.status, (backup.error or {})["reason"]) == ("FAILED", "BACKUP_INCOMPLETE")


def test_an_import_whose_tables_are_locked_is_tried_again_with_a_backup_of_its_own(
    things: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "backoff", lambda _attempt: timedelta(hours=1))  # until this says so
    planned = things.plan("things", FILE, import_type="UPSERT")
    with psycopg.connect(things.resources.platform.dsn) as other:
        other.execute("LOCK public.things IN ACCESS EXCLUSIVE MODE")
        row = things.apply(planned)
    assert row.status == "PROCESSING"
    assert [backup.status for backup in records(things)] == ["FAILED"]

    with things.resources.db.transaction() as session:
        job = things.job(row.apply_job_id)
        job.run_at = things.resources.clock()
        session.merge(job)
    things.work()

    row = things.imports.get(things.caller, row.id)
    assert row.status == "COMPLETED", row.error
    assert [backup.status for backup in records(things)] == ["FAILED", "COMPLETED"]
    assert row.pre_import_backup_id == records(things)[1].id


def test_it_cannot_be_deleted_while_the_import_that_it_is_for_has_not_ended(
    things: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups, seen = Backups(things.resources), []

    def look() -> None:
        (backup,) = records(things)
        with pytest.raises(FailedPrecondition) as caught:
            backups.delete(things.caller, backup.id)
        seen.append((backup.status, caught.value.reason))

    apply = Applier.apply

    def looked_at(self: Applier, backup_id: uuid.UUID) -> dict[str, Any]:
        look()
        return apply(self, backup_id)

    monkeypatch.setattr(Applier, "apply", looked_at)
    row = things.load("things", FILE, import_type="UPSERT")

    assert (row.status, seen) == ("COMPLETED", [("COMPLETED", "BACKUP_IN_USE")])
    (backup,) = records(things)
    assert not _in_use(things, backup)
    assert backups.delete(things.caller, backup.id).status == "DELETED"
    assert list(things.resources.repository.artifact_ids()) == []


def _in_use(world: World, row: BackupRow) -> str:
    with world.resources.db.transaction() as session:
        return in_use(session, row)
