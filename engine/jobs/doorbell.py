"""The doorbell: tells workers to look for jobs and servers to look for events. It carries nothing else.

PostgreSQL is the truth. Redis may be away or emptied at any moment: workers look every 2 s and feeds every second by
themselves, so a lost ring costs at most that time. Nothing here raises.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from urllib.parse import urlsplit

import redis
import structlog
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker

QUEUE = "dataops"
ACTOR = "jobs.look"
NAMESPACE = "dataops:bell"
"""Prefix of the queue's keys in Redis."""
EVENTS_CHANNEL = "dataops:events"
"""Pub/sub channel; a message is the id of a job that has new events."""

ENOUGH_RINGS = 64
"""With so many unread rings in the queue another one tells nobody anything: an unattended queue must not grow."""
RING_SECONDS = 1.0
"""The most an rpc waits for Redis before it leaves the job to the workers' own look."""
PAUSE_AFTER_ERROR = 2.0
"""While Redis is away an rpc shall not wait for it each time; a worker looks within this time anyway."""

log = structlog.get_logger(__name__)


def make_broker(redis_url: str, *, answer_seconds: float = 5.0) -> RedisBroker:
    """A broker without middleware: retries and limits are columns in PostgreSQL, not messages."""
    client = redis.Redis.from_url(
        redis_url,
        socket_connect_timeout=RING_SECONDS,
        socket_timeout=answer_seconds,
        health_check_interval=30,
    )
    return RedisBroker(client=client, middleware=[], namespace=NAMESPACE)  # type: ignore[no-untyped-call]


class Doorbell:
    """Rings workers and announces events; one per process, safe on any thread. Without a URL it does nothing."""

    def __init__(self, redis_url: str, failed: Callable[[], object] = lambda: None) -> None:
        """`failed` is called for every ring and announcement that Redis did not take."""
        self._failed = failed
        self._broker = make_broker(redis_url, answer_seconds=RING_SECONDS) if redis_url else None
        self._host = urlsplit(redis_url).hostname or ""
        self._silent_until = 0.0

    def ring(self) -> None:
        """Tell some idle worker to look. Call it after the commit that made a job runnable."""
        self._try(self._ring)

    def announce(self, job_id: uuid.UUID) -> None:
        """Tell servers that a job has new events. Call it after the commit that wrote them."""
        self._try(lambda broker: broker.client.publish(EVENTS_CHANNEL, str(job_id)))

    def answers(self) -> bool | None:
        """Whether Redis answers now; None where there is none."""
        if self._broker is None:
            return None
        try:
            return bool(self._broker.client.ping())
        except (redis.RedisError, OSError):
            return False

    def close(self) -> None:
        if self._broker is not None:
            self._broker.client.close()

    def _ring(self, broker: RedisBroker) -> None:
        if broker.do_qsize(QUEUE) < ENOUGH_RINGS:
            broker.enqueue(Message(queue_name=QUEUE, actor_name=ACTOR, args=(), kwargs={}, options={}))

    def _try(self, act: Callable[[RedisBroker], object]) -> None:
        if self._broker is None:
            return
        if time.monotonic() < self._silent_until:
            self._failed()
            return
        try:
            act(self._broker)
        except (redis.RedisError, OSError) as error:
            self._silent_until = time.monotonic() + PAUSE_AFTER_ERROR
            self._failed()
            log.warning("doorbell_away", host=self._host, error=type(error).__name__)
