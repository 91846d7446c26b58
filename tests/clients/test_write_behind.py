"""A download is written behind what arrives: whole, whatever the file system can, and a write that fails fails it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from dataops_client import DataOps, write_behind
from dataops_client.write_behind import BUFFER_BYTES, DIRECT_LEAST, FLUSH_BYTES, WriteBehind

from tests.clients.fake_server import World

EXPORT_ID = "0197a000-0000-7000-8000-000000000001"
DATA = os.urandom(2 * BUFFER_BYTES + DIRECT_LEAST + 4097)


def no_direct_files(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.fcntl

    def no_direct(file: FileIO, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, "this file system has no O_DIRECT")
        return real(file, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", no_direct)


def no_direct_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken with the file, refused at the second write: of the first, half is written."""
    real, asked = os.pwrite, 0

    def refused(descriptor: int, data: memoryview, offset: int) -> int:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise OSError(errno.EINVAL, "this file system writes nothing with O_DIRECT")
        return real(descriptor, data[: len(data) // 8192 * 4096], offset)

    monkeypatch.setattr(os, "pwrite", refused)


def none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_DIRECT")


def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pass


every_file_system = pytest.mark.parametrize("prepare", [as_it_is, no_direct_files, no_direct_writes, none_at_all])


def opened(path: Path) -> FileIO:
    path.touch()
    return path.open("r+b", buffering=0)


class FullOnce(FileIO):
    """The disk has no room for what comes behind the first buffer, and a moment later it has."""

    failed = False

    def write(self, data: Any, /) -> int:
        if self.tell() >= BUFFER_BYTES and not self.failed:
            self.failed = True
            raise OSError(errno.ENOSPC, "no room")
        return super().write(data)


def full() -> FileIO:
    """A file that is opened and takes no byte."""
    return Path("/dev/full").open("r+b", buffering=0)


def test_a_download_longer_than_both_buffers_arrives_equal(client: DataOps, world: World, tmp_path: Path):
    world.export = DATA

    client.download_export(EXPORT_ID, tmp_path / "out.csv")

    assert (tmp_path / "out.csv").read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


@every_file_system
@pytest.mark.parametrize("before", [0, 1, 4096, 5000])
@pytest.mark.parametrize("piece", [len(DATA), 1_000_003])
def test_all_is_appended_to_what_was_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[pytest.MonkeyPatch], None],
    before: int,
    piece: int,
):
    path = tmp_path / "file"
    path.write_bytes(DATA[:before])
    prepare(monkeypatch)
    with opened(path) as file, WriteBehind(file) as behind:
        for start in range(before, len(DATA), piece):
            behind.write(DATA[start : start + piece])

    assert path.read_bytes() == DATA


def test_it_goes_on_after_all_was_settled(tmp_path: Path):
    path = tmp_path / "file"
    with opened(path) as file, WriteBehind(file) as behind:
        for start, end in (
            (0, 10),
            (10, BUFFER_BYTES),
            (BUFFER_BYTES, BUFFER_BYTES + 5000),
            (BUFFER_BYTES + 5000, None),
        ):
            behind.write(DATA[start:end])
            behind.settle()
            assert path.read_bytes() == DATA[:end]


def test_what_is_large_goes_past_the_page_cache_in_whole_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real, asked = os.pwrite, []

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        asked.append((offset, len(data)))
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with opened(tmp_path / "file") as file, WriteBehind(file) as behind:
        behind.write(DATA)
        behind.settle()
        if not behind._direct:
            pytest.skip("this file system has no O_DIRECT")
        behind.write(DATA[: DIRECT_LEAST - 1])

    assert [offset for offset, _ in asked] == [0, BUFFER_BYTES, 2 * BUFFER_BYTES]
    assert [length for _, length in asked] == [BUFFER_BYTES, BUFFER_BYTES, DIRECT_LEAST + 4096]


def test_through_the_page_cache_it_is_flushed_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "O_DIRECT")
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_size))
    with opened(tmp_path / "file") as file, WriteBehind(file) as behind:
        for _ in range(2 * FLUSH_BYTES // BUFFER_BYTES + 1):
            behind.write(DATA[:BUFFER_BYTES])

    assert flushed == [FLUSH_BYTES, 2 * FLUSH_BYTES]


def test_what_arrives_slowly_is_not_held_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now = 1000.0
    monkeypatch.setattr(write_behind, "monotonic", lambda: now)
    path = tmp_path / "file"
    with opened(path) as file, WriteBehind(file) as behind:
        for seconds, there in ((0, 1), (0.5, 1), (0.4, 1), (0.2, 4), (0.5, 4)):
            now += seconds
            behind.write(b"x")
            behind._wait()
            assert path.stat().st_size == there


def test_a_file_begun_anew_holds_nothing_from_before(tmp_path: Path):
    with opened(tmp_path / "file") as file, WriteBehind(file) as behind:
        behind.write(DATA[: BUFFER_BYTES + 77])
        behind.restart()
        behind.write(b"other")

    assert (tmp_path / "file").read_bytes() == b"other"


def test_a_failed_write_is_told_at_the_end():
    with full() as file, pytest.raises(OSError) as caught, WriteBehind(file) as behind:
        behind.write(b"little")

    assert caught.value.errno == errno.ENOSPC


def test_a_failed_write_is_told_while_more_arrives():
    taken = 0
    with full() as file, pytest.raises(OSError) as caught, WriteBehind(file) as behind:
        for _ in range(10):
            behind.write(DATA[:BUFFER_BYTES])
            taken += 1

    assert caught.value.errno == errno.ENOSPC
    assert taken < 3


def test_what_ended_the_download_is_told_and_not_its_write():
    with full() as file, pytest.raises(KeyError), WriteBehind(file) as behind:
        behind.write(b"little")
        raise KeyError


def test_what_arrived_before_an_error_is_kept(tmp_path: Path):
    with opened(tmp_path / "file") as file, pytest.raises(KeyError), WriteBehind(file) as behind:
        behind.write(DATA[: BUFFER_BYTES + 77])
        raise KeyError

    assert (tmp_path / "file").read_bytes() == DATA[: BUFFER_BYTES + 77]


def test_behind_a_failed_write_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "O_DIRECT")
    path = tmp_path / "file"
    path.touch()
    with FullOnce(path, "r+b") as file, pytest.raises(OSError, match="no room"), WriteBehind(file) as behind:
        behind.write(DATA + DATA)

    assert path.read_bytes() == DATA[:BUFFER_BYTES]
