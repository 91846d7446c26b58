"""What goes wrong around artifacts: writers that race, storage that fails, bytes that were changed."""

from __future__ import annotations

import os
import random
import threading
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from engine.artifacts import ArtifactStore
from engine.crypto import sealing
from engine.crypto.keyring import KeyRing
from engine.db.models import ArtifactPartRow, ArtifactRow
from engine.errors import Aborted, DataLoss, DataOpsError, FailedPrecondition, InternalError, NotFound, Unavailable
from tests.engine.artifacts.conftest import Bench
from tests.suites.storage_faults import FailingStorage, SignallingStorage

PART = 8 << 20


def test_of_two_writers_one_fails_and_the_file_is_one_writers_own(bench: Bench) -> None:
    artifact_id = bench.create()
    with bench.artifacts.writer(artifact_id) as one, bench.store().writer(artifact_id) as other:
        one.write_part(b"from one")
        one.flush()
        other.write_part(b"from the other")
        with pytest.raises(Aborted) as caught:
            other.flush()
        one.close()

        assert caught.value.reason == "ARTIFACT_CHANGED"
        with pytest.raises(Aborted):
            other.write(b"more")
        other.leave()
    assert b"".join(bench.artifacts.reader(artifact_id).read()) == b"from one"
    assert len(bench.names()) == 1


def test_what_on_commit_raises_refuses_the_part_and_removes_its_object(bench: Bench) -> None:
    artifact_id = bench.create()

    def refuse(_session, _part) -> None:
        raise Aborted("no", reason="NO")

    with pytest.raises(Aborted, match="NO"), bench.artifacts.writer(artifact_id, refuse) as writer:
        writer.write_part(b"x")

    assert bench.names() == []
    assert bench.artifacts.reader(artifact_id).parts() == []


def test_a_part_behind_one_that_was_refused_is_not_recorded_and_leaves_no_object(bench: Bench) -> None:
    artifact_id, second_stored = bench.create(), threading.Event()
    store = bench.store(SignallingStorage(bench.memory, puts=2, reached=second_stored))

    def refuse_the_first(_session, part) -> None:
        second_stored.wait(30)
        if part.number == 0:
            raise Aborted("no", reason="NO")

    with pytest.raises(Aborted, match="NO"), store.writer(artifact_id, refuse_the_first) as writer:
        writer.write_part(b"one")
        writer.write_part(b"two")

    assert second_stored.is_set()
    assert bench.names() == []
    assert store.reader(artifact_id).parts() == []


def test_parts_that_are_stored_out_of_order_are_recorded_in_order(bench: Bench) -> None:
    artifact_id, second_stored = bench.create(), threading.Event()
    store = bench.store(SignallingStorage(bench.memory, puts=1, reached=second_stored, first_waits=True))
    recorded: list[int] = []
    with store.writer(artifact_id, lambda _session, part: recorded.append(part.number)) as writer:
        for data in (b"one", b"two", b"three"):
            writer.write_part(data)
        writer.close()

    assert second_stored.is_set()
    assert recorded == [0, 1, 2]
    assert b"".join(store.reader(artifact_id).read()) == b"onetwothree"


@pytest.mark.parametrize("after", [False, True])
def test_a_storage_that_fails_is_told_to_the_writer_and_nothing_counts(bench: Bench, after: bool) -> None:
    failing = FailingStorage(bench.memory, after=after)
    store = bench.store(failing)
    artifact_id = bench.create()
    with store.writer(artifact_id) as writer:
        writer.write_part(b"first")
        writer.flush()
    failing.failing = {"put"}
    with pytest.raises(Unavailable, match="STORAGE_FAILED"), store.writer(artifact_id) as writer:
        writer.write_part(b"second")
        writer.close()
    failing.failing = set()

    assert [part.length for part in store.reader(artifact_id).parts()] == [5]
    with store.writer(artifact_id) as writer:
        writer.write(b" and third")
        writer.close()
    assert b"".join(store.reader(artifact_id).read()) == b"first and third"


def test_a_part_is_not_recorded_long_after_it_was_stored(bench: Bench) -> None:
    artifact_id = bench.create()

    def suspend(_session, _part) -> None:
        bench.clock.ahead += timedelta(minutes=11)

    with pytest.raises(Aborted) as caught, bench.artifacts.writer(artifact_id, suspend) as writer:
        writer.write_part(b"x")

    assert caught.value.reason == "PART_TOO_LATE"
    assert bench.artifacts.reader(artifact_id).parts() == []


def test_a_discarded_artifact_takes_no_more_parts_and_no_reader(bench: Bench) -> None:
    artifact_id = bench.create()
    with bench.artifacts.writer(artifact_id) as writer:
        with bench.db.transaction() as session:
            bench.artifacts.discard(session, artifact_id)
        writer.write_part(b"x")
        with pytest.raises(FailedPrecondition) as caught:
            writer.close()
        writer.leave()

    assert caught.value.reason == "ARTIFACT_NOT_OPEN"
    with pytest.raises(NotFound, match="ARTIFACT_GONE"):
        bench.artifacts.reader(artifact_id)


def test_leaving_with_an_error_keeps_whole_parts_and_shows_that_error(bench: Bench) -> None:
    artifact_id = bench.create()
    with pytest.raises(RuntimeError, match="mine"), bench.artifacts.writer(artifact_id) as writer:
        writer.write(bytes(PART + 5))
        raise RuntimeError("mine")

    assert [part.length for part in bench.artifacts.reader(artifact_id).parts()] == [PART]


def test_a_defective_cipher_is_found_before_anything_is_stored(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sealing.seal

    def defective(identity, key_id, data_key, plaintext, out):
        length = real(identity, key_id, data_key, plaintext, out)
        out[200] ^= 1
        return length

    monkeypatch.setattr("engine.artifacts.parts.seal", defective)
    with pytest.raises(InternalError) as caught, bench.artifacts.writer(bench.create()) as writer:
        writer.write(os.urandom(1000))
        writer.close()

    assert caught.value.reason == "SELF_CHECK_FAILED"
    assert bench.names() == []


def read_all(bench: Bench, artifact_id) -> bytes:
    return b"".join(bench.artifacts.reader(artifact_id).read())


@pytest.fixture
def two_parts(bench: Bench):
    artifact_id = bench.create()
    with bench.artifacts.writer(artifact_id) as writer:
        writer.write_part(os.urandom(1_500_000))
        writer.write_part(os.urandom(1_500_000))
        writer.close()
    return artifact_id


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_stored_bytes_that_were_changed_in_any_way_are_refused(bench: Bench, two_parts, seed: int) -> None:
    def change(data: bytes) -> bytes:
        chance = random.Random(seed)
        where = chance.randrange(len(data))
        kind = chance.choice(["flip", "cut", "append", "zero", "empty", "repeat"])
        if kind == "flip":
            return data[:where] + bytes([data[where] ^ (1 << chance.randrange(8))]) + data[where + 1 :]
        made = {"cut": data[:where], "append": data + b"\0", "zero": bytes(len(data)), "empty": b""}
        return made.get(kind, data[: len(data) // 2] * 2)

    bench.storage.change = change
    with pytest.raises(DataLoss) as caught:
        read_all(bench, two_parts)

    assert caught.value.reason == "PART_DAMAGED"


def test_parts_swapped_in_storage_or_in_the_rows_are_refused(bench: Bench, two_parts) -> None:
    first, second = bench.artifacts.reader(two_parts).parts()
    swap = {bench.memory.get(first.name): bench.memory.get(second.name)}
    bench.storage.change = lambda data: swap.get(data, data)
    with pytest.raises(DataLoss, match="another part"):
        read_all(bench, two_parts)
    bench.storage.change = lambda data: data

    with bench.db.transaction() as session:
        for row, name in ((first, "x"), (second, first.name), (first, second.name)):
            where = (ArtifactPartRow.artifact_id == two_parts, ArtifactPartRow.number == row.number)
            session.execute(update(ArtifactPartRow).where(*where).values(name=name))
    with pytest.raises(DataLoss, match="another part"):
        read_all(bench, two_parts)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"wrapped_key": bytes(60)}, "KEY_WRONG"),
        ({"sha256": bytes(32)}, "PART_DAMAGED"),
        ({"length": 1_499_999}, "PART_DAMAGED"),
        ({"stored_length": 1_499_999}, "PART_DAMAGED"),
        ({"key_id": "k9"}, "KEY_UNKNOWN"),
    ],
)
def test_a_changed_row_is_refused(bench: Bench, two_parts, change: dict[str, object], reason: str) -> None:
    with bench.db.transaction() as session:
        session.execute(update(ArtifactPartRow).where(ArtifactPartRow.number == 1).values(**change))
    with pytest.raises(DataOpsError) as caught:
        read_all(bench, two_parts)

    assert caught.value.reason == reason


@pytest.mark.parametrize("number", [0, 1])
def test_a_part_row_that_was_taken_away_is_missed(bench: Bench, two_parts, number: int) -> None:
    with bench.db.transaction() as session:
        session.delete(session.get_one(ArtifactPartRow, (two_parts, number)))
    reader = bench.artifacts.reader(two_parts)
    for offset, length in ((0, None), (0, 3_000_000), (10, 2_999_990)):
        with pytest.raises(DataLoss):
            b"".join(reader.read(offset, length))


def test_a_closing_record_over_other_bytes_is_refused_at_the_end(bench: Bench, two_parts) -> None:
    with bench.db.transaction() as session:
        session.execute(update(ArtifactRow).values(sha256=bytes(32)))
    with pytest.raises(DataLoss) as caught:
        read_all(bench, two_parts)

    assert caught.value.reason == "ARTIFACT_DAMAGED"


def test_an_object_that_is_gone_is_damage_unless_the_artifact_was_deleted(bench: Bench, two_parts) -> None:
    reader = bench.artifacts.reader(two_parts)
    bench.memory.delete(reader.parts()[1].name)
    with pytest.raises(DataLoss) as damage:
        b"".join(reader.read())
    with bench.db.transaction() as session:
        bench.artifacts.discard(session, two_parts)
    bench.artifacts.purge(two_parts)
    with pytest.raises(NotFound) as gone:
        reader.read_part(0)

    assert (damage.value.reason, gone.value.reason) == ("PART_MISSING", "PART_UNKNOWN")


def test_with_another_key_nothing_opens(bench: Bench, two_parts) -> None:
    stranger = ArtifactStore(bench.db, bench.storage, KeyRing({"k1": os.urandom(32)}, "k1"), bench.clock)
    with pytest.raises(DataLoss) as caught:
        b"".join(stranger.reader(two_parts).read())

    assert caught.value.reason == "KEY_WRONG"
