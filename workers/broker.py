"""The doorbell's other end: a Dramatiq worker inside this process, with one thread that holds one ring at a time.

Dramatiq's defaults are wrong for work of minutes, seen: prefetched messages wait behind an 8 s job beside an idle
worker, redelivery after kill -9 took 177 s, SIGTERM never tells the actor. So its messages carry no work, and there is
no middleware: no retries, no time limit, no age limit.
"""

from __future__ import annotations

from collections.abc import Callable

import dramatiq

from engine.jobs.doorbell import ACTOR, QUEUE, make_broker

POLL_MILLISECONDS = 100
"""An idle consumer asks Redis at most this seldom: what a ring takes to be heard."""


def listen(redis_url: str, rung: Callable[[], None]) -> dramatiq.Worker:
    """Start to call `rung` for every ring. Redis may be away, now or later; the worker reconnects by itself."""
    broker = make_broker(redis_url)
    dramatiq.actor(actor_name=ACTOR, queue_name=QUEUE, broker=broker)(rung)
    worker = dramatiq.Worker(broker, queues={QUEUE}, worker_timeout=POLL_MILLISECONDS, worker_threads=1)
    worker.queue_prefetch = 1
    worker.start()
    return worker
