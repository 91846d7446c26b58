"""The feed: no gap, no repeat, nobody waits for anybody, and streams that end as they should."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import psycopg
import pytest

from engine.errors import NotFound, OffsetMismatch, Unavailable
from examples.stack.servers import PostgresServer
from server import feed as feed_module
from server.drain import Drain
from server.feed import Feed
from server.feed_store import FeedStore, JobHead, StoredEvent
from tests.server.journal import Journal

Seen = tuple[str, int]
PATIENCE = 50.0
"""Of whoever waits for a poll, which comes after 1 or 5 s; nothing else comes before a heartbeat, after 60."""


class Plain:
    """Events as (word, sequence)."""

    def event(self, job: JobHead, event: StoredEvent) -> Seen:
        return ("snapshot" if event.kind == "SNAPSHOT" else "event", event.sequence)

    def heartbeat(self, job_id: uuid.UUID, last_sequence: int) -> Seen:
        return ("heartbeat", last_sequence)

    async def snapshot(self, job_id: uuid.UUID, sequence: int) -> Seen:
        return ("made now", sequence)


class CountingStore(FeedStore):
    """Counts the queries that reach the database."""

    reads = 0

    async def read(self, *args, **kwargs):
        self.reads += 1
        return await super().read(*args, **kwargs)


@pytest.fixture
def journal(control_dsn: str) -> Iterator[Journal]:
    with Journal(control_dsn) as journal:
        yield journal


@pytest.fixture
def store(control_dsn: str) -> CountingStore:
    return CountingStore(control_dsn)


@pytest.fixture
async def feed(store: FeedStore) -> AsyncIterator[Feed[Seen]]:
    feed = Feed(store, Plain(), Drain(), heartbeat_seconds=60)
    yield feed
    await feed.close()


def events(first: int, last: int) -> list[Seen]:
    return [("event", sequence) for sequence in range(first, last + 1)]


async def all_of(stream: AsyncIterator[Seen]) -> list[Seen]:
    return [item async for item in stream]


async def test_a_finished_jobs_stream_resumes_at_every_sequence_without_gap_or_repeat(feed, journal):
    job_id = journal.job(events=12)
    last = journal.end(job_id)

    for after in range(last + 1):
        assert await all_of(feed.watch(job_id, after)) == events(after + 1, last)


async def test_a_running_jobs_events_arrive_in_order_across_reconnects(feed, journal):
    job_id, got = journal.job(events=3), list[Seen]()

    while len(got) < 10:
        stream = feed.watch(job_id, got[-1][1] if got else 0)
        for _ in range(2):
            if len(got) >= 3:
                journal.event(job_id)
                feed.ring(job_id)
            got.append(await anext(stream))
        await stream.aclose()

    assert got == events(1, 10)


async def test_a_history_longer_than_the_ring_is_replayed_whole(feed, journal):
    job_id = journal.job(events=3_500)
    last = journal.end(job_id)

    assert await all_of(feed.watch(job_id, 0)) == events(1, last)


async def test_a_slow_reader_holds_up_nobody_and_misses_nothing(feed, journal, monkeypatch):
    monkeypatch.setattr(feed_module, "RING", 10)
    job_id = journal.job(events=1)
    slow, fast = feed.watch(job_id, 0), feed.watch(job_id, 0)
    got = [await anext(slow)]

    for sequence in range(1, 60):  # the ring is cut several times while the slow one stands at sequence 1
        assert await anext(fast) == ("event", sequence)
        journal.event(job_id)
        feed.ring(job_id)
    journal.end(job_id)
    feed.ring(job_id)

    assert got + await all_of(slow) == events(1, 61)
    assert await all_of(fast) == events(60, 61)


async def test_a_resume_on_either_side_of_the_rings_edge_is_without_gap_or_repeat(feed, journal, monkeypatch):
    monkeypatch.setattr(feed_module, "RING", 5)
    job_id = journal.job(events=1)
    fast = feed.watch(job_id, 0)
    for sequence in range(1, 24):  # cut at 11, at 16 and at 21
        assert await anext(fast) == ("event", sequence)
        journal.event(job_id)
        feed.ring(job_id)
    assert await anext(fast) == ("event", 24)

    for after in range(24):
        stream = feed.watch(job_id, after)
        assert [await anext(stream) for _ in range(24 - after)] == events(after + 1, 24)
        await stream.aclose()


async def test_one_query_serves_all_watchers(feed, store, journal):
    feed.rings(True)
    job_id = journal.job(events=5)
    streams = [feed.watch(job_id, 0) for _ in range(100)]
    for stream in streams:
        assert [await anext(stream) for _ in range(5)] == events(1, 5)
    before = store.reads
    waiting = [asyncio.create_task(anext(stream)) for stream in streams]
    await asyncio.sleep(0)
    journal.event(job_id)
    feed.ring(job_id)

    assert await asyncio.gather(*waiting) == events(6, 6) * 100
    assert store.reads - before <= 2, "one read by the ring, at most one by a safety poll"


async def test_without_redis_news_are_found_by_looking(feed, journal):
    job_id = journal.job()
    stream = feed.watch(job_id, 0)
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0.1)
    journal.event(job_id)

    assert await asyncio.wait_for(waiting, PATIENCE) == ("event", 1)


async def test_a_lost_announcement_is_made_good_by_the_safety_poll(feed, journal):
    feed.rings(True)
    job_id = journal.job()
    waiting = asyncio.create_task(anext(feed.watch(job_id, 0)))
    await asyncio.sleep(0.1)
    journal.event(job_id)

    assert await asyncio.wait_for(waiting, PATIENCE) == ("event", 1)


async def test_an_idle_stream_says_where_it_stands(store, journal):
    feed = Feed(store, Plain(), Drain(), heartbeat_seconds=0.05)
    job_id = journal.job(events=2)
    stream = feed.watch(job_id, 1)

    assert [await anext(stream) for _ in range(3)] == [("event", 2), ("heartbeat", 2), ("heartbeat", 2)]
    await feed.close()


@pytest.mark.parametrize(
    ("after", "want"),
    [
        (0, [*events(1, 2), ("snapshot", 9), *events(10, 11)]),
        (2, [("snapshot", 9), *events(10, 11)]),
        (5, [("snapshot", 9), *events(10, 11)]),
        (9, events(10, 11)),
        (11, []),
    ],
)
async def test_a_resume_from_before_the_thinning_gets_one_snapshot_and_goes_on(feed, journal, after, want):
    job_id = journal.job(events=10)
    journal.end(job_id)
    journal.thin(job_id, 3, 9)

    assert await all_of(feed.watch(job_id, after)) == want


@pytest.mark.parametrize(
    ("after", "want"),
    [
        (0, [*events(1, 2), ("made now", 9), *events(10, 11)]),
        (5, [("made now", 9), *events(10, 11)]),
        (6, [("made now", 9), *events(10, 11)]),
        (9, events(10, 11)),
    ],
)
async def test_events_lost_without_a_snapshot_are_one_snapshot_made_now(feed, journal, after, want):
    job_id = journal.job(events=10)
    journal.end(job_id)
    journal.lose(job_id, 3, 5)
    journal.lose(job_id, 7, 9)

    assert await all_of(feed.watch(job_id, after)) == want


async def test_a_job_whose_events_are_all_gone_is_one_snapshot(feed, journal):
    job_id = journal.job(events=10)
    journal.end(job_id)
    journal.lose(job_id, 1, 11)

    assert await all_of(feed.watch(job_id, 4)) == [("made now", 11)]


async def test_thinning_between_two_looks_is_one_snapshot_for_live_watchers(feed, journal):
    feed.rings(True)
    job_id = journal.job(events=2)
    stream = feed.watch(job_id, 0)
    got = [await anext(stream) for _ in range(2)]
    for _ in range(5):
        journal.event(job_id)
    journal.thin(job_id, 3, 6)
    journal.end(job_id)
    feed.ring(job_id)

    assert got + await all_of(stream) == [*events(1, 2), ("snapshot", 6), *events(7, 8)]


async def test_a_retried_job_speaks_again_to_new_watchers(feed, journal):
    job_id = journal.job(events=1)
    journal.end(job_id, "FAILED")
    slow = feed.watch(job_id, 0)
    assert await anext(slow) == ("event", 1)  # its follower has seen the end and stays while this one reads
    journal.event(job_id, "STATE", "PENDING")
    again = feed.watch(job_id, 2)
    assert await anext(again) == ("event", 3)
    waiting = asyncio.create_task(anext(again))
    await asyncio.sleep(0)
    journal.end(job_id)
    feed.ring(job_id)

    assert await waiting == ("event", 4)
    await slow.aclose()


async def test_an_unknown_job_is_refused(feed):
    with pytest.raises(NotFound, match="JOB_UNKNOWN"):
        await anext(feed.watch(uuid.uuid4(), 0))


async def test_a_sequence_that_has_not_happened_is_refused_with_the_newest(feed, journal):
    with pytest.raises(OffsetMismatch, match="SEQUENCE_UNKNOWN") as caught:
        await anext(feed.watch(journal.job(events=4), 5))

    assert caught.value.metadata == {"last_sequence": "4"}


async def test_a_drain_ends_idle_and_busy_streams_at_a_message_edge(store, journal):
    drain = Drain()
    feed = Feed(store, Plain(), drain, heartbeat_seconds=60)
    job_id = journal.job(events=3)
    idle, busy = feed.watch(job_id, 3), feed.watch(job_id, 0)
    waiting = asyncio.create_task(anext(idle))
    assert await anext(busy) == ("event", 1)
    drain.begin()

    for stopped in (waiting, asyncio.ensure_future(anext(busy))):
        with pytest.raises(Unavailable, match="SERVER_STOPPING") as caught:
            await asyncio.wait_for(stopped, 10)
        assert caught.value.retry_after
    await feed.close()


async def test_streams_outlive_lost_connections_to_the_control_database(feed, journal, control_dsn):
    job_id = journal.job(events=1)
    stream = feed.watch(job_id, 0)
    assert await anext(stream) == ("event", 1)
    with psycopg.connect(control_dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'dataops server: feed' AND datname = current_database()"
        )
    journal.event(job_id)
    feed.ring(job_id)

    assert await asyncio.wait_for(anext(stream), 10) == ("event", 2)


async def test_an_unreachable_control_database_is_unavailable_at_the_start(postgres: PostgresServer):
    feed = Feed(FeedStore("postgresql://nobody:x@127.0.0.1:9/none"), Plain(), Drain())

    with pytest.raises(Unavailable, match="CONTROL_UNREACHABLE"):
        await anext(feed.watch(uuid.uuid4(), 0))
    await feed.close()


async def test_nothing_is_left_running_when_the_last_watcher_leaves(feed, journal):
    job_id = journal.job(events=1)
    streams = [feed.watch(job_id, 0) for _ in range(3)]
    for stream in streams:
        await anext(stream)
        await stream.aclose()
    await asyncio.sleep(0)

    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_a_cancelled_watcher_leaves_the_others_alone(feed, journal):
    job_id = journal.job(events=1)
    stays, leaves = feed.watch(job_id, 1), feed.watch(job_id, 1)
    waiting, leaving = asyncio.create_task(anext(stays)), asyncio.create_task(anext(leaves))
    await asyncio.sleep(0.05)
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving
    journal.event(job_id)
    feed.ring(job_id)

    assert await asyncio.wait_for(waiting, 10) == ("event", 2)
