"""Every storage runs the one suite; what only a folder has is below."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from engine.clock import utc_now
from engine.errors import DataOpsError, InvalidRequest, ResourceExhausted, Unavailable
from engine.storage import Storage, storage_from
from engine.storage.local import LocalStorage
from engine.storage.memory import MemoryStorage
from tests.suites.storage_faults import FailingStorage, SlowStorage, TamperingStorage
from tests.suites.storage_suite import StorageSuite


class TestLocal(StorageSuite):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return LocalStorage(tmp_path / "artifacts")


class TestLocalWithoutDirectWrites(StorageSuite):
    @pytest.fixture
    def storage(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
        real = os.open

        def no_direct(path, flags, *rest, **named):
            if flags & os.O_DIRECT:
                raise OSError(errno.EINVAL, "this file system has no O_DIRECT")
            return real(path, flags, *rest, **named)

        monkeypatch.setattr(os, "open", no_direct)
        return LocalStorage(tmp_path / "artifacts")


@pytest.fixture
def direct_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What `os.readv` was asked for past the page cache, in bytes; refused where it is not in whole blocks."""
    asked: list[int] = []
    real = os.readv

    def readv(descriptor: int, buffers: list[memoryview]) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            asked.append(len(buffers[0]))
            assert len(buffers[0]) % 4096 == os.lseek(descriptor, 0, os.SEEK_CUR) % 4096 == 0
        return real(descriptor, buffers)

    monkeypatch.setattr(os, "readv", readv)
    return asked


class TestLocalWithoutDirectReads(StorageSuite):
    """Some file systems take O_DIRECT for a file and refuse its reads."""

    @pytest.fixture
    def storage(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
        real = os.readv

        def no_direct(descriptor: int, buffers: list[memoryview]) -> int:
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
                raise OSError(errno.EINVAL, "this file system reads nothing with O_DIRECT")
            return real(descriptor, buffers)

        monkeypatch.setattr(os, "readv", no_direct)
        return LocalStorage(tmp_path / "artifacts")


class TestMemory(StorageSuite):
    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage()


class TestFailingThatDoesNotFail(StorageSuite):
    @pytest.fixture
    def storage(self) -> Storage:
        return FailingStorage(MemoryStorage())


class TestSlow(StorageSuite):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return SlowStorage(LocalStorage(tmp_path))


class TestTamperingThatChangesNothing(StorageSuite):
    @pytest.fixture
    def storage(self) -> Storage:
        return TamperingStorage(MemoryStorage())


def test_files_and_folders_are_ours_alone(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "artifacts")
    storage.put("parts/ab/small", b"x")
    storage.put("parts/ab/large", bytes(1 << 20))

    for path in (tmp_path / "artifacts").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_put_that_died_half_way_leaves_no_object_and_is_tidied_later(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    remains = tmp_path / ".tmp" / "remains"
    remains.write_bytes(b"half")

    assert list(storage.list()) == []
    assert storage.tidy(utc_now() - timedelta(hours=1)) == 0
    assert remains.exists()
    os.utime(remains, (0, 0))
    assert storage.tidy(utc_now() - timedelta(hours=1)) == 1
    assert not remains.exists()


def test_a_second_process_sees_what_the_first_put(tmp_path: Path) -> None:
    LocalStorage(tmp_path).put("parts/ab/one", b"1")

    assert LocalStorage(tmp_path).get("parts/ab/one") == b"1"


def test_objects_survive_only_after_file_and_folder_were_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(tmp_path)
    flushed: list[str] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(descriptor: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real_fsync(descriptor)

    def link(source: Path, target: Path) -> None:
        flushed.append("link")
        real_link(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    storage.put("parts/ab/one", bytes(1 << 20))

    assert flushed[:2] == [str(tmp_path), str(tmp_path / "parts")]
    assert flushed[2].startswith(str(tmp_path / ".tmp"))
    assert flushed[3:] == ["link", str(tmp_path / "parts" / "ab")]


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [(errno.ENOSPC, ResourceExhausted, "STORAGE_FULL"), (errno.EIO, Unavailable, "STORAGE_FAILED")],
)
def test_trouble_of_the_disk_has_a_reason_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[DataOpsError], reason: str
) -> None:
    storage = LocalStorage(tmp_path)

    def fail(fd: int, data: bytes) -> int:
        raise OSError(code, os.strerror(code))

    for data in (b"small", bytes(1 << 20)):
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", fail)
            patched.setattr(os, "writev", fail)
            with pytest.raises(kind) as caught:
                storage.put("parts/ab/one", data)

        assert caught.value.reason == reason
        assert str(tmp_path) not in str(caught.value)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        storage.put("parts/ab/one", data)
        storage.delete("parts/ab/one")


@pytest.mark.parametrize("length", [1 << 20, (1 << 20) + 1, (1 << 20) + 4095, (1 << 20) + 4096])
def test_aligned_memory_is_stored_to_its_last_byte_also_when_the_system_takes_less_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    storage, memory = LocalStorage(tmp_path), mmap.mmap(-1, 2 << 20)
    memory[:] = os.urandom(2 << 20)
    with memoryview(memory)[:length] as view:
        storage.put("parts/ab/one", view)
        monkeypatch.setattr(os, "writev", lambda fd, buffers: os.write(fd, buffers[0][: 128 << 10]))
        storage.put("parts/ab/other", view)

    assert storage.get("parts/ab/one") == memory[:length]
    assert storage.get("parts/ab/other") == memory[:length]


def test_what_is_large_is_read_past_the_page_cache(tmp_path: Path, direct_reads: list[int]) -> None:
    storage, memory, data = LocalStorage(tmp_path), mmap.mmap(-1, 2 << 20), os.urandom((1 << 20) + 5)
    storage.put("parts/ab/large", data)
    storage.put("parts/ab/small", data[: 200 << 10])

    if not storage._direct:
        pytest.skip("this file system has no O_DIRECT")

    assert storage.get_into("parts/ab/small", memoryview(memory)) == 200 << 10
    assert direct_reads == []
    assert storage.get_into("parts/ab/large", memoryview(memory)) == len(data)
    assert memory[: len(data)] == data
    assert direct_reads == [2 << 20]


@pytest.mark.parametrize("least", [4096, 5000])
def test_a_read_that_ends_early_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    storage, memory, data = LocalStorage(tmp_path), mmap.mmap(-1, 2 << 20), os.urandom((1 << 20) + 5)
    storage.put("parts/ab/one", data)
    real = os.readv
    monkeypatch.setattr(os, "readv", lambda descriptor, buffers: real(descriptor, [buffers[0][:least]]))

    assert storage.get_into("parts/ab/one", memoryview(memory)) == len(data)
    assert memory[: len(data)] == data


def test_a_setting_names_a_storage(tmp_path: Path) -> None:
    assert isinstance(storage_from(str(tmp_path / "new")), LocalStorage)
    assert storage_from("memory:") is not storage_from("memory:")
    assert storage_from("memory:shared") is storage_from("memory:shared")
    for setting in ("", "s3://bucket"):
        with pytest.raises(InvalidRequest) as caught:
            storage_from(setting)

        assert caught.value.reason == "STORAGE_SETTING"
