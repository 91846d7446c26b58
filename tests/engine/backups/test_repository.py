"""A backup in storage: the order of its objects, what stands against every change, its keys."""

from __future__ import annotations

import base64
import json
import os
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest

from engine.backups.archive import Archive
from engine.backups.manifest import Manifest
from engine.backups.repository import Repository
from engine.clock import utc_now
from engine.crypto.keyring import KeyRing
from engine.errors import DataLoss, DataOpsError, FailedPrecondition, NotFound, Unavailable
from engine.storage.memory import MemoryStorage
from tests.engine.backups.bench import (
    NEW,
    OLD,
    RING,
    ROTATED,
    Diary,
    Later,
    lines,
    names,
    read_all,
    replaced,
    write,
)
from tests.suites.storage_faults import WrappedStorage

SMALL = {"parents": b"1\n2\n", "children": b"10\t1\n11\t2\n", "empty": b""}


@pytest.fixture
def storage() -> Diary:
    return Diary(MemoryStorage())


@pytest.fixture(autouse=True)
def _long_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests of several parts, as only a backup of some 100,000 segments has them."""
    monkeypatch.setattr("engine.backups.repository.MAX_PART_BYTES", 2_000)


@pytest.fixture
def repository(storage: Diary) -> Repository:
    return Repository(storage, RING)


def kinds(found: list[str]) -> list[str]:
    """Kind and last part: what comes after what."""
    return ["/".join((name.split("/")[0], name.split("/")[2])) for name in found]


# --- the order


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


# --- damage


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "flipped at its start": lambda data: flipped(data, 0),
    "flipped in its middle": lambda data: flipped(data, len(data) // 2),
    "flipped at its end": lambda data: flipped(data, len(data) - 1),
    "cut by a byte": lambda data: data[:-1],
    "cut in half": lambda data: data[: len(data) // 2],
    "empty": lambda _data: b"",
    "longer": lambda data: data + b"\0",
    "gone": lambda _data: None,
}
REASONS = {"BACKUP_GONE", "BACKUP_DAMAGED", "BACKUP_INCOMPLETE", "PART_DAMAGED", "PART_MISSING", "KEY_WRONG"}


def refused(repository: Repository, archive: Archive) -> str:
    """Why the backup cannot be read, by whoever knows its checksum; empty when it can."""
    try:
        opened = repository.open(archive.manifest.artifact_id, archive.checksum)
        read_all(opened)
    except (DataLoss, NotFound, FailedPrecondition) as error:
        return error.reason
    return ""


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_object_that_is_damaged_is_refused(damage: str, repository: Repository, storage: Diary) -> None:
    archive = write(repository, SMALL, settings=b"{}\n")
    assert refused(repository, archive) == ""
    for name in names(storage):
        whole = storage.get(name)
        changed = DAMAGE[damage](whole)
        storage.delete(name)
        if changed is not None:
            storage.put(name, changed)

        if name.startswith("keys/") and damage == "longer":
            reasons = {""} if json.loads(whole) == _json(changed) else REASONS
        else:
            reasons = REASONS
        assert refused(repository, archive) in reasons, (name, damage)
        replaced(storage, name, whole)
    assert refused(repository, archive) == ""


def _json(data: bytes | None) -> object:
    try:
        return json.loads(data or b"")
    except ValueError:
        return None


def test_every_bit_of_the_keys_object_that_matters_is_held_by_a_wrap(repository: Repository, storage: Diary) -> None:
    archive = write(repository, SMALL)
    (name,) = names(storage, "keys/")
    whole = storage.get(name)
    for at in range(0, len(whole), 3):
        changed = flipped(whole, at)
        replaced(storage, name, changed)
        same = _json(changed) == _json(whole)
        assert (refused(repository, archive) == "") <= same, whole[at : at + 10]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b'"x"', b"[" * 200_000, b'{"format": 2}', b'{"format": 1, "artifact_id": 7}', b"\xff"],
)
def test_a_keys_object_that_is_none_is_refused(content: bytes, repository: Repository, storage: Diary) -> None:
    archive = write(repository, SMALL)
    replaced(storage, names(storage, "keys/")[0], content)

    assert refused(repository, archive) == "BACKUP_DAMAGED"


@pytest.mark.parametrize("entry", [[7, "AAAA"], ["old"], ["old", 7], ["old", "AAAA", "x"], "x", None])
def test_a_keys_object_with_an_odd_entry_is_refused(entry: object, repository: Repository, storage: Diary) -> None:
    archive = write(repository, SMALL)
    (name,) = names(storage, "keys/")
    record = json.loads(storage.get(name)) | {"manifest": [entry]}
    replaced(storage, name, json.dumps(record).encode())

    assert refused(repository, archive) == "BACKUP_DAMAGED"


def test_objects_of_a_backup_do_not_stand_in_each_others_place(repository: Repository, storage: Diary) -> None:
    archive = write(repository, {"a": lines(10), "b": lines(10)}, settings=lines(10))
    for kind in ("segments/", "manifests/"):
        first, second = names(storage, kind)[:2]
        one, other = storage.get(first), storage.get(second)
        replaced(storage, first, other)
        replaced(storage, second, one)
        assert refused(repository, archive) == "PART_DAMAGED"
        replaced(storage, first, one)
        replaced(storage, second, other)
    assert refused(repository, archive) == ""


@pytest.mark.parametrize("kind", ["segments/", "manifests/", "keys/"])
def test_objects_of_another_backup_of_the_same_rows_are_refused(
    kind: str, repository: Repository, storage: Diary
) -> None:
    rows = {"a": lines(10)}
    archive, other = write(repository, rows), write(repository, rows)
    mine = names(storage, f"{kind}{archive.manifest.artifact_id.hex}/")[0]
    theirs = names(storage, f"{kind}{other.manifest.artifact_id.hex}/")[0]
    replaced(storage, mine, storage.get(theirs))

    assert refused(repository, archive) in {"PART_DAMAGED", "BACKUP_DAMAGED"}


def test_a_whole_backup_under_another_ones_names_is_refused(repository: Repository, storage: Diary) -> None:
    archive, other = write(repository, SMALL), write(repository, SMALL)
    mine, theirs = archive.manifest.artifact_id.hex, other.manifest.artifact_id.hex
    for name in names(storage):
        if mine in name:
            storage.delete(name)
    for name in names(storage):
        if theirs in name:
            storage.put(name.replace(theirs, mine), storage.get(name))

    assert refused(repository, archive) == "BACKUP_DAMAGED"


def test_another_manifest_than_the_recorded_one_is_refused(repository: Repository) -> None:
    archive = write(repository, SMALL)
    with pytest.raises(DataLoss) as caught:
        repository.open(archive.manifest.artifact_id, os.urandom(32))

    assert caught.value.reason == "BACKUP_DAMAGED"


def test_a_stream_that_is_not_what_the_manifest_says_is_refused_at_its_end(repository: Repository) -> None:
    archive = write(repository, SMALL)
    entity = archive.manifest.entities[0]
    for change in ({"rows": 3}, {"sha256": "0" * 64}):
        wrong = type(entity)(**{**entity.__dict__, **change})
        entities = (wrong, *archive.manifest.entities[1:])
        archive.manifest = Manifest(**{**archive.manifest.__dict__, "entities": entities})
        with pytest.raises(DataLoss) as caught:
            list(archive.rows(wrong))
        assert caught.value.reason == "BACKUP_DAMAGED"


@pytest.mark.parametrize("text", [b"[]", b"{}", b"null", b"\xff", b'{"format": 1}', b'{"format": 1, "x": 1}'])
def test_what_is_no_manifest_is_damage(text: bytes) -> None:
    with pytest.raises(DataLoss) as caught:
        Manifest.decoded(text)
    assert caught.value.reason == "BACKUP_DAMAGED"


def test_a_manifest_of_a_later_format_is_told_apart(repository: Repository) -> None:
    with pytest.raises(DataLoss) as caught:
        Manifest.decoded(b'{"format": 3}')
    assert caught.value.reason == "BACKUP_FORMAT"
    archive = write(repository, SMALL)
    assert Manifest.decoded(archive.manifest.encoded()) == archive.manifest


def test_objects_that_are_missing_or_of_another_length_are_counted(repository: Repository, storage: Diary) -> None:
    archive = write(repository, {"a": lines(10), "b": lines(10), "c": lines(10)})
    archive.require_present()
    one, other, _ = names(storage, "segments/")
    storage.delete(one)
    replaced(storage, other, b"short")

    with pytest.raises(DataLoss) as caught:
        archive.require_present()
    assert (caught.value.reason, caught.value.metadata["lacking"]) == ("BACKUP_INCOMPLETE", "2")


# --- keys


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
