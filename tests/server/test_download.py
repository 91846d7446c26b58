"""Downloads: from any offset, complete only with the footer, audited however they end, and never on the loop."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from sqlalchemy import select

from engine.access import Caller, resolve_caller
from engine.access.caller import SYSTEM_CONTEXT
from engine.artifacts import ArtifactKind, ArtifactStore
from engine.clock import utc_now
from engine.crypto.keyring import KeyRing
from engine.db.database import Database
from engine.db.models import AuditEventRow
from engine.errors import FailedPrecondition, OffsetMismatch, Unavailable
from server.download import Downloads, Footer, Piece, Source
from server.drain import Drain
from server.offload import Offload
from tests.server.off_loop import watch_blocking_work, watched_storage

MIB = 1 << 20
FILE = os.urandom(20 * MIB + 12_345)
DIGEST = hashlib.sha256(FILE).digest()


@dataclass
class Bench:
    """Downloads over a real store."""

    db: Database
    store: ArtifactStore
    offload: Offload
    drain: Drain = field(default_factory=Drain)
    growing: bool = True

    def __post_init__(self) -> None:
        self.downloads = Downloads(self.db, self.store, utc_now, self.offload, self.drain)
        with self.db.transaction() as session:
            self.caller: Caller = resolve_caller(session, "test", "me", "USER", "", SYSTEM_CONTEXT, utc_now())

    def create(self) -> uuid.UUID:
        with self.db.transaction() as session:
            return self.store.create(session, ArtifactKind.EXPORT, "exports", uuid.uuid4())

    def file(self, content: bytes = FILE) -> uuid.UUID:
        artifact_id = self.create()
        with self.store.writer(artifact_id) as writer:
            writer.write(content)
            writer.close()
        return artifact_id

    def stream(self, artifact_id: uuid.UUID, offset: int = 0, limit: int = 0, *, follow: bool = False):
        still_writing = (lambda: self.growing) if follow else None
        source = Source(artifact_id, "exports", uuid.uuid4(), still_writing)
        return self.downloads.stream(self.caller, "exports.download", source, offset, limit)

    async def taken(self, *args, **kwargs) -> tuple[bytes, Footer]:
        data, footer = b"", None
        async for piece in self.stream(*args, **kwargs):
            assert footer is None, "the footer is the last message"
            if isinstance(piece, Piece):
                assert 0 < len(piece.data) <= MIB
                assert piece.offset == (args[1] if len(args) > 1 else 0) + len(data)
                data += piece.data
            else:
                footer = piece
        assert footer is not None
        return data, footer

    def audit(self) -> list[tuple[str, str, dict[str, object]]]:
        with self.db.transaction() as session:
            rows = session.scalars(select(AuditEventRow).order_by(AuditEventRow.sequence)).all()
        return [(row.kind, row.outcome, row.details) for row in rows]


@pytest.fixture
def watch(monkeypatch):
    return watch_blocking_work(monkeypatch)


@pytest.fixture
def bench(control_dsn: str, tmp_path, watch) -> Iterator[Bench]:
    db = Database(control_dsn, pool_size=4)
    keys = KeyRing({"k1": bytes(range(32))}, "k1")
    offload = Offload(4)
    yield Bench(db, ArtifactStore(db, watched_storage(tmp_path, watch), keys), offload)
    offload.close()
    db.close()


async def test_a_whole_file_arrives_in_chunks_and_its_footer_proves_it(bench, watch):
    artifact_id = await asyncio.to_thread(bench.file)
    watch.on_loop.clear()  # the bench itself is made on this thread

    data, footer = await bench.taken(artifact_id)

    assert data == FILE
    assert footer == Footer(len(FILE), len(FILE), DIGEST)
    assert watch.on_loop == []
    assert watch.calls["open"] == 3, "the watch saw the parts being opened"


@pytest.mark.parametrize(
    ("offset", "limit"),
    [(1, 0), (8 * MIB, 0), (8 * MIB - 1, 2), (3, 5 * MIB), (len(FILE) - 1, 0), (len(FILE), 0), (0, 10 * len(FILE))],
)
async def test_any_stretch_of_it_can_be_asked_for(bench, offset, limit):
    artifact_id = await asyncio.to_thread(bench.file)

    data, footer = await bench.taken(artifact_id, offset, limit)

    assert data == FILE[offset : offset + limit if limit else None]
    assert (footer.size, footer.sha256) == (len(FILE), DIGEST)


async def test_an_empty_file_is_a_footer(bench):
    artifact_id = await asyncio.to_thread(bench.file, b"")

    assert await bench.taken(artifact_id) == (b"", Footer(0, 0, hashlib.sha256(b"").digest()))


async def test_an_offset_beyond_the_end_is_refused_with_the_size(bench):
    artifact_id = await asyncio.to_thread(bench.file, b"abc")

    with pytest.raises(OffsetMismatch, match="OFFSET_MISMATCH") as caught:
        await bench.taken(artifact_id, 4)

    assert caught.value.metadata == {"size": "3"}
    assert [row[:2] for row in await asyncio.to_thread(bench.audit)] == [("INTENT", ""), ("OUTCOME", "FAILED")]


async def test_a_growing_file_is_followed_to_its_closing_record(bench):
    artifact_id = await asyncio.to_thread(bench.create)

    def write() -> None:
        with bench.store.writer(artifact_id) as writer:
            for start in range(0, len(FILE), 3 * MIB):
                writer.write(FILE[start : start + 3 * MIB])
                writer.flush()
            writer.close()
        bench.growing = False

    reading = asyncio.create_task(bench.taken(artifact_id, follow=True))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(write)

    data, footer = await reading
    assert data == FILE
    assert footer.sha256 == DIGEST


async def test_a_closed_files_footer_waits_until_its_writer_is_done(bench):
    artifact_id = await asyncio.to_thread(bench.file, b"abc")
    stream = bench.stream(artifact_id, follow=True)
    assert (await anext(stream)).data == b"abc"
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.3)
    assert not waiting.done(), "the job that wrote it may still fail"
    bench.growing = False

    assert (await waiting).size == 3
    await stream.aclose()


async def test_a_limit_ends_a_growing_file_without_a_digest(bench):
    artifact_id = await asyncio.to_thread(bench.create)
    writer = bench.store.writer(artifact_id)
    await asyncio.to_thread(writer.write, FILE[: 8 * MIB])
    await asyncio.to_thread(writer.flush)

    data, footer = await bench.taken(artifact_id, 5, 10, follow=True)

    assert data == FILE[5:15]
    assert footer == Footer(15, 8 * MIB, b"")
    await asyncio.to_thread(writer.leave)


async def test_followers_hold_no_thread_while_they_wait(bench):
    artifact_id = await asyncio.to_thread(bench.create)
    followers = [asyncio.create_task(bench.taken(artifact_id, follow=True)) for _ in range(12)]
    await asyncio.sleep(0.3)

    assert await asyncio.wait_for(bench.offload.call(lambda: "free"), 10) == "free"

    await asyncio.to_thread(lambda: bench.store.writer(artifact_id).close())
    bench.growing = False
    assert await asyncio.gather(*followers) == [(b"", Footer(0, 0, hashlib.sha256(b"").digest()))] * 12


async def test_a_file_whose_writer_failed_ends_in_an_error_not_in_a_footer(bench):
    artifact_id = await asyncio.to_thread(bench.create)
    reading = asyncio.create_task(bench.taken(artifact_id, follow=True))
    await asyncio.sleep(0.2)
    bench.growing = False

    with pytest.raises(FailedPrecondition, match="FILE_NOT_COMPLETE"):
        await reading


async def test_an_open_file_is_refused_without_follow(bench):
    with pytest.raises(FailedPrecondition, match="FILE_NOT_COMPLETE"):
        await bench.taken(await asyncio.to_thread(bench.create))


async def test_every_download_leaves_an_intent_and_what_became_of_it(bench):
    artifact_id = await asyncio.to_thread(bench.file)
    await bench.taken(artifact_id, 0, 10)
    stream = bench.stream(artifact_id)
    first, second = await anext(stream), await anext(stream)
    await stream.aclose()  # the caller has hung up

    intent, done, second_intent, cancelled = await asyncio.to_thread(bench.audit)
    assert (intent[0], done[:2], done[2]["bytes_sent"]) == ("INTENT", ("OUTCOME", "COMPLETED"), 10)
    assert second_intent[0] == "INTENT"
    assert (cancelled[:2], cancelled[2]["bytes_sent"]) == (("OUTCOME", "CANCELLED"), len(first.data))
    assert second.offset == len(first.data)


async def test_a_drain_ends_a_download_between_two_messages(bench):
    artifact_id = await asyncio.to_thread(bench.file)
    stream = bench.stream(artifact_id)
    await anext(stream)
    bench.drain.begin()

    with pytest.raises(Unavailable, match="SERVER_STOPPING"):
        await anext(stream)


async def test_a_drain_ends_a_waiting_follower(bench):
    artifact_id = await asyncio.to_thread(bench.create)
    reading = asyncio.create_task(bench.taken(artifact_id, follow=True))
    await asyncio.sleep(0.2)
    bench.drain.begin()

    with pytest.raises(Unavailable, match="SERVER_STOPPING"):
        await asyncio.wait_for(reading, 10)


async def test_nothing_is_left_running_when_a_caller_hangs_up(bench):
    artifact_id = await asyncio.to_thread(bench.file)
    stream = bench.stream(artifact_id)
    await anext(stream)
    await stream.aclose()

    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
