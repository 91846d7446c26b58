"""Many watchers of one job over many connections: what each saw, and how long an event took to reach the last one."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from dataops.v1 import jobs_pb2, jobs_pb2_grpc

from engine.jobs.doorbell import Doorbell
from examples.stack.stack import Stack
from tests.server.journal import Journal

CONNECTIONS, EACH = 100, 10
EVENTS = 20
PER_SECOND = 4
"""As a running job writes them."""


@dataclass
class Sightings:
    """What the watchers saw. Times are this machine's clock, which also made the events."""

    sequences: list[list[int]] = field(default_factory=list)
    """Of each watcher, in the order of arrival."""
    seconds: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """For each event, how old it was when it reached each watcher."""

    def last_watcher(self, after: int) -> list[float]:
        """For each event after sequence `after`, its age when the last watcher had it, in ascending order."""
        return sorted(max(ages) for sequence, ages in self.seconds.items() if sequence > after)


async def watch_all(
    address: str, ca_file: Path, token: str, job_id: str, *, connections: int, each: int, ready: asyncio.Event
) -> Sightings:
    """Watch the job from its first event by `connections` x `each` streams until all of them have ended.

    `ready` is set when every one of them has seen the first event.
    """
    sightings = Sightings()
    credentials = grpc.ssl_channel_credentials(ca_file.read_bytes())
    # Without a pool of its own a channel to the same address shares its connection with the others.
    options = [("grpc.use_local_subchannel_pool", 1)]
    begun = 0

    async def watch(stub: jobs_pb2_grpc.JobServiceAsyncStub) -> None:
        nonlocal begun
        mine: list[int] = []
        sightings.sequences.append(mine)
        metadata = (("authorization", f"Bearer {token}"),)
        async for answer in stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id), metadata=metadata):
            now, event = time.time(), answer.event
            if event.sequence == 0:
                continue
            mine.append(event.sequence)
            sightings.seconds[event.sequence].append(now - event.time.ToNanoseconds() / 1e9)
            begun += len(mine) == 1
            if begun == connections * each:
                ready.set()

    async with AsyncExitStack() as stack:
        streams = []
        for _ in range(connections):
            channel = await stack.enter_async_context(grpc.aio.secure_channel(address, credentials, options))
            await channel.channel_ready()
            stub = jobs_pb2_grpc.JobServiceStub(channel)
            streams += [asyncio.create_task(watch(stub)) for _ in range(each)]
        await asyncio.gather(*streams)
    return sightings


async def watch_a_job(stack: Stack, events: int = EVENTS) -> tuple[Sightings, int]:
    """1,000 watchers of one job that writes `events` events and ends; what they saw, and the last event's sequence."""
    bell, last = Doorbell(stack.valkey.url), 0
    with Journal(stack.control_dsn) as journal:
        job_id, ready = journal.job(events=1), asyncio.Event()
        watching = asyncio.create_task(
            watch_all(
                stack.address,
                Path(stack.ca_file),
                stack.tokens["super_admin"],
                str(job_id),
                connections=CONNECTIONS,
                each=EACH,
                ready=ready,
            )
        )
        await asyncio.wait({asyncio.ensure_future(ready.wait()), watching}, return_when=asyncio.FIRST_COMPLETED)
        assert not watching.done(), await watching
        for number in range(events):
            await asyncio.sleep(1 / PER_SECOND)
            last = await asyncio.to_thread(journal.end if number == events - 1 else journal.event, job_id)
            await asyncio.to_thread(bell.announce, job_id)
        seen = await watching
    bell.close()
    return seen, last


def measure(stack: Stack) -> float:
    """Seconds after which the last of 1,000 watchers has an event, at the 99th of 100."""
    seen, _ = asyncio.run(watch_a_job(stack, events=100))
    ages = seen.last_watcher(after=1)
    return ages[len(ages) * 99 // 100 - 1]
