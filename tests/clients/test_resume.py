"""An upload that one process began goes on in the next, if the file is the same and the server still has it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest
from dataops.v1 import uploads_pb2
from dataops_client import DataOps, UploadMemory
from dataops_client.cli import main
from dataops_client.errors import TransferError, Unavailable
from dataops_client.resume import state_folder, upload_remembered

from tests.clients.fake_world import PART, World
from tests.clients.terminal import interrupted

MIB = 1024 * 1024


@pytest.fixture
def memory(tmp_path: Path) -> UploadMemory:
    return UploadMemory(tmp_path / "state", "dataops.example:8443")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "users.csv"
    path.write_bytes(os.urandom(5 * MIB))
    return path


def _break(client: DataOps, world: World, file: Path, memory: UploadMemory) -> str:
    """Begin an upload that breaks behind its first part; its id."""
    world.break_upload_at = [3 * MIB - 1]
    with pytest.raises(Unavailable):
        upload_remembered(client.uploads, file, memory, patience=-1)
    (upload_id,) = world.uploads
    return upload_id


def _files(memory: UploadMemory) -> list[Path]:
    return list(memory.folder.glob("*.json"))


def test_an_upload_goes_on_where_an_earlier_one_stands(client: DataOps, world: World, file: Path, memory: UploadMemory):
    upload_id = _break(client, world, file, memory)
    told: list[int] = []

    upload = client.upload(file, memory=memory, on_resumed=lambda begun: told.append(begun.committed_size))

    assert upload.upload_id == upload_id
    assert upload.sha256 == upload.declared_sha256 == hashlib.sha256(file.read_bytes()).digest()
    assert world.upload_streams == [0, PART]
    assert told == [PART]
    assert _files(memory) == []


def test_fresh_begins_anew(client: DataOps, world: World, file: Path, memory: UploadMemory):
    upload_id = _break(client, world, file, memory)

    assert client.upload(file, memory=memory, fresh=True).upload_id != upload_id
    assert world.uploads[upload_id].upload.state == uploads_pb2.UPLOAD_STATE_ABORTED


def test_a_changed_file_begins_anew(client: DataOps, world: World, file: Path, memory: UploadMemory):
    upload_id = _break(client, world, file, memory)
    file.write_bytes(os.urandom(4 * MIB))

    assert client.upload(file, memory=memory).upload_id != upload_id
    assert world.uploads[upload_id].upload.state == uploads_pb2.UPLOAD_STATE_ABORTED
    assert _files(memory) == []


def test_a_changed_file_leaves_other_files_uploads_alone(
    client: DataOps, world: World, file: Path, memory: UploadMemory
):
    upload_id = _break(client, world, file, memory)
    other = file.with_name("other")
    other.write_bytes(os.urandom(1 * MIB))

    client.upload(other, memory=memory)
    client.upload(file, memory=UploadMemory(memory.folder, "other.example:8443"))

    assert world.uploads[upload_id].upload.state == uploads_pb2.UPLOAD_STATE_OPEN
    assert client.upload(file, memory=memory).upload_id == upload_id


def test_a_finished_upload_is_not_aborted_for_a_changed_file(
    client: DataOps, world: World, file: Path, memory: UploadMemory
):
    upload_id = _break(client, world, file, memory)
    world.uploads[upload_id].upload.state = uploads_pb2.UPLOAD_STATE_FINISHED  # an import may be made from it
    file.write_bytes(os.urandom(4 * MIB))

    client.upload(file, memory=memory)
    assert world.uploads[upload_id].upload.state == uploads_pb2.UPLOAD_STATE_FINISHED


def test_other_bytes_under_the_same_size_and_time_begin_anew(
    client: DataOps, world: World, file: Path, memory: UploadMemory
):
    upload_id = _break(client, world, file, memory)
    status = file.stat()
    file.write_bytes(os.urandom(5 * MIB))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    upload = client.upload(file, memory=memory)

    assert upload.upload_id != upload_id
    assert upload.sha256 == hashlib.sha256(file.read_bytes()).digest()


def test_another_server_begins_anew(client: DataOps, world: World, file: Path, memory: UploadMemory):
    upload_id = _break(client, world, file, memory)

    upload = client.upload(file, memory=UploadMemory(memory.folder, "other.example:8443"))

    assert upload.upload_id != upload_id


@pytest.mark.parametrize("how", ["aborted", "gone", "consumed"])
def test_what_the_server_no_longer_has_open_begins_anew(
    how: str, client: DataOps, world: World, file: Path, memory: UploadMemory
):
    upload_id = _break(client, world, file, memory)
    if how == "gone":
        del world.uploads[upload_id]
    else:
        world.uploads[upload_id].upload.state = uploads_pb2.UploadState.Value(f"UPLOAD_STATE_{how.upper()}")

    assert client.upload(file, memory=memory).upload_id != upload_id


def test_an_upload_whose_end_nobody_heard_of_is_found_finished(
    client: DataOps, world: World, file: Path, memory: UploadMemory
):
    world.lose_finish_answer = True
    upload_id = _break(client, world, file, memory)
    with pytest.raises(Unavailable):
        upload_remembered(client.uploads, file, memory, patience=-1)

    streams = len(world.upload_streams)
    assert client.upload(file, memory=memory).upload_id == upload_id
    assert len(world.upload_streams) == streams


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"upload_id": 5}', '{"upload_id": "no-uuid"}'])
def test_a_damaged_memory_begins_anew(content: str, client: DataOps, world: World, file: Path, memory: UploadMemory):
    _break(client, world, file, memory)
    (remembered,) = _files(memory)
    remembered.write_text(content)

    assert client.upload(file, memory=memory).state == uploads_pb2.UPLOAD_STATE_FINISHED


def test_an_upload_that_can_never_end_is_forgotten(client: DataOps, world: World, file: Path, memory: UploadMemory):
    world.damage_upload = True

    with pytest.raises(TransferError, match="CHECKSUM_MISMATCH"):
        client.upload(file, memory=memory)
    assert _files(memory) == []


def test_an_upload_that_another_process_holds_is_not_taken_up(
    client: DataOps, world: World, file: Path, memory: UploadMemory
):
    begun = _break(client, world, file, memory)

    with memory.of(file):
        other = client.upload(file, memory=memory)

    assert other.upload_id != begun
    assert client.upload(file, memory=memory).upload_id == begun


def test_a_state_folder_that_cannot_be_is_done_without(client: DataOps, file: Path, tmp_path: Path):
    (tmp_path / "taken").write_text("a file")

    upload = client.upload(file, memory=UploadMemory(tmp_path / "taken" / "state", "s"))

    assert upload.state == uploads_pb2.UPLOAD_STATE_FINISHED


def test_what_is_a_week_old_is_dropped(client: DataOps, file: Path, memory: UploadMemory):
    memory.folder.mkdir()
    old, young = memory.folder / "old.json", memory.folder / "young.json"
    old.write_text("{}")
    young.write_text("{}")
    os.utime(old, (0, time.time() - 8 * 24 * 3600))

    client.upload(file, memory=memory)

    assert (old.exists(), young.exists()) == (False, True)


def test_the_state_folder_is_xdgs_if_that_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for named, expected in (("/x", "/x"), ("x", f"{tmp_path}/.local/state"), ("", f"{tmp_path}/.local/state")):
        monkeypatch.setenv("XDG_STATE_HOME", named)
        assert state_folder() == Path(expected) / "dataops" / "uploads"


@pytest.mark.usefixtures("configured")
def test_the_command_goes_on_with_the_upload_of_an_interrupted_one(file: Path, world: World, tmp_path: Path, capsys):
    world.stall_upload_at = 3 * MIB
    command = ["import", str(file), "--entity", "users", "--yes"]

    got, _, err = interrupted(command, lambda: bool(world.uploads) and world.stall_upload_at is None)

    assert got == 130
    assert "the same command again goes on with the upload" in err
    (remembered,) = (tmp_path / "state" / "dataops" / "uploads").iterdir()
    assert json.loads(remembered.read_text()).items() >= {"upload_id": next(iter(world.uploads))}.items()
    assert main(command) == 0
    assert "goes on with the upload of an earlier command at 2.1 MB" in capsys.readouterr().err
    assert world.upload_streams == [0, PART]
    (held,) = world.uploads.values()
    assert bytes(held.data) == file.read_bytes()


@pytest.mark.usefixtures("configured")
def test_the_command_begins_anew_with_fresh(file: Path, world: World):
    world.stall_upload_at = 3 * MIB
    command = ["import", str(file), "--entity", "users", "--yes", "-q"]
    interrupted(command, lambda: bool(world.uploads) and world.stall_upload_at is None)

    assert main([*command, "--fresh"]) == 0
    assert world.upload_streams == [0, 0]
