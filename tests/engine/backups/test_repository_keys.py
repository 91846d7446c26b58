"""A backup in storage: its keys, and how they are wrapped anew."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable

import pytest

from engine.backups.repository import Repository
from engine.crypto.keyring import KeyRing
from engine.errors import DataLoss, DataOpsError, Unavailable
from tests.engine.backups.bench import NEW, RING, ROTATED, SMALL, Diary, names, refused, replaced, write
from tests.suites.storage_faults import WrappedStorage

pytestmark = pytest.mark.usefixtures("long_manifests")


def test_a_ring_that_lacks_the_key_or_has_another_of_its_name_is_told_apart(
    repository: Repository, storage: Diary
) -> None:
    archive = write(repository, SMALL)

    assert refused(Repository(storage, KeyRing({"new": NEW}, "new")), archive) == "KEY_UNKNOWN"
    assert refused(Repository(storage, KeyRing({"old": NEW}, "old")), archive) == "KEY_WRONG"


def test_a_rewrap_touches_the_keys_object_alone_and_the_old_key_is_needed_no_more(
    repository: Repository, storage: Diary
) -> None:
    archive = write(repository, SMALL)
    others = {name: storage.get(name) for name in names(storage) if not name.startswith("keys/")}
    rotated = Repository(storage, ROTATED)
    assert rotated.key_ids(archive.manifest.artifact_id) == {"old": 4}

    assert rotated.rewrap(archive.manifest.artifact_id) == 4
    assert rotated.rewrap(archive.manifest.artifact_id) == 0
    assert rotated.key_ids(archive.manifest.artifact_id) == {"new": 4}
    assert [name.rpartition("/")[2] for name in names(storage, "keys/")] == ["00000002"]
    assert {name: storage.get(name) for name in others} == others
    assert refused(Repository(storage, KeyRing({"new": NEW}, "new")), archive) == ""
    assert refused(repository, archive) == "KEY_UNKNOWN"


@pytest.mark.parametrize("point", ["put", "delete"])
def test_a_rewrap_that_dies_leaves_a_backup_that_opens_and_the_next_one_ends_it(
    point: str, repository: Repository, storage: Diary
) -> None:
    archive = write(repository, SMALL)
    rotated = Repository(storage, ROTATED)

    def die(act: str, name: str) -> None:
        if act == point and name.startswith("keys/"):
            raise Unavailable("gone", reason="STORAGE_FAILED")

    storage.before = die
    with pytest.raises(Unavailable):
        rotated.rewrap(archive.manifest.artifact_id)
    storage.before = lambda _act, _name: None
    assert refused(rotated, archive) == ""
    assert refused(repository, archive) == "", "with the old ring too: its generation stands"

    rotated.rewrap(archive.manifest.artifact_id)
    assert [name.rpartition("/")[2] for name in names(storage, "keys/")] == ["00000002"]
    assert refused(rotated, archive) == ""


def test_a_new_generation_that_cannot_be_read_back_takes_no_older_one_away(
    repository: Repository, storage: Diary
) -> None:
    archive = write(repository, SMALL)
    good = storage.get(names(storage, "keys/")[0])

    class Spoils(WrappedStorage):
        """Changes one wrap of a segment in what it is given; the manifest still opens by it."""

        def put(self, name: str, data: bytes | memoryview) -> None:
            record = json.loads(bytes(data))
            record["segments"][-1][1] = base64.b64encode(os.urandom(60)).decode()
            super().put(name, json.dumps(record).encode())

    with pytest.raises(DataLoss) as caught:
        Repository(Spoils(storage), ROTATED).rewrap(archive.manifest.artifact_id)

    assert caught.value.reason == "KEY_WRONG"
    first, second = names(storage, "keys/")
    assert storage.get(first) == good
    rotated = Repository(storage, ROTATED)
    assert refused(rotated, archive) == "", "the newest of which everything unwraps is taken"
    assert rotated.rewrap(archive.manifest.artifact_id) == 4
    assert [name.rpartition("/")[2] for name in names(storage, "keys/")] == ["00000003"]
    assert second.endswith("00000002")
    assert refused(rotated, archive) == ""


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 9}'])
def test_a_damaged_newest_generation_falls_back_to_the_one_before(
    content: bytes, repository: Repository, storage: Diary
) -> None:
    archive = write(repository, SMALL)
    storage.put(f"keys/{archive.manifest.artifact_id.hex}/00000002", content)

    assert refused(repository, archive) == ""


def test_the_newest_generation_that_the_ring_can_open_counts(repository: Repository, storage: Diary) -> None:
    archive = write(repository, SMALL)
    folder = f"keys/{archive.manifest.artifact_id.hex}/"
    old = storage.get(f"{folder}00000001")
    Repository(storage, ROTATED).rewrap(archive.manifest.artifact_id)
    storage.put(f"{folder}00000001", old)  # as after a crash between writing and deleting

    assert refused(repository, archive) == "", "the older, with a ring that lacks the new key"
    assert refused(Repository(storage, KeyRing({"new": NEW}, "new")), archive) == ""
    assert refused(Repository(storage, KeyRing({"x": os.urandom(32)}, "x")), archive) == "KEY_UNKNOWN"


def test_a_backup_one_of_whose_keys_does_not_unwrap_is_read_as_far_as_it_can_be_and_not_rewrapped(
    repository: Repository, storage: Diary
) -> None:
    archive = write(repository, SMALL)
    (name,) = names(storage, "keys/")
    record = json.loads(storage.get(name))
    record["segments"][1][1] = base64.b64encode(os.urandom(60)).decode()
    replaced(storage, name, json.dumps(record).encode())
    before = {name: storage.get(name) for name in names(storage)}

    opened = repository.open(archive.manifest.artifact_id)
    assert b"".join(opened.rows(opened.manifest.entities[0])) == SMALL["parents"]
    with pytest.raises(DataLoss) as caught:
        list(opened.rows(opened.manifest.entities[1]))
    assert caught.value.reason == "KEY_WRONG"
    with pytest.raises(DataLoss):
        Repository(storage, ROTATED).rewrap(archive.manifest.artifact_id)
    assert {name: storage.get(name) for name in names(storage)} == before


def test_two_rewraps_at_once_and_readers_beside_them(storage: Diary) -> None:
    archive = write(Repository(storage, RING), SMALL)
    failed: list[DataOpsError] = []

    def work(act: Callable[[Repository], object]) -> None:
        repository = Repository(storage, ROTATED)
        try:
            for _ in range(20):
                act(repository)
        except DataOpsError as error:
            failed.append(error)

    rewrap = lambda repository: repository.rewrap(archive.manifest.artifact_id)  # noqa: E731
    read = lambda repository: repository.open(archive.manifest.artifact_id, archive.checksum)  # noqa: E731
    for _ in range(10):
        old = write(Repository(storage, RING), SMALL)
        archive = old
        threads = [threading.Thread(target=work, args=[act]) for act in (rewrap, rewrap, read, read)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    assert failed == []
    assert refused(Repository(storage, ROTATED), archive) == ""
