"""The feed's ear: announcements arrive, and a Redis that goes away and comes back is only a pause."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from engine.jobs.doorbell import EVENTS_CHANNEL, Doorbell
from examples.stack.servers import ValkeyServer
from server import feed_bell


class Ear:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.rung: asyncio.Queue[uuid.UUID] = asyncio.Queue()
        self.working: asyncio.Queue[bool] = asyncio.Queue()

    def ring(self, job_id: uuid.UUID) -> None:
        self.rung.put_nowait(job_id)

    def rings(self, working: bool) -> None:
        self.working.put_nowait(working)


@pytest.fixture
async def ear(valkey: ValkeyServer) -> AsyncIterator[Ear]:
    ear = Ear()
    listening = asyncio.create_task(feed_bell.listen(valkey.url, ear))
    yield ear
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def announced(ear: Ear, url: str, job_id: uuid.UUID) -> uuid.UUID:
    bell = Doorbell(url)
    try:
        for _ in range(10):
            await asyncio.to_thread(bell.announce, job_id)  # what Redis does not take within a second is not told
            with suppress(TimeoutError):
                return await asyncio.wait_for(ear.rung.get(), 10)
    finally:
        bell.close()
    raise AssertionError("not heard")


async def test_an_announcement_rings_for_its_job(ear: Ear, valkey: ValkeyServer):
    assert await asyncio.wait_for(ear.working.get(), 10)
    job_id = uuid.uuid4()

    assert await announced(ear, valkey.url, job_id) == job_id


async def test_a_restarted_redis_is_heard_again_and_its_absence_is_told(ear: Ear, valkey: ValkeyServer):
    assert await asyncio.wait_for(ear.working.get(), 10)
    valkey.restart()  # on the main thread, as it demands; the loop stands still meanwhile
    told = [await asyncio.wait_for(ear.working.get(), 30)]
    while not told[-1]:
        told.append(await asyncio.wait_for(ear.working.get(), 30))
    job_id = uuid.uuid4()

    assert told[0] is False
    assert await announced(ear, valkey.url, job_id) == job_id


async def test_what_is_no_job_id_is_passed_over(ear: Ear, valkey: ValkeyServer):
    assert await asyncio.wait_for(ear.working.get(), 10)
    bell, job_id = Doorbell(valkey.url), uuid.uuid4()
    assert bell._broker is not None
    await asyncio.to_thread(bell._broker.client.publish, EVENTS_CHANNEL, b"\xff no id")
    bell.close()

    assert await announced(ear, valkey.url, job_id) == job_id
