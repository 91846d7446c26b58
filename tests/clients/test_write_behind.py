"""A download is flushed to disk while it arrives, and a flush that fails fails the download."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from dataops_client import DataOps
from dataops_client.download import FLUSH_BYTES, _Flushing

from tests.clients.fake_server import World

EXPORT_ID = "0197a000-0000-7000-8000-000000000001"


@pytest.fixture
def unflushable() -> Iterator[IO[bytes]]:
    """A file that takes bytes and cannot be flushed to any disk: a pipe's end."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb") as file:
        yield file


def test_a_download_longer_than_one_flush_arrives_equal(client: DataOps, world: World, tmp_path: Path):
    world.export = os.urandom(FLUSH_BYTES + 12_345)

    client.download_export(EXPORT_ID, tmp_path / "out.csv")

    assert (tmp_path / "out.csv").read_bytes() == world.export


def test_little_is_not_flushed_beside(unflushable: IO[bytes]):
    with _Flushing(unflushable) as flushing:
        flushing.grown(FLUSH_BYTES - 1)


def test_a_failed_flush_is_told_at_the_end(unflushable: IO[bytes]):
    with pytest.raises(OSError, match="Invalid argument"), _Flushing(unflushable) as flushing:
        flushing.grown(FLUSH_BYTES)


def test_a_failed_flush_is_told_before_the_next(unflushable: IO[bytes]):
    flushed = 0
    with pytest.raises(OSError, match="Invalid argument"), _Flushing(unflushable) as flushing:
        for _ in range(100_000):
            flushing.grown(FLUSH_BYTES)
            flushed += 1

    assert 0 < flushed < 100_000


def test_what_ended_the_download_is_told_and_not_its_flush(unflushable: IO[bytes]):
    with pytest.raises(KeyError), _Flushing(unflushable) as flushing:
        flushing.grown(FLUSH_BYTES)
        raise KeyError
