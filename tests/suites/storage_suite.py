"""What every storage must do. A test class inherits `StorageSuite` and gives a `storage` fixture."""

from __future__ import annotations

import mmap
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from engine.clock import utc_now
from engine.errors import AlreadyExists, InvalidRequest, NotFound
from engine.storage import Storage

PART = 8_388_848
"""Of a full sealed part: not a multiple of any block size."""


class StorageSuite:
    """Claims of `engine.storage.base.Storage`, one test each."""

    @pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 262_144, 300_001, PART])
    def test_what_was_put_is_got(self, storage: Storage, size: int) -> None:
        data = os.urandom(size)
        storage.put("parts/ab/one", data)

        assert storage.get("parts/ab/one") == data

    def test_a_view_of_a_larger_buffer_is_put_as_it_is(self, storage: Storage) -> None:
        buffer = bytearray(os.urandom(700_000))
        wanted = bytes(buffer[1000:600_001])
        storage.put("view", memoryview(buffer)[1000:600_001])
        buffer[:] = bytes(len(buffer))

        assert storage.get("view") == wanted

    def test_a_name_is_never_written_twice(self, storage: Storage) -> None:
        storage.put("parts/one", b"first")
        with pytest.raises(AlreadyExists) as caught:
            storage.put("parts/one", b"second")

        assert caught.value.reason == "OBJECT_EXISTS"
        assert storage.get("parts/one") == b"first"

    def test_of_many_puts_at_once_one_wins(self, storage: Storage) -> None:
        barrier = threading.Barrier(8)

        def put(number: int) -> int | None:
            barrier.wait()
            try:
                storage.put("parts/ra/ce", bytes([number]) * 300_000)
            except AlreadyExists:
                return None
            return number

        with ThreadPoolExecutor(8) as pool:
            winners = [number for number in pool.map(put, range(8)) if number is not None]

        assert len(winners) == 1
        assert storage.get("parts/ra/ce") == bytes(winners) * 300_000

    @pytest.mark.parametrize(
        ("size", "room"),
        [(0, 9), (9, 0), (4096, 4095), (262_143, 270_336), (262_144, 262_144), (300_001, 300_000), (PART, 8_392_704)],
    )
    @pytest.mark.parametrize("begin", [0, 1])
    def test_room_is_filled_as_far_as_the_object_goes(self, storage: Storage, size: int, room: int, begin: int) -> None:
        data, memory = os.urandom(size), mmap.mmap(-1, 9 << 20)
        storage.put("parts/ab/one", data)

        read = storage.get_into("parts/ab/one", memoryview(memory)[begin : begin + room])

        assert read == min(size, room)
        assert memory[begin : begin + read] == data[:read]
        assert not memory[begin + room :].strip(b"\0"), "nothing beyond it is touched"

    def test_an_object_that_is_not_there_is_missing(self, storage: Storage) -> None:
        for name in ("parts", "parts/ab/none"):
            with pytest.raises(NotFound) as caught:
                storage.get(name)
            with pytest.raises(NotFound):
                storage.get_into(name, memoryview(bytearray(10)))

            assert caught.value.reason == "OBJECT_MISSING"

    def test_a_folder_of_objects_is_no_object(self, storage: Storage) -> None:
        storage.put("parts/ab/one", b"x")
        with pytest.raises(NotFound):
            storage.get("parts/ab")
        storage.delete("parts/ab")

        assert storage.get("parts/ab/one") == b"x"

    def test_delete_may_be_repeated_and_leaves_others(self, storage: Storage) -> None:
        storage.put("parts/ab/one", b"1")
        storage.put("parts/ab/two", b"2")
        storage.delete("parts/ab/one")
        storage.delete("parts/ab/one")

        with pytest.raises(NotFound):
            storage.get("parts/ab/one")
        assert storage.get("parts/ab/two") == b"2"

    def test_list_shows_each_object_under_the_prefix_once(self, storage: Storage) -> None:
        names = {"parts/ab/one", "parts/ab/two", "parts/cd/three", "keys/one", "partsx"}
        begun = utc_now() - timedelta(seconds=5)
        for name in names:
            storage.put(name, name.encode())

        shown = list(storage.list("parts/"))
        assert sorted(found.name for found in shown) == ["parts/ab/one", "parts/ab/two", "parts/cd/three"]
        assert all(found.size == len(found.name) and begun < found.modified for found in shown)
        assert sorted(found.name for found in storage.list("parts/ab/t")) == ["parts/ab/two"]
        assert sorted(found.name for found in storage.list()) == sorted(names)
        assert list(storage.list("none/")) == []

    def test_objects_may_go_while_a_list_runs(self, storage: Storage) -> None:
        for number in range(20):
            storage.put(f"parts/{number:02}/x", b"x")
        shown = 0
        for found in storage.list("parts/"):
            storage.delete(found.name)
            shown += 1

        assert shown == 20
        assert list(storage.list("parts/")) == []

    @pytest.mark.parametrize(
        "name",
        ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", ".tmp/x", "a/.hidden", "a\0b", "a b", "ü", "x" * 201],
    )
    def test_a_name_that_could_leave_the_storage_is_refused(self, storage: Storage, name: str) -> None:
        for call in (storage.get, storage.delete, lambda given: storage.put(given, b"x")):
            with pytest.raises(InvalidRequest) as caught:
                call(name)

            assert caught.value.reason == "OBJECT_NAME_INVALID"

    def test_tidy_leaves_objects_alone(self, storage: Storage) -> None:
        storage.put("parts/ab/one", b"1")
        storage.tidy(utc_now() + timedelta(days=1))

        assert storage.get("parts/ab/one") == b"1"
