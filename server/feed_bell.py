"""The feed's ear: Redis pub/sub tells which job has news. It may be away or deaf: then the feed looks by itself."""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import suppress
from typing import Protocol

from redis import asyncio as redis
from redis.exceptions import RedisError

from engine.jobs.doorbell import EVENTS_CHANNEL

RECONNECT_SECONDS = 1.0
PING_SECONDS = 10.0
"""A half-open connection is noticed by the reader's own ping; until then the safety poll looks."""

log = logging.getLogger(__name__)


class Ringable(Protocol):
    """What can be rung: `server.feed.Feed`."""

    def ring(self, job_id: uuid.UUID) -> None: ...

    def rings(self, working: bool) -> None: ...


async def listen(redis_url: str, feed: Ringable) -> None:
    """Ring `feed` for every announcement, for ever; reconnect each second while Redis is away. Cancel it to end it."""
    while True:
        try:
            await _listen_once(redis_url, feed)
        except (RedisError, OSError) as error:
            log.warning("feed: redis is away, looking every second: %s", type(error).__name__)
        feed.rings(False)
        await asyncio.sleep(RECONNECT_SECONDS)


async def _listen_once(redis_url: str, feed: Ringable) -> None:
    client = redis.Redis.from_url(redis_url, socket_connect_timeout=5, health_check_interval=PING_SECONDS)
    try:
        async with client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(EVENTS_CHANNEL)
            feed.rings(True)
            while True:
                message = await channel.get_message(timeout=PING_SECONDS)
                if message is not None:
                    with suppress(ValueError):
                        feed.ring(uuid.UUID(bytes.decode(message["data"])))
    finally:
        with suppress(RedisError, OSError):
            await client.aclose()
