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
