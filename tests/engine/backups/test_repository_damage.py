"""A backup in storage: whatever is changed, lost or exchanged of its objects is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from engine.backups.manifest import Manifest
from engine.backups.repository import Repository
from engine.errors import DataLoss
from tests.engine.backups.bench import SMALL, Diary, lines, names, refused, replaced, write

pytestmark = pytest.mark.usefixtures("long_manifests")


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
