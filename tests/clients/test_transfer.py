"""Files arrive whole and equal, or with an error that says why; a broken connection costs what was not committed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import grpc
import pytest
from dataops.v1 import uploads_pb2
from dataops_client import DataOps
from dataops_client.errors import DataOpsError, TransferError, Unavailable
from dataops_client.upload import upload_file

from tests.clients.fake_server import PART, World

MIB = 1024 * 1024
EXPORT_ID = "0197a000-0000-7000-8000-000000000001"


def _file(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path


def _held(world: World) -> bytes:
    (held,) = world.uploads.values()
    return bytes(held.data)


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 17])
def test_a_file_of_any_size_arrives_equal(client: DataOps, world: World, tmp_path: Path, size: int):
    path = _file(tmp_path / "users.csv", size)

    upload = client.upload(path)

    assert upload.state == uploads_pb2.UPLOAD_STATE_FINISHED
    assert upload.sha256 == hashlib.sha256(path.read_bytes()).digest()
    assert _held(world) == path.read_bytes()


def test_an_upload_opens_a_new_stream_as_often_as_it_wants_an_answer(
    client: DataOps, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dataops_client.upload.STREAM_BYTES", 8 * MIB)
    path = _file(tmp_path / "users.csv", 18 * MIB)
    seen: list[tuple[int, int | None]] = []

    client.upload(path, on_bytes=lambda done, size: seen.append((done, size)))

    assert world.upload_streams == [0, 8 * MIB, 16 * MIB]
    assert _held(world) == path.read_bytes()
    assert seen[-1] == (18 * MIB, 18 * MIB)


def test_a_broken_upload_goes_on_from_the_committed_part(client: DataOps, world: World, tmp_path: Path):
    path = _file(tmp_path / "users.csv", 9 * MIB)
    world.break_upload_at = [3 * MIB - 1, 3 * MIB - 1, 7 * MIB - 1]

    client.upload(path)

    assert _held(world) == path.read_bytes()
    assert world.upload_streams == [0, PART, PART, 3 * PART]


def test_an_upload_whose_last_answer_is_lost_is_found_finished(client: DataOps, world: World, tmp_path: Path):
    path = _file(tmp_path / "users.csv", MIB)
    world.lose_finish_answer = True

    upload = client.upload(path)

    assert upload.state == uploads_pb2.UPLOAD_STATE_FINISHED
    assert world.upload_streams == [0]


def test_an_upload_of_an_earlier_process_is_taken_up(client: DataOps, world: World, tmp_path: Path):
    path = _file(tmp_path / "users.csv", 5 * MIB)
    world.break_upload_at = [3 * MIB - 1]
    with pytest.raises(Unavailable):
        upload_file(client.uploads, path, patience=-1)
    (upload_id,) = world.uploads

    upload = upload_file(client.uploads, path, upload_id=upload_id)

    assert upload.sha256 == hashlib.sha256(path.read_bytes()).digest()
    assert world.upload_streams == [0, PART]


def test_an_upload_is_not_taken_up_with_another_file(client: DataOps, world: World, tmp_path: Path):
    world.break_upload_at = [3 * MIB - 1]
    with pytest.raises(Unavailable):
        upload_file(client.uploads, _file(tmp_path / "a.csv", 5 * MIB), patience=-1)
    (upload_id,) = world.uploads

    with pytest.raises(TransferError, match="SOURCE_CHANGED"):
        upload_file(client.uploads, _file(tmp_path / "b.csv", 4 * MIB), upload_id=upload_id)


def test_bytes_that_changed_on_the_way_are_found_and_the_upload_aborted(client: DataOps, world: World, tmp_path: Path):
    world.damage_upload = True

    with pytest.raises(TransferError, match="CHECKSUM_MISMATCH"):
        client.upload(_file(tmp_path / "users.csv", MIB))

    (held,) = world.uploads.values()
    assert held.upload.state == uploads_pb2.UPLOAD_STATE_ABORTED


def test_a_file_that_changes_meanwhile_is_refused(client: DataOps, world: World, tmp_path: Path):
    path = _file(tmp_path / "users.csv", 5 * MIB)

    def grow(_done: int, _size: int | None) -> None:
        with path.open("ab") as file:
            file.write(b"x")

    with pytest.raises(TransferError, match="SOURCE_CHANGED"):
        client.upload(path, on_bytes=grow)

    (held,) = world.uploads.values()
    assert held.upload.state == uploads_pb2.UPLOAD_STATE_OPEN


def test_a_file_that_shrinks_meanwhile_is_refused(client: DataOps, tmp_path: Path):
    path = _file(tmp_path / "users.csv", 5 * MIB)

    with pytest.raises(TransferError, match="SOURCE_CHANGED"):
        client.upload(path, on_bytes=lambda _done, _size: os.truncate(path, 2 * MIB))


def test_a_download_arrives_equal_and_leaves_no_part(client: DataOps, world: World, tmp_path: Path):
    world.export = os.urandom(1_234_567)
    path = tmp_path / "out.csv"

    got = client.download_export(EXPORT_ID, path)

    assert path.read_bytes() == world.export
    assert (got.size, got.sha256) == (1_234_567, hashlib.sha256(world.export).digest())
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


def test_an_empty_download_is_an_empty_file(client: DataOps, tmp_path: Path):
    path = tmp_path / "out.csv"

    client.download_export(EXPORT_ID, path)

    assert path.read_bytes() == b""


def test_a_broken_download_goes_on_where_it_stands(client: DataOps, world: World, tmp_path: Path):
    world.export = os.urandom(1_000_000)
    world.break_export_at = [300_000, 300_000, 700_000]
    path = tmp_path / "out.csv"

    client.download_export(EXPORT_ID, path)

    assert path.read_bytes() == world.export
    assert world.export_offsets == [0, 300_000, 300_000, 700_000]


def test_a_stream_that_ends_without_its_footer_is_taken_up(client: DataOps, world: World, tmp_path: Path):
    world.export = os.urandom(250_000)
    world.end_export_without_footer = True
    path = tmp_path / "out.csv"

    client.download_export(EXPORT_ID, path)

    assert path.read_bytes() == world.export
    assert world.export_offsets == [0, 250_000]


def test_the_part_of_an_earlier_process_is_taken_up(client: DataOps, world: World, tmp_path: Path):
    world.export = os.urandom(500_000)
    (tmp_path / f".out.csv.{EXPORT_ID}.part").write_bytes(world.export[:123_456])
    path = tmp_path / "out.csv"

    client.download_export(EXPORT_ID, path)

    assert path.read_bytes() == world.export
    assert world.export_offsets == [123_456]


def test_a_part_longer_than_the_file_is_thrown_away(client: DataOps, world: World, tmp_path: Path):
    world.export = os.urandom(1000)
    (tmp_path / f".out.csv.{EXPORT_ID}.part").write_bytes(b"x" * 5000)

    client.download_export(EXPORT_ID, tmp_path / "out.csv")

    assert (tmp_path / "out.csv").read_bytes() == world.export


def test_a_download_that_is_not_what_its_footer_says_replaces_nothing(client: DataOps, world: World, tmp_path: Path):
    world.export = b"rows"
    world.export_digest = bytes(32)
    path = tmp_path / "out.csv"
    path.write_text("what was there")

    with pytest.raises(TransferError, match="CHECKSUM_MISMATCH"):
        client.download_export(EXPORT_ID, path)

    assert path.read_text() == "what was there"
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("size", [150_000, 900_000])
def test_an_export_that_is_begun_anew_is_downloaded_anew(
    client: DataOps, world: World, tmp_path: Path, told: bool, size: int
):
    world.export, world.next_export = os.urandom(1_000_000), os.urandom(size)
    world.break_export_at = [300_000]
    world.tells_restart = told
    path = tmp_path / "out.csv"

    client.download_export(EXPORT_ID, path, follow=True)

    assert path.read_bytes() == world.next_export
    assert world.export_offsets[-1] == 0


def test_two_downloads_into_one_part_are_refused(client: DataOps, world: World, tmp_path: Path):
    world.export = os.urandom(300_000)
    path = tmp_path / "out.csv"
    failures: list[DataOpsError] = []

    def again(_done: int, _size: int | None) -> None:
        try:
            client.download_export(EXPORT_ID, path)
        except DataOpsError as error:
            failures.append(error)

    client.download_export(EXPORT_ID, path, on_bytes=again)

    assert {error.reason for error in failures} == {"DOWNLOAD_IN_PROGRESS"}
    assert path.read_bytes() == world.export


def test_a_server_that_is_not_there_ends_in_unavailable(tmp_path: Path):
    # nothing listens on port 1
    with DataOps.connect("127.0.0.1:1", token="t") as client, pytest.raises(Unavailable) as caught:
        client.upload(_file(tmp_path / "users.csv", 10))
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE
