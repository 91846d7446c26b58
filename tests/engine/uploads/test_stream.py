"""Streams of bytes: offsets, overlaps, resumption, newest wins, finish."""

from __future__ import annotations

import hashlib
import os
import random
import zlib
from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from engine.db.models import AuditEventRow
from engine.errors import Aborted, DataInvalid, DataOpsError, FailedPrecondition, InvalidRequest, OffsetMismatch
from tests.engine.uploads.conftest import DATA, MIB, PART, Bench, send


def refused(reason: str, call, *arguments, **named) -> DataOpsError:
    with pytest.raises(DataOpsError) as caught:
        call(*arguments, **named)
    assert caught.value.reason == reason
    return caught.value


def test_a_file_arrives_whole_and_its_digest_is_given_back(bench: Bench) -> None:
    upload = bench.start(size=len(DATA), sha256=hashlib.sha256(DATA).digest())
    stream = bench.uploads.open_stream(bench.ann, upload.id)
    send(stream, DATA)
    done = stream.finish()
    stream.close()

    assert (done.state, done.committed_size, done.sha256) == ("FINISHED", len(DATA), hashlib.sha256(DATA).digest())
    assert done.finished_at is not None
    assert done.expires_at - done.finished_at == timedelta(hours=24)
    assert bench.content(upload.id) == DATA


@pytest.mark.parametrize("size", [0, 1, PART])
def test_files_of_border_sizes_arrive(bench: Bench, size: int) -> None:
    done = bench.finished(DATA[:size])

    assert (done.committed_size, done.sha256) == (size, hashlib.sha256(DATA[:size]).digest())
    assert bench.content(done.id) == DATA[:size]


def test_a_broken_stream_keeps_whole_parts_and_drops_the_tail(bench: Bench) -> None:
    upload = bench.start()
    stream = bench.uploads.open_stream(bench.ann, upload.id)
    send(stream, DATA[: PART + 5 * MIB])
    assert stream.position == PART + 5 * MIB
    stream.close()

    assert bench.row(upload.id).committed_size == stream.committed_size == PART
    resumed = bench.uploads.open_stream(bench.ann, upload.id)
    assert resumed.committed_size == resumed.position == PART
    send(resumed, DATA, start=PART)
    assert resumed.finish().sha256 == hashlib.sha256(DATA).digest()
    resumed.close()
    assert bench.content(upload.id) == DATA


def test_a_stream_that_ended_in_order_keeps_its_tail_too(bench: Bench) -> None:
    upload = bench.start()
    stream = bench.uploads.open_stream(bench.ann, upload.id)
    send(stream, DATA[:1000])
    assert stream.commit() == 1000
    stream.close()
    resumed = bench.uploads.open_stream(bench.ann, upload.id)
    send(resumed, DATA, start=1000)
    resumed.finish()
    resumed.close()

    assert bench.content(upload.id) == DATA


def test_another_process_goes_on_and_its_digest_is_over_everything(bench: Bench) -> None:
    upload = bench.start(sha256=hashlib.sha256(DATA).digest())
    stream = bench.uploads.open_stream(bench.ann, upload.id)
    send(stream, DATA[: PART + 1])
    stream.close()
    resumed = bench.process().open_stream(bench.ann, upload.id)
    send(resumed, DATA, start=PART)

    assert resumed.finish().sha256 == hashlib.sha256(DATA).digest()
    resumed.close()


def test_an_offset_beyond_what_was_sent_is_refused_with_where_to_go_on(bench: Bench) -> None:
    upload = bench.start()
    stream = bench.uploads.open_stream(bench.ann, upload.id)
    send(stream, DATA[: PART + 100])
    assert stream._writer is not None
    stream._writer.flush()

    for offset in (PART + 101, len(DATA), -1):
        with pytest.raises(OffsetMismatch) as caught:
            stream.write(offset, b"x")
        assert caught.value.reason == "OFFSET_MISMATCH"
        assert caught.value.metadata == {"committed_size": str(PART)}
    stream.close()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_any_cuts_overlaps_breaks_and_restarts_give_the_file(bench: Bench, seed: int) -> None:
    chance = random.Random(seed)
    data = DATA[: chance.choice([5000, PART - 1, PART, PART + 1, 2 * PART + 7])]
    upload = bench.start(size=len(data), sha256=hashlib.sha256(data).digest())
    processes = [bench.uploads, bench.process()]
    while True:
        stream = chance.choice(processes).open_stream(bench.ann, upload.id)
        breaks_at = chance.choice([len(data), len(data), chance.randrange(len(data) + 1)])
        while stream.position < breaks_at:
            start = max(0, stream.position - chance.choice([0, 0, 1, 70_000]))
            stream.write(start, data[start : start + chance.choice([1, 4096, 500_000, MIB, MIB])])
        if breaks_at == len(data) and stream.position == len(data):
            done = stream.finish()
            stream.close()
            break
        if chance.random() < 0.3:
            stream.commit()
        stream.close()

    assert done.sha256 == hashlib.sha256(data).digest()
    assert bench.content(upload.id) == data


def test_the_newest_stream_wins_at_once_in_the_same_process(bench: Bench) -> None:
    upload = bench.start()
    older = bench.uploads.open_stream(bench.ann, upload.id)
    older.write(0, b"older")
    newer = bench.uploads.open_stream(bench.ann, upload.id)

    for call in (lambda: older.write(5, b"x"), older.commit, older.finish):
        with pytest.raises(Aborted) as caught:
            call()
        assert caught.value.reason == "UPLOAD_SUPERSEDED"
    older.close()
    newer.write(0, b"newer")
    newer.finish()
    newer.close()
    assert bench.content(upload.id) == b"newer"


@pytest.mark.parametrize("ending", ["part", "commit", "finish"])
def test_an_older_stream_of_another_process_commits_nothing(bench: Bench, ending: str) -> None:
    upload = bench.start()
    older = bench.process().open_stream(bench.ann, upload.id)
    older.write(0, b"older" * 1000)
    newer = bench.uploads.open_stream(bench.ann, upload.id)
    if ending == "part":
        with suppress(Aborted):
            send(older, DATA, start=5000)
    with pytest.raises(Aborted) as caught:
        older.finish() if ending == "finish" else older.commit()
    older.close()

    assert caught.value.reason == "UPLOAD_SUPERSEDED"
    assert bench.row(upload.id).committed_size == 0
    newer.write(0, b"newer")
    newer.finish()
    newer.close()
    assert bench.content(upload.id) == b"newer"
    assert len(list(bench.memory.list())) == 1


def test_a_part_that_is_under_way_when_a_newer_stream_opens_is_not_counted(bench: Bench) -> None:
    upload = bench.start()
    older = bench.process().open_stream(bench.ann, upload.id)
    bench.slow.gate.clear()
    bench.slow.held.clear()
    send(older, DATA[:PART])
    assert bench.slow.held.wait(60)
    newer = bench.uploads.open_stream(bench.ann, upload.id)
    assert newer.committed_size == 0
    bench.slow.gate.set()
    with pytest.raises(Aborted):
        older.commit()
    older.close()
    send(newer, DATA)
    newer.finish()
    newer.close()

    assert bench.content(upload.id) == DATA


def test_finish_may_be_repeated_on_the_same_and_on_a_new_stream(bench: Bench) -> None:
    upload = bench.start()
    stream = bench.uploads.open_stream(bench.ann, upload.id)
    stream.write(0, b"0123456789")
    first = stream.finish()
    assert stream.finish() is first
    stream.close()
    again = bench.process().open_stream(bench.ann, upload.id)
    again.write(4, b"456789")  # the client sends its last message again
    second = again.finish()

    assert (second.sha256, second.finished_at) == (first.sha256, first.finished_at)
    refused("UPLOAD_NOT_OPEN", again.write, 10, b"more")
    again.close()


def test_a_message_with_a_wrong_crc_is_refused_and_nothing_of_it_kept(bench: Bench) -> None:
    upload = bench.start()
    stream = bench.uploads.open_stream(bench.ann, upload.id)
    stream.write(0, b"good", zlib.crc32(b"good"))
    with pytest.raises(DataInvalid) as caught:
        stream.write(4, b"bad", zlib.crc32(b"other"))

    assert (caught.value.reason, caught.value.metadata["of"]) == ("CHECKSUM_MISMATCH", "message")
    assert stream.position == 4
    stream.close()


def test_a_message_over_1_mib_is_refused(bench: Bench) -> None:
    stream = bench.uploads.open_stream(bench.ann, bench.start().id)
    stream.write(0, bytes(MIB))
    with pytest.raises(InvalidRequest) as caught:
        stream.write(MIB, bytes(MIB + 1))

    assert caught.value.reason == "CHUNK_TOO_LARGE"
    stream.close()


def test_more_than_was_declared_is_refused_when_it_comes(bench: Bench) -> None:
    stream = bench.uploads.open_stream(bench.ann, bench.start(size=10).id)
    stream.write(0, b"0123456789")
    error = refused("SIZE_MISMATCH", stream.write, 10, b"x")
    stream.write(5, b"56789")  # an overlap brings nothing new
    stream.close()

    assert (error.metadata["expected"], error.metadata["found"]) == ("10", "11")


def test_more_than_the_installation_takes_is_refused(bench: Bench) -> None:
    uploads = bench.process(max_upload_bytes=10)
    stream = uploads.open_stream(bench.ann, bench.start().id)
    stream.write(0, b"0123456789")
    refused("UPLOAD_TOO_LARGE", stream.write, 10, b"x")
    stream.close()


def test_finishing_short_of_the_declared_size_leaves_the_upload_open(bench: Bench) -> None:
    upload = bench.start(size=len(DATA))
    stream = bench.uploads.open_stream(bench.ann, upload.id)
    send(stream, DATA[: PART + 5])
    refused("SIZE_MISMATCH", stream.finish)
    stream.close()
    resumed = bench.uploads.open_stream(bench.ann, upload.id)
    send(resumed, DATA, start=resumed.committed_size)
    resumed.finish()
    resumed.close()

    assert bench.content(upload.id) == DATA


def test_a_wrong_digest_aborts_the_upload_and_its_bytes_go(bench: Bench) -> None:
    upload = bench.start(sha256=hashlib.sha256(b"other").digest())
    stream = bench.uploads.open_stream(bench.ann, upload.id)
    send(stream, DATA[: PART + 5])
    error = refused("CHECKSUM_MISMATCH", stream.finish)
    stream.close()

    assert error.metadata["of"] == "file"
    assert bench.row(upload.id).state == "ABORTED"
    refused("UPLOAD_NOT_OPEN", bench.uploads.open_stream, bench.ann, upload.id)
    bench.artifacts.sweep()
    assert list(bench.memory.list()) == []


def test_an_upload_aborted_under_a_stream_takes_nothing_more(bench: Bench) -> None:
    upload = bench.start()
    stream = bench.uploads.open_stream(bench.ann, upload.id)
    send(stream, DATA[:PART])
    stream.commit()
    bench.uploads.abort(bench.ann, upload.id)
    stream.write(PART, b"more")
    with pytest.raises(FailedPrecondition) as caught:
        stream.finish()
    stream.close()

    assert (caught.value.reason, caught.value.metadata["state"]) == ("UPLOAD_NOT_OPEN", "ABORTED")
    bench.artifacts.sweep()
    assert list(bench.memory.list()) == []


def test_only_its_owner_writes(bench: Bench) -> None:
    upload = bench.start(bench.ann)

    for stranger in (bench.bob, bench.boss):
        refused("UPLOAD_UNKNOWN", bench.uploads.open_stream, stranger, upload.id)


def test_the_end_of_a_stream_is_in_the_audit_log_once(bench: Bench) -> None:
    upload = bench.start()
    for _ in range(2):
        stream = bench.uploads.open_stream(bench.ann, upload.id)
        send(stream, DATA[: PART + 10], start=stream.position)
        stream.close()
        stream.close()
    wanted = select(AuditEventRow).where(AuditEventRow.operation == "uploads.write").order_by(AuditEventRow.sequence)
    with bench.db.transaction() as session:
        rows = list(session.scalars(wanted))

    assert [row.details for row in rows] == [{"offset": 0, "bytes": PART}, {"offset": PART, "bytes": 0}]
    assert {row.resource_id for row in rows} == {str(upload.id)}


def test_memory_of_a_stream_is_three_parts_whatever_the_file(bench: Bench) -> None:
    upload = bench.start()
    stream = bench.uploads.open_stream(bench.ann, upload.id)
    bench.slow.gate.clear()
    send(stream, os.urandom(2 * PART - 1))  # one under way, one less a byte filled: this does not wait

    assert stream.committed_size == 0
    bench.slow.gate.set()
    stream.write(2 * PART - 1, b"x")
    assert stream.commit() == 2 * PART
    stream.close()
