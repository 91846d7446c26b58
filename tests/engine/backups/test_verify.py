"""A verification finds what is wrong with a backup, says so, and remembers it; nothing else is held against it."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from engine.backups.model import VerifyLevel
from engine.backups.service import Backups
from engine.backups.verify import verify as prove
from engine.db.models import AuditEventRow, BackupRow, JobEventRow, JobRow
from engine.errors import DataLoss, FailedPrecondition, NotFound
from engine.resources import open_resources
from tests.engine.backups.kit import Told, archive_of, back_up, caller_with
from tests.world import World

L = VerifyLevel
TABLES = (
    "CREATE TYPE public.mood AS ENUM ('sad'); CREATE TABLE public.notes (id int PRIMARY KEY, note text);"
    " CREATE TABLE public.others (id int PRIMARY KEY, m public.mood); CREATE TABLE public.nothing (id int PRIMARY KEY)"
)


@pytest.fixture
def world(fresh: Callable[[str], World]) -> World:
    found = fresh(TABLES)
    found.sql("INSERT INTO public.notes SELECT g, 'n' || g FROM generate_series(1, 100) g")
    found.sql("INSERT INTO public.others VALUES (1, 'sad'), (2, NULL)")
    return found


@pytest.fixture
def other_keys(world: World) -> Iterator[Callable[[str], World]]:
    """The same world with another key ring."""
    opened: list[World] = []

    def make(keys: str) -> World:
        settings = world.resources.settings.model_copy(update={"keys": keys})
        opened.append(World(open_resources(settings, name="tests", pool_size=3)))
        return opened[-1]

    yield make
    for found in opened:
        found.resources.close()


def verify(world: World, row: BackupRow, level: VerifyLevel) -> JobRow:
    job_id = Backups(world.resources).verify(world.caller, row.id, level, *world.request())
    world.work()
    return world.job(job_id)


def remembered(world: World, row: BackupRow) -> dict[str, tuple[bool, Any]]:
    """By level: whether it was good, and the reason if not."""
    found = Backups(world.resources).get(world.caller, row.id).verifications
    return {level: (v["good"], (v["error"] or {}).get("reason")) for level, v in found.items()}


def objects(world: World, row: BackupRow, kind: str) -> list[Path]:
    assert row.artifact_id is not None
    return sorted((Path(world.resources.settings.artifacts) / kind / row.artifact_id.hex).iterdir())


def segment(world: World, row: BackupRow, entity: str) -> Path:
    manifest = archive_of(world, row).manifest
    backed = manifest.entity(entity)
    assert backed is not None
    ((_, found),) = manifest.numbered(manifest.stream_of(backed))
    return next(path for path in objects(world, row, "segments") if path.name == found.name)


@pytest.mark.parametrize("level", list(L))
def test_a_good_backup_is_remembered_as_good_up_to_the_level(world, level):
    row = back_up(world)

    job = verify(world, row, level)

    assert (job.state, job.error) == ("COMPLETED", None)
    assert remembered(world, row) == dict.fromkeys(list(L)[: list(L).index(level) + 1], (True, None))
    assert {e.outcome for e in _audit(world, job)} == {"", "COMPLETED"}


def _audit(world: World, job: JobRow) -> list[AuditEventRow]:
    with world.resources.db.transaction() as session:
        of_job = (AuditEventRow.id == job.intent_id) | (AuditEventRow.intent_id == job.intent_id)
        return list(session.scalars(select(AuditEventRow).where(of_job)))


def test_a_database_of_another_encoding_says_nothing_of_the_backup(make_world, postgres, empty_dsn):
    """Fingerprints are of the bytes that the server keeps, which are others there for the same texts."""
    table = "CREATE TABLE public.t (id int PRIMARY KEY, note text)"
    with postgres.connect() as connection:
        connection.execute("CREATE DATABASE verify_latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    latin, other = make_world(postgres.dsn("verify_latin")), make_world(empty_dsn)
    latin.sql(f"{table}; INSERT INTO public.t VALUES (1, U&'caf\\00e9')")
    other.sql(table)
    row = back_up(latin)

    at_home, elsewhere = verify(latin, row, L.RESTORED), verify(other, row, L.RESTORED)

    assert at_home.state == "COMPLETED", at_home.error
    error = elsewhere.error or {}
    assert (elsewhere.state, error["reason"]) == ("FAILED", "SCHEMA_INCOMPATIBLE")
    assert all(name in error["message"] for name in ("LATIN1", "UTF8"))
    assert remembered(other, row)["RESTORED"] == (True, None)
    latin.resources.close()
    postgres.drop_database("verify_latin")


def test_restored_counts_all_rows_and_leaves_nothing_on_the_platform(world):
    row = back_up(world)
    tables = "SELECT count(*) FROM pg_class"
    before = world.sql(tables)

    job = verify(world, row, L.RESTORED)

    assert (job.progress["stage"], job.progress["rows_done"]) == ("LOAD", 102)
    assert world.sql(tables) == before


@pytest.mark.parametrize("rows", ["(1), (2), (1)", "(1), (NULL)"])
def test_two_rows_of_one_key_and_a_row_without_are_no_good_backup(fresh, rows):
    """An index that let them in would be a defect of the platform, of which its own constraint says nothing."""
    world = fresh("CREATE TABLE public.t (id int)")
    world.sql(f"INSERT INTO public.t VALUES {rows}")
    archive = archive_of(world, back_up(world))
    (entity,) = archive.manifest.entities
    archive.manifest = replace(archive.manifest, entities=(replace(entity, key=("id",)),))

    prove(Told(world), archive, L.DECODED)
    with pytest.raises(DataLoss) as caught:
        prove(Told(world), archive, L.RESTORED)

    assert caught.value.reason == "BACKUP_DAMAGED"


def flip(world: World, row: BackupRow) -> None:
    path = segment(world, row, "notes")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(world: World, row: BackupRow) -> None:
    path = segment(world, row, "notes")
    path.write_bytes(path.read_bytes()[:-1])


def lose(world: World, row: BackupRow) -> None:
    segment(world, row, "notes").unlink()


def swap(world: World, row: BackupRow) -> None:
    one, two = segment(world, row, "notes"), segment(world, row, "others")
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


def replace_by_an_earlier_one(world: World, row: BackupRow) -> None:
    """The same entity's segment of another backup."""
    other = back_up(world)
    shutil.copyfile(segment(world, other, "notes"), segment(world, row, "notes"))


def flip_settings(world: World, row: BackupRow) -> None:
    archive = archive_of(world, row)
    name = archive.manifest.segments[-1].name
    path = next(path for path in objects(world, row, "segments") if path.name == name)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES = {
    flip: (None, "PART_DAMAGED"),
    cut: ("BACKUP_INCOMPLETE", "BACKUP_INCOMPLETE"),
    lose: ("BACKUP_INCOMPLETE", "BACKUP_INCOMPLETE"),
    swap: ("BACKUP_INCOMPLETE", "BACKUP_INCOMPLETE"),
    replace_by_an_earlier_one: (None, "PART_DAMAGED"),
    flip_settings: (None, "PART_DAMAGED"),
}
"""What PRESENT finds, which asks for lengths alone, and what the others do."""


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_of_a_segment_is_found_told_and_remembered(world, damage):
    row = back_up(world)
    damage(world, row)

    for level, reason in zip(L, (DAMAGES[damage][0], DAMAGES[damage][1], DAMAGES[damage][1]), strict=True):
        job = verify(world, row, level)

        if reason is None:
            assert job.state == "COMPLETED"
        else:
            assert (job.state, (job.error or {}).get("reason")) == ("FAILED", reason)
            assert _notices(world, job) == [("BACKUP_NOT_GOOD", "WARNING", {"reason": reason})]
        assert remembered(world, row)[level.value] == (reason is None, reason)
    assert "notes" not in str(remembered(world, row))


def _notices(world: World, job: JobRow) -> list[tuple[str, str, dict[str, str]]]:
    with world.resources.db.transaction() as session:
        events = session.scalars(select(JobEventRow).filter_by(job_id=job.id, kind="NOTICE"))
        return [(e.payload["code"], e.payload["severity"], e.payload["metadata"]) for e in events]


def test_swapped_segments_of_one_length_are_told_apart(world):
    """Each is sealed for its own place; what a storage that lies about lengths gives is refused all the same."""
    world.sql("UPDATE public.notes SET note = repeat('x', 1)")
    world.sql("TRUNCATE public.others")
    world.sql("ALTER TABLE public.others ADD note text; INSERT INTO public.others (id, note) TABLE public.notes")
    world.sql("ALTER TABLE public.others DROP m")
    world.resources.catalogs.forget()
    row = back_up(world)
    one, two = segment(world, row, "notes"), segment(world, row, "others")
    assert one.stat().st_size == two.stat().st_size
    swap(world, row)

    assert verify(world, row, L.PRESENT).state == "COMPLETED"
    job = verify(world, row, L.DECODED)

    assert (job.error or {})["reason"] == "PART_DAMAGED"
    assert remembered(world, row) == {"PRESENT": (True, None), "DECODED": (False, "PART_DAMAGED")}


def another_manifest(world: World, row: BackupRow) -> None:
    other = back_up(world)
    shutil.copyfile(objects(world, other, "manifests")[0], objects(world, row, "manifests")[0])


def flipped_manifest(world: World, row: BackupRow) -> None:
    (path,) = objects(world, row, "manifests")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def no_manifest(world: World, row: BackupRow) -> None:
    objects(world, row, "manifests")[0].unlink()


def another_backups_keys(world: World, row: BackupRow) -> None:
    other = back_up(world)
    shutil.copyfile(objects(world, other, "keys")[0], objects(world, row, "keys")[0])


def no_keys(world: World, row: BackupRow) -> None:
    objects(world, row, "keys")[0].unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (another_manifest, "PART_DAMAGED"),
        (flipped_manifest, "PART_DAMAGED"),
        (no_manifest, "BACKUP_GONE"),
        (another_backups_keys, "BACKUP_DAMAGED"),
        (no_keys, "BACKUP_DAMAGED"),
    ],
)
def test_damage_of_what_a_backup_says_of_itself_is_found_and_remembered(world, damage, reason):
    row = back_up(world)
    damage(world, row)

    job = verify(world, row, L.PRESENT)

    assert (job.state, (job.error or {}).get("reason")) == ("FAILED", reason)
    assert remembered(world, row) == {"PRESENT": (False, reason)}


def test_wrapped_keys_of_another_backup_under_this_ones_id_open_nothing(world):
    """Each wrap is bound to its part: what was moved opens no part of another backup."""
    row, other = back_up(world), back_up(world)
    record = json.loads(objects(world, other, "keys")[0].read_text())
    (path,) = objects(world, row, "keys")
    path.write_text(json.dumps(record | {"artifact_id": str(row.artifact_id)}))

    with pytest.raises(DataLoss) as caught:
        verify(world, row, L.PRESENT)

    assert caught.value.reason == "KEY_WRONG"


def test_a_wrong_key_is_told_at_the_call_and_in_the_job(world, other_keys):
    row = back_up(world)
    wrong = other_keys("test " + base64.b64encode(bytes(range(1, 33))).decode())

    with pytest.raises(DataLoss) as caught:
        verify(wrong, row, L.PRESENT)
    assert caught.value.reason == "KEY_WRONG"

    job_id = Backups(world.resources).verify(world.caller, row.id, L.DECODED, *world.request())
    wrong.work()  # a worker with another key ring than the server's
    assert ((wrong.job(job_id).error or {})["reason"], remembered(world, row)) == (
        "KEY_WRONG",
        {"DECODED": (False, "KEY_WRONG")},
    )


def test_a_key_that_is_missing_says_nothing_of_the_backup(world, other_keys):
    row = back_up(world)
    without = other_keys("other " + base64.b64encode(bytes(range(1, 33))).decode())

    with pytest.raises(FailedPrecondition) as caught:
        verify(without, row, L.PRESENT)
    assert caught.value.reason == "KEY_UNKNOWN"

    job_id = Backups(world.resources).verify(world.caller, row.id, L.DECODED, *world.request())
    without.work()
    assert (without.job(job_id).error or {})["reason"] == "KEY_UNKNOWN"
    assert remembered(world, row) == {}


def test_a_platform_without_the_types_says_nothing_of_the_backup(world):
    row = back_up(world)
    world.sql("ALTER TABLE public.others ALTER m TYPE text; DROP TYPE public.mood")

    job = verify(world, row, L.RESTORED)

    assert (job.state, (job.error or {})["reason"]) == ("FAILED", "SCHEMA_INCOMPATIBLE")
    assert (remembered(world, row), _notices(world, job)) == ({}, [])
    assert verify(world, row, L.DECODED).state == "COMPLETED"


def test_what_was_found_bad_and_mended_is_good_again(world):
    row = back_up(world)
    path = segment(world, row, "notes")
    content = path.read_bytes()
    path.unlink()
    verify(world, row, L.DECODED)
    path.write_bytes(content)

    verify(world, row, L.DECODED)

    assert remembered(world, row) == {"PRESENT": (True, None), "DECODED": (True, None)}


def test_it_is_permitted_at_the_call_and_again_in_the_job(world):
    row = back_up(world)
    caller = world.caller_with("admin", "ada")
    nobody = caller_with(world, "backups.read:notes", "backups.verify")

    with pytest.raises(NotFound):
        Backups(world.resources).verify(nobody, row.id, L.PRESENT, *world.request())
    job_id = Backups(world.resources).verify(caller, row.id, L.PRESENT, *world.request())
    with world.resources.db.transaction() as session:
        session.connection().exec_driver_sql(
            f"DELETE FROM dataops.grants WHERE principal_id = '{caller.principal_id}'"  # the right is gone since
        )
    world.work()

    assert (world.job(job_id).error or {})["reason"] == "PERMISSION_MISSING"
    assert remembered(world, row) == {}


def test_the_same_request_verifies_once(world):
    row, request = back_up(world), world.request()
    backups = Backups(world.resources)

    first = backups.verify(world.caller, row.id, L.PRESENT, *request)

    assert backups.verify(world.caller, row.id, L.PRESENT, *request) == first


def test_a_format_of_a_newer_release_says_nothing_of_the_backup(world, monkeypatch):
    row = back_up(world)
    monkeypatch.setattr("engine.backups.manifest.FORMAT", 9)
    with pytest.raises(DataLoss, match="found format 1"):
        verify(world, row, L.DECODED)
    assert remembered(world, row) == {}
