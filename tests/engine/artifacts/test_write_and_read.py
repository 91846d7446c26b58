"""Artifacts from write to read: parts, streams, ranges, closing records, following."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow.csv
import pytest
from sqlalchemy import func, select

from engine.artifacts import ArtifactKind, Closed
from engine.db.models import ArtifactPartRow, ArtifactRow
from engine.errors import Aborted, FailedPrecondition, InternalError, NotFound, OffsetMismatch
from tests.engine.artifacts.conftest import Bench

PART = 8 << 20
DATA = os.urandom(2 * PART + 12_345)


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, len(DATA)])
def test_what_was_written_is_read_whatever_its_size(bench: Bench, size: int) -> None:
    artifact_id = bench.create()
    with bench.artifacts.writer(artifact_id) as writer:
        writer.write(DATA[:size])
        closed = writer.close()
    reader = bench.artifacts.reader(artifact_id)

    assert closed == Closed(size, hashlib.sha256(DATA[:size]).digest(), -(-size // PART))
    assert (reader.closed, reader.size, reader.sha256) == (True, size, closed.sha256)
    assert b"".join(reader.read()) == DATA[:size]
    assert [part.length for part in reader.parts()] == [PART] * (size // PART) + [size % PART] * (size % PART > 0)


def test_small_writes_fill_whole_parts_and_chunks_are_at_most_1_mib(bench: Bench) -> None:
    artifact_id = bench.create()
    with bench.artifacts.writer(artifact_id) as writer:
        for at in range(0, len(DATA), 700_001):
            writer.write(memoryview(DATA)[at : at + 700_001])
        assert writer.size == len(DATA)
        assert writer.flush() == writer.committed == 2 * PART
        writer.close()
    chunks = list(bench.artifacts.reader(artifact_id).read())

    assert b"".join(chunks) == DATA
    assert max(map(len, chunks)) == 1 << 20


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 0), (0, 1), (PART - 1, 2), (PART, PART), (5, None), (len(DATA), None), (len(DATA) - 1, 99), (3, len(DATA))],
)
def test_any_range_can_be_read(bench: Bench, offset: int, length: int | None) -> None:
    reader = bench.artifacts.reader(bench.written(DATA))
    want = DATA[offset:] if length is None else DATA[offset : offset + length]

    assert b"".join(reader.read(offset, length)) == want


@pytest.mark.parametrize(("offset", "length"), [(-1, None), (0, -1), (11, None)])
def test_a_range_that_is_not_there_is_refused_with_the_size(bench: Bench, offset: int, length: int | None) -> None:
    reader = bench.artifacts.reader(bench.written(b"0123456789"))
    with pytest.raises(OffsetMismatch) as caught:
        reader.read(offset, length)

    assert (caught.value.reason, caught.value.metadata) == ("OFFSET_MISMATCH", {"size": "10"})


def test_streams_keep_their_parts_and_indexes_and_the_digest_is_over_all(bench: Bench) -> None:
    artifact_id = bench.create(kind=ArtifactKind.PLAN)
    with bench.artifacts.writer(artifact_id) as writer:
        assert writer.write_part(b"insert 1", stream="insert", index={"rows": 1}) == 0
        assert writer.write_part(bytearray(b"errors"), stream="errors") == 1
        writer.write(b"loose")
        assert writer.write_part(memoryview(b"insert 2"), stream="insert", index={"rows": 2}) == 3
        closed = writer.close()
    reader = bench.artifacts.reader(artifact_id)

    assert closed.sha256 == hashlib.sha256(b"insert 1errorslooseinsert 2").digest()
    assert [(part.number, part.index) for part in reader.parts("insert")] == [(0, {"rows": 1}), (3, {"rows": 2})]
    assert [part.stream for part in reader.parts()] == ["insert", "errors", "", "insert"]
    assert reader.read_part(3) == b"insert 2"
    assert b"".join(reader.read()) == b"insert 1errorslooseinsert 2"
    with pytest.raises(NotFound, match="PART_UNKNOWN"):
        reader.read_part(4)


@pytest.mark.parametrize("size", [0, PART + 1])
def test_a_part_has_at_least_a_byte_and_at_most_8_mib(bench: Bench, size: int) -> None:
    with bench.artifacts.writer(bench.create()) as writer, pytest.raises(ValueError, match="1 to 8388608"):
        writer.write_part(bytes(size))


def test_every_part_has_its_own_name_and_key(bench: Bench) -> None:
    rows = bench.artifacts.reader(bench.written(bytes(2 * PART))).parts()

    assert len({row.name for row in rows}) == len({bytes(row.wrapped_key) for row in rows}) == 2
    assert bench.memory.get(rows[0].name)[112:] != bench.memory.get(rows[1].name)[112:]


def test_a_resumed_writer_goes_on_behind_the_last_part_and_closes_over_all(bench: Bench) -> None:
    artifact_id = bench.create()
    with bench.artifacts.writer(artifact_id) as writer:
        writer.write(DATA[: PART + 100])
    assert bench.names() != []
    for other_process in (bench.store(), bench.artifacts):
        with other_process.writer(artifact_id) as writer:
            assert writer.committed == writer.size == PART
    with bench.store().writer(artifact_id) as writer:
        writer.write(DATA[PART:])
        assert writer.digest() == hashlib.sha256(DATA).digest()
        closed = writer.close()

    assert closed.sha256 == hashlib.sha256(DATA).digest()
    assert b"".join(bench.artifacts.reader(artifact_id).read()) == DATA


def test_the_same_process_does_not_read_parts_again_to_close(bench: Bench) -> None:
    artifact_id = bench.create()
    for at in range(0, 3 * PART, PART):
        with bench.artifacts.writer(artifact_id) as writer:
            writer.write(DATA[at : at + PART])
    bench.failing.failing = {"get"}
    with bench.artifacts.writer(artifact_id) as writer:
        writer.flush(tail=True)

    assert writer.committed == 2 * PART  # the tail of 12,345 bytes filled no part
    with bench.artifacts.writer(artifact_id) as writer:
        writer.write(DATA[2 * PART :])
        assert writer.close().sha256 == hashlib.sha256(DATA).digest()


def test_closing_twice_gives_the_same_and_a_closed_artifact_takes_no_writer(bench: Bench) -> None:
    artifact_id = bench.create()
    with bench.artifacts.writer(artifact_id) as writer:
        writer.write(b"x")
        assert writer.close() == writer.close()
        with pytest.raises(ValueError, match="closed"):
            writer.write(b"y")
    with pytest.raises(FailedPrecondition) as caught:
        bench.artifacts.writer(artifact_id)

    assert caught.value.reason == "ARTIFACT_NOT_OPEN"


def test_an_open_artifact_is_not_read_as_if_it_were_whole(bench: Bench) -> None:
    artifact_id = bench.create()
    with bench.artifacts.writer(artifact_id) as writer:
        writer.write_part(b"first")
        writer.flush()
    reader = bench.artifacts.reader(artifact_id)

    for call in (reader.read, reader.open):
        with pytest.raises(FailedPrecondition) as caught:
            call()
        assert caught.value.reason == "ARTIFACT_NOT_CLOSED"
    assert reader.read_part(0) == b"first"


def test_a_following_reader_gets_everything_as_it_grows(bench: Bench) -> None:
    artifact_id = bench.create(kind=ArtifactKind.EXPORT)
    writing = True
    first_seen = threading.Event()

    def follow() -> bytes:
        seen = b""
        for chunk in bench.artifacts.reader(artifact_id, follow=lambda: writing).read():
            seen += chunk
            if seen:
                first_seen.set()
        return seen

    with ThreadPoolExecutor(1) as pool, bench.artifacts.writer(artifact_id) as writer:
        following = pool.submit(follow)
        writer.write_part(b"one ")
        assert first_seen.wait(60)
        writer.write_part(b"two ")
        writer.write(b"three")
        writer.close()
        writing = False

        assert following.result(60) == b"one two three"


def test_a_following_reader_is_told_when_the_writer_ended_without_closing(bench: Bench) -> None:
    artifact_id = bench.create()
    with bench.artifacts.writer(artifact_id) as writer:
        writer.write_part(b"one ")
        writer.flush()
    chunks = bench.artifacts.reader(artifact_id, follow=lambda: False).read()
    with pytest.raises(Aborted) as caught:
        b"".join(chunks)

    assert caught.value.reason == "ARTIFACT_INCOMPLETE"


def test_a_following_reader_asks_nobody_for_what_is_recorded(bench: Bench) -> None:
    artifact_id, asked = bench.create(), threading.Event()

    def follow() -> bool:
        asked.set()
        return True

    with bench.artifacts.writer(artifact_id) as writer:
        writer.write_part(b"one ")
        writer.flush()
    reader = bench.artifacts.reader(artifact_id, follow=follow)

    assert (b"".join(reader.read(0, 4)), asked.is_set()) == (b"one ", False)
    with bench.db.transaction() as session:
        bench.artifacts.discard(session, artifact_id)
    bench.artifacts.purge(artifact_id)
    with pytest.raises(NotFound, match="ARTIFACT_GONE"):
        b"".join(reader.read(0, 4))


def test_a_reader_as_file_feeds_arrow_and_fills_every_buffer(bench: Bench) -> None:
    text = b"a,b\n" + b"1,xyz\n" * 400_000
    artifact_id = bench.written(text)
    raw = bench.artifacts.reader(artifact_id).open()
    assert raw.read(3_000_000) == text[:3_000_000]
    assert raw.readall() == text[3_000_000:]
    raw.close()

    assert pyarrow.csv.read_csv(bench.artifacts.reader(artifact_id).open()).num_rows == 400_000
    assert io.TextIOWrapper(io.BufferedReader(bench.artifacts.reader(artifact_id).open())).readline() == "a,b\n"


def test_rows_are_committed_in_order_with_what_on_commit_writes(bench: Bench) -> None:
    artifact_id = bench.create()
    seen: list[tuple[int, int]] = []

    def on_commit(session, part: ArtifactPartRow) -> None:
        found = session.scalar(select(func.count()).select_from(ArtifactPartRow))
        seen.append((part.number, found))

    with bench.artifacts.writer(artifact_id, on_commit) as writer:
        for _ in range(3):
            writer.write_part(b"x")
        writer.close(within=lambda _session, closed: seen.append((closed.parts, closed.size)))

    assert seen == [(0, 0), (1, 1), (2, 2), (3, 3)]
    with bench.db.transaction() as session:
        assert session.get_one(ArtifactRow, artifact_id).part_count == 3


async def test_nothing_of_it_runs_on_an_event_loop(bench: Bench) -> None:
    artifact_id = await asyncio.to_thread(bench.written, b"x")
    reader = await asyncio.to_thread(bench.artifacts.reader, artifact_id)
    opened = await asyncio.to_thread(bench.create)
    writer = await asyncio.to_thread(bench.artifacts.writer, opened)

    for call in (lambda: list(reader.read()), lambda: reader.read_part(0), lambda: writer.write(b"x"), writer.flush):
        with pytest.raises(InternalError) as caught:
            call()
        assert caught.value.reason == "BLOCKING_ON_EVENT_LOOP"
