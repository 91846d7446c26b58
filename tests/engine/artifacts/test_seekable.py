"""An artifact as a file to seek in."""

from __future__ import annotations

import io
import os
import random
import zipfile

import pytest

from engine.artifacts import SeekableArtifact
from engine.errors import DataLoss, FailedPrecondition
from tests.engine.artifacts.conftest import Bench


def parted(bench: Bench, *parts: bytes):
    artifact_id = bench.create()
    with bench.artifacts.writer(artifact_id) as writer:
        for part in parts:
            writer.write_part(part)
        writer.close()
    return bench.artifacts.reader(artifact_id)


def test_any_range_is_what_a_file_would_give(bench):
    parts = [os.urandom(size) for size in (1, 1000, 70_000, 3, 500_000)]
    data, found = b"".join(parts), SeekableArtifact(parted(bench, *parts))
    plain, random_ = io.BytesIO(data), random.Random(1)

    for _ in range(300):
        whence = random_.choice([0, 1, 2])
        offset = {0: random_.randint(0, len(data) + 10), 1: random_.randint(0, 100), 2: -random_.randint(0, len(data))}
        size = random_.choice([0, 1, 10, 100_000, -1])
        assert found.seek(offset[whence], whence) == plain.seek(offset[whence], whence)
        assert found.read(size) == plain.read(size)
        assert found.tell() == plain.tell()


def test_it_holds_one_part_and_opens_it_once(bench, monkeypatch):
    reader = parted(bench, b"a" * 100, b"b" * 100)
    opened = []
    read_part = reader.read_part

    def counted(number: int) -> bytes:
        opened.append(number)
        return read_part(number)

    monkeypatch.setattr(reader, "read_part", counted)
    found = SeekableArtifact(reader)

    for offset in (0, 50, 99, 100, 150, 0):
        found.seek(offset)
        found.read(1)
    assert opened == [0, 1, 0]


def test_zipfile_reads_it(bench):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("a", b"x" * 100_000)
        made.writestr("b", os.urandom(100_000))
    data = out.getvalue()
    parts = [data[at : at + 777] for at in range(0, len(data), 777)]

    with zipfile.ZipFile(SeekableArtifact(parted(bench, *parts))) as found:
        assert found.testzip() is None
        assert found.read("a") == b"x" * 100_000


def test_an_empty_artifact_is_an_empty_file(bench):
    found = SeekableArtifact(bench.artifacts.reader(bench.written(b"")))

    assert (found.read(), found.seek(0, 2)) == (b"", 0)


def test_places_that_are_none_are_refused(bench):
    found = SeekableArtifact(parted(bench, b"abc"))

    for offset, whence in ((-1, 0), (-4, 2), (0, 3)):
        with pytest.raises(ValueError, match="expected"):
            found.seek(offset, whence)
    assert (found.readable(), found.seekable(), found.writable()) == (True, True, False)


def test_an_open_artifact_is_refused(bench):
    with pytest.raises(FailedPrecondition) as caught:
        SeekableArtifact(bench.artifacts.reader(bench.create()))
    assert caught.value.reason == "ARTIFACT_NOT_CLOSED"


def test_a_damaged_part_gives_nothing(bench):
    reader = parted(bench, b"a" * 100, b"b" * 100)
    bench.memory.delete(reader.parts()[1].name)
    found = SeekableArtifact(reader)

    assert found.read(100) == b"a" * 100
    with pytest.raises(DataLoss) as caught:
        found.read(1)
    assert caught.value.reason == "PART_MISSING"


def test_parts_that_do_not_join_up_are_refused(bench, monkeypatch):
    reader = parted(bench, b"a" * 100, b"b" * 100, b"c")
    parts = reader.parts()
    for wrong in (parts[:2], [parts[0], parts[2]]):
        monkeypatch.setattr(reader, "parts", lambda wrong=wrong: wrong)
        with pytest.raises(DataLoss) as caught:
            SeekableArtifact(reader)
        assert caught.value.reason == "ARTIFACT_DAMAGED"
