"""The event feed: one reader per watched job, any number of watchers beside it.

    Redis "look"  ─┐
    1 s / 5 s poll ─┴─> _Follower (one per job) ── one query ──> ring of the newest events
                                                                   │ each watcher reads at its own cursor
    watcher whose cursor is older than the ring ── own query ──> control database

Invariants:
- A watcher's cursor is the sequence it has been given; it only grows, and nothing between two cursors is left out:
  what the ring no longer holds is read from the database, what the database no longer holds is one snapshot.
- No watcher waits for another: there is no queue to fill, a slow reader merely stands at an older cursor.
- Redis only says when to look. Without it every follower looks each second.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from bisect import bisect_right
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from engine.errors import NotFound, OffsetMismatch, Unavailable
from engine.jobs.model import FINISHED
from server.drain import Drain
from server.feed_store import FeedStore, JobHead, Page, StoredEvent

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

RING = 1_000
"""Events a follower keeps for its watchers: four minutes at the usual four events a second."""
POLL_SECONDS = 1.0
"""How often a follower looks when nothing rings."""
SAFETY_POLL_SECONDS = 5.0
"""How often it looks although something rings: pub/sub promises nothing."""
PATIENCE_SECONDS = 60.0
"""How long watchers are kept while the control database is away; they get heartbeats meanwhile."""

log = logging.getLogger(__name__)


class Rendering(Protocol[T_co]):
    """How events look to a watcher. `event` is called once per event and server, its result shared by all watchers."""

    def event(self, job: JobHead, event: StoredEvent) -> T_co: ...

    def heartbeat(self, job_id: uuid.UUID, last_sequence: int) -> T_co: ...

    async def snapshot(self, job_id: uuid.UUID, sequence: int) -> T_co:
        """The job in place of events up to `sequence` that are no longer kept and left no SNAPSHOT event."""
        ...


class Feed(Generic[T]):
    """All watched jobs of this server."""

    def __init__(
        self, store: FeedStore, rendering: Rendering[T], drain: Drain, *, heartbeat_seconds: float = 15.0
    ) -> None:
        self._store = store
        self._rendering = rendering
        self.drain = drain
        self._heartbeat_seconds = heartbeat_seconds
        self._followers: dict[uuid.UUID, _Follower[T]] = {}
        self._rung = False

    async def close(self) -> None:
        """Stop every follower and close the connections."""
        for follower in list(self._followers.values()):
            follower.fail(Unavailable("the server has stopped", reason="SERVER_STOPPING", retry_after=1.0))
        await self._store.close()

    def ring(self, job_id: uuid.UUID) -> None:
        """Somebody says that this job has news."""
        if follower := self._followers.get(job_id):
            follower.look.set()

    def rings(self, working: bool) -> None:
        """Whether news are announced: `working` slows the polls down. Either way what was missed is looked for now."""
        self._rung = working
        for follower in self._followers.values():
            follower.look.set()

    @property
    def poll_seconds(self) -> float:
        return SAFETY_POLL_SECONDS if self._rung else POLL_SECONDS

    async def watch(self, job_id: uuid.UUID, after: int) -> AsyncGenerator[T, None]:
        """The job's events after sequence `after`, as they happen, with heartbeats; ends with the job.

        Raises:
            NotFound: JOB_UNKNOWN.
            OffsetMismatch: SEQUENCE_UNKNOWN when `after` lies beyond the job's newest event.
            Unavailable: SERVER_STOPPING, CONTROL_UNREACHABLE.
        """
        follower = await self._join(job_id, after)
        loop = asyncio.get_running_loop()
        try:
            quiet_since = loop.time()
            while True:
                changed = follower.changed  # taken before the ring is read: a change in between is not missed
                batch = follower.after(after)
                if batch is None:
                    batch = await read_bridged(self._store, self._rendering, job_id, after)
                for sequence, item in batch:
                    self.drain.check()
                    yield item
                    after, quiet_since = sequence, loop.time()
                if batch:
                    continue
                self.drain.check()
                if follower.ended:
                    return
                follower.check()
                if not await _set_within(changed, quiet_since + self._heartbeat_seconds - loop.time()):
                    yield self._rendering.heartbeat(job_id, after)
                    quiet_since = loop.time()
        finally:
            self._leave(follower)

    async def _join(self, job_id: uuid.UUID, after: int) -> _Follower[T]:
        follower = self._followers.get(job_id)
        if follower is None or follower.ended or follower.failure:  # a retried job begins to speak again
            follower = self._followers[job_id] = _Follower(self, self._store, self._rendering, job_id)
        follower.watchers += 1
        try:
            await follower.ready()
            await self._refuse_future(follower, after)
        except BaseException:
            self._leave(follower)
            raise
        return follower

    async def _refuse_future(self, follower: _Follower[T], after: int) -> None:
        if after <= follower.newest:
            return
        page = await self._store.read(follower.job_id, after, limit=1)  # there may be news since the follower's look
        if page is not None and after > page.last_sequence:
            raise OffsetMismatch(
                f"after_sequence: found {after}, expected at most {page.last_sequence}",
                reason="SEQUENCE_UNKNOWN",
                metadata={"last_sequence": str(page.last_sequence)},
            )

    def _leave(self, follower: _Follower[T]) -> None:
        follower.watchers -= 1
        if follower.watchers == 0:
            follower.stop()
            if self._followers.get(follower.job_id) is follower:
                del self._followers[follower.job_id]


class _Follower(Generic[T]):
    """Reads one job's events once for all of its watchers."""

    def __init__(self, feed: Feed[T], store: FeedStore, rendering: Rendering[T], job_id: uuid.UUID) -> None:
        self.job_id = job_id
        self.watchers = 0
        self.ended = False
        self.failure: NotFound | Unavailable | None = None
        self.look = asyncio.Event()
        self.changed = asyncio.Event()
        self.newest = 0
        self._floor: int | None = None  # the ring holds everything after this sequence; None before the first read
        self._sequences: list[int] = []
        self._items: list[T] = []
        self._feed, self._store, self._rendering = feed, store, rendering
        self._task = asyncio.create_task(self._follow())

    def after(self, cursor: int) -> list[tuple[int, T]] | None:
        """What the ring holds after `cursor`, at most a hundred at a time; None when it does not reach back so far."""
        if self._floor is None or cursor < self._floor:
            return None
        first = bisect_right(self._sequences, cursor)
        last = first + 100
        return list(zip(self._sequences[first:last], self._items[first:last], strict=True))

    def check(self) -> None:
        if self.failure is not None:
            raise replace(self.failure)  # each watcher its own: a shared one would collect all their tracebacks

    async def ready(self) -> None:
        """Wait for the first read."""
        while self._floor is None and self.failure is None:
            await self.changed.wait()
        self.check()

    def wake(self) -> None:
        """Let every watcher look at the ring once more."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def fail(self, failure: NotFound | Unavailable) -> None:
        """End every watcher's stream with this."""
        self.failure = failure
        self.wake()
        self.stop()

    def stop(self) -> None:
        self._task.cancel()

    async def _follow(self) -> None:
        with self._feed.drain.waking(self.wake):
            await self._look_on()

    async def _look_on(self) -> None:
        """Look, and look again, until the job has ended and everything is read."""
        loop = asyncio.get_running_loop()
        away_since: float | None = None
        while not self.ended and self.failure is None:
            self.look.clear()
            more = False
            try:
                more = await self._read()
                away_since = None
            except Unavailable as error:
                away_since = away_since or loop.time()
                if self._floor is None or loop.time() - away_since > PATIENCE_SECONDS:
                    self.failure = error
            except NotFound as error:
                self.failure = error
            except Exception:
                log.exception("feed: a follower failed")
                self.failure = Unavailable("the feed of this job failed, watch again", reason="FEED_FAILED")
            if self.ended or self.failure:
                self.wake()
            elif not more:
                await _set_within(self.look, POLL_SECONDS if away_since else self._feed.poll_seconds)

    async def _read(self) -> bool:
        """Take what is new into the ring; True when there is more to read at once."""
        first = self._floor is None
        page = await self._store.read(self.job_id, self.newest, tail=RING if first else 1 << 60)
        if page is None:
            raise _unknown(self.job_id)
        if first:
            self.newest = max(page.last_sequence - RING, 0)
        fresh = await bridged(self._rendering, self.newest, page)
        if first:
            self._floor = self.newest
        self._sequences += [sequence for sequence, _ in fresh]
        self._items += [item for _, item in fresh]
        self.newest = fresh[-1][0] if fresh else self.newest
        self._trim()
        self.ended = page.state in FINISHED and not page.more
        if fresh or first:
            self.wake()
        return page.more

    def _trim(self) -> None:
        # Cut by halves: taking one from a list's head per event would move all the others each time.
        if len(self._items) > 2 * RING:
            self._floor = self._sequences[-RING - 1]
            del self._sequences[:-RING], self._items[:-RING]


async def read_bridged(store: FeedStore, rendering: Rendering[T], job_id: uuid.UUID, after: int) -> list[tuple[int, T]]:
    """One page of the job's events after `after` from the database, for a watcher that the ring does not reach."""
    page = await store.read(job_id, after)
    if page is None:
        raise _unknown(job_id)
    return await bridged(rendering, after, page)


async def bridged(rendering: Rendering[T], after: int, page: Page) -> list[tuple[int, T]]:
    """The page's events as watchers get them, without a hole.

    Thinning leaves a SNAPSHOT event that stands for what went before it. Where even that is gone (events are kept 90
    days), one snapshot made now stands for everything up to the last hole.
    """
    expected = after + 1
    kept = 0  # events[:kept] follow `after` without a hole
    resume, hole = 0, 0  # events[resume:] follow the last hole, which ends at sequence `hole`
    for number, event in enumerate(page.events):
        if event.sequence != expected and event.kind != "SNAPSHOT":
            resume, hole = number, event.sequence - 1
        elif not hole:
            kept = number + 1
        expected = event.sequence + 1
    if not page.more and expected <= page.last_sequence:
        resume, hole = len(page.events), page.last_sequence
    if not hole:
        return [(event.sequence, rendering.event(page.job, event)) for event in page.events]
    found = [(event.sequence, rendering.event(page.job, event)) for event in page.events[:kept]]
    found.append((hole, await rendering.snapshot(page.job.id, hole)))
    found += [(event.sequence, rendering.event(page.job, event)) for event in page.events[resume:]]
    return found


def _unknown(job_id: uuid.UUID) -> NotFound:
    return NotFound("job: found none with this id", reason="JOB_UNKNOWN", metadata={"job_id": str(job_id)})


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for `event` at most so long; whether it came."""
    try:
        async with asyncio.timeout(max(seconds, 0)):
            await event.wait()
    except TimeoutError:
        return False
    return True
