"""A backup in storage: the order in which its objects come and go, and what is left of those that came to nothing."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from engine.backups.repository import Repository
from engine.clock import utc_now
from engine.crypto.keyring import KeyRing
from engine.errors import DataLoss, NotFound, Unavailable
from engine.storage.memory import MemoryStorage
from tests.engine.backups.bench import OLD, RING, SMALL, Diary, Later, lines, names, read_all, write
from tests.suites.storage_faults import WrappedStorage

pytestmark = pytest.mark.usefixtures("long_manifests")


def kinds(found: list[str]) -> list[str]:
    """Kind and last part: what comes after what."""
    return ["/".join((name.split("/")[0], name.split("/")[2])) for name in found]


def test_a_backup_is_read_as_it_was_written(repository: Repository) -> None:
    big = lines(90_000, 200)  # 18 MB: three segments
    archive = write(repository, {"big": big, **SMALL}, settings=b'{"table": "roles"}\n')

    opened = repository.open(archive.manifest.artifact_id, archive.checksum)
    assert opened.manifest == archive.manifest
    assert read_all(opened) == {"big": big, **SMALL, "settings": b'{"table": "roles"}\n'}
    assert [len(opened.manifest.numbered(str(n))) for n in range(4)] == [3, 1, 1, 0]
    assert list(repository.artifact_ids()) == [archive.manifest.artifact_id]


def test_segments_are_put_before_keys_before_the_manifest_whose_part_0_is_last(
    repository: Repository, storage: Diary
) -> None:
    write(repository, SMALL)

    order = kinds(storage.put_names)
    segments = [name for name in order if name.startswith("segments/")]
    manifests = [name for name in order if name.startswith("manifests/")]
    assert len(segments) == 2
    assert len(manifests) > 1
    assert order == [*segments, "keys/00000001", *manifests]
    assert manifests == [f"manifests/{n}" for n in reversed(range(len(manifests)))]


def test_objects_are_deleted_in_the_opposite_order_and_again_without_harm(
    repository: Repository, storage: Diary
) -> None:
    archive = write(repository, SMALL)
    count = len(names(storage))

    assert repository.delete(archive.manifest.artifact_id) == count
    order = kinds(storage.deleted)
    assert order[0] == "manifests/0"
    assert [name.split("/")[0] for name in order] == sorted(
        (name.split("/")[0] for name in order), key=["manifests", "keys", "segments"].index
    )
    assert names(storage) == []
    assert repository.delete(archive.manifest.artifact_id) == 0


@pytest.mark.parametrize("ends_at", range(1, 9))
def test_whatever_object_a_writer_dies_at_there_is_no_backup_before_the_last(
    ends_at: int, repository: Repository, storage: Diary
) -> None:
    puts = iter(range(1, 100))

    def die(act: str, _name: str) -> None:
        if act == "put" and next(puts) == ends_at:
            raise Unavailable("gone", reason="STORAGE_FAILED")

    storage.before = die
    whole = True
    try:
        write(repository, SMALL, settings=b"{}\n")
    except Unavailable:
        whole = False
    assert len(list(repository.artifact_ids())) == whole
    assert whole == (ends_at > 6), "three segments, keys, two parts of the manifest"


def test_what_cannot_be_read_back_after_publishing_is_taken_away_again(storage: Diary) -> None:
    class Loses(WrappedStorage):
        def put(self, name: str, data: bytes | memoryview) -> None:
            super().put(name, data)
            if name.startswith("manifests/"):
                super().delete(names(self, "segments/")[0])

    with pytest.raises(DataLoss) as caught:
        write(Repository(Loses(storage), RING), SMALL)

    assert caught.value.reason == "BACKUP_INCOMPLETE"
    assert names(storage) == []


def test_without_part_0_of_its_manifest_a_backup_does_not_exist(repository: Repository, storage: Diary) -> None:
    archive = write(repository, SMALL)
    repository.unpublish(archive.manifest.artifact_id)

    assert not repository.exists(archive.manifest.artifact_id)
    assert list(repository.artifact_ids()) == []
    with pytest.raises(NotFound) as caught:
        repository.open(archive.manifest.artifact_id)
    assert caught.value.reason == "BACKUP_GONE"
    with pytest.raises(NotFound):
        repository.rewrap(archive.manifest.artifact_id)


# --- orphans


def test_orphans_are_folders_without_manifest_or_record_in_which_nothing_is_younger_than_a_day() -> None:
    clock = Later()
    storage = MemoryStorage(clock)
    repository = Repository(storage, RING)
    archive = write(repository, SMALL)
    dead, recorded, young = (uuid.uuid4() for _ in range(3))
    storage.put(f"segments/{dead.hex}/{'0' * 32}", b"x")
    storage.put(f"keys/{dead.hex}/00000001", b"x")
    storage.put(f"manifests/{dead.hex}/1", b"x")
    storage.put(f"segments/{recorded.hex}/{'0' * 32}", b"x")
    storage.put(f"segments/{young.hex}/{'0' * 32}", b"x")
    storage.put("segments/no-id/x", b"x")

    def found() -> list[uuid.UUID]:
        return repository.orphans(clock(), lambda: frozenset({recorded}))

    clock.ahead = timedelta(hours=23)
    assert found() == []
    storage.put(f"segments/{young.hex}/{'1' * 32}", b"x")
    clock.ahead = timedelta(hours=25)
    assert found() == [dead]
    repository.delete(dead)
    assert found() == []
    assert repository.exists(archive.manifest.artifact_id)


def test_records_are_asked_for_after_the_objects_were_listed() -> None:
    """A clock that is a day ahead must not be enough to take what somebody has just begun to write."""
    storage, asked = MemoryStorage(), []
    storage.put(f"segments/{uuid.uuid4().hex}/x", b"x")

    class Watched(WrappedStorage):
        def list(self, prefix: str = ""):
            asked.append(prefix)
            return super().list(prefix)

    def known() -> frozenset[uuid.UUID]:
        asked.append("records")
        return frozenset()

    assert len(Repository(Watched(storage), RING).orphans(utc_now() + timedelta(days=2), known)) == 1
    assert asked[-1] == "records"


def test_an_empty_ring_of_names_is_not_asked_for_nothing() -> None:
    def known() -> frozenset[uuid.UUID]:
        raise AssertionError("nothing is old")

    assert Repository(MemoryStorage(), KeyRing({"old": OLD}, "old")).orphans(utc_now(), known) == []
