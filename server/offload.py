"""The one way from the event loop to the engine, which is synchronous: a bounded pool of threads.

Everything that touches a database, a file, a key or a digest goes through here, so the loop only ever moves messages.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from engine.errors import ResourceExhausted

P = ParamSpec("P")
R = TypeVar("R")

WAITING_PER_THREAD = 64
"""Calls that may stand in line for each thread. At some 3 ms a call that is 0.2 s of waiting; a longer line would only
turn refusals, which say when to come back, into deadlines, which do not."""

RETRY_SECONDS = 1.0


class Offload:
    """Runs engine calls on `threads` threads, as many as the control database's pool has connections."""

    def __init__(self, threads: int, waiting: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="rpc")
        self._limit = threads + (threads * WAITING_PER_THREAD if waiting is None else waiting)
        self._taken = 0

    async def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`fn(*args, **kwargs)` on a thread, with the caller's context variables.

        When this returns or raises, `fn` is not running: a cancelled caller waits for a call that has begun, so that
        what it cleans up next does not meet it half done. A call that has not begun is dropped.

        Raises:
            ResourceExhausted: SERVER_BUSY when the line is full, with the time to come back.
        """
        if self._taken >= self._limit:
            raise ResourceExhausted(
                f"the server has {self._taken} calls in work, expected fewer than {self._limit}",
                reason="SERVER_BUSY",
                retry_after=RETRY_SECONDS,
            )
        loop = asyncio.get_running_loop()
        future: Future[R] = self._pool.submit(contextvars.copy_context().run, partial(fn, *args, **kwargs))
        self._taken += 1
        waiter = asyncio.wrap_future(future, loop=loop)
        waiter.add_done_callback(self._release)
        try:
            return await asyncio.shield(waiter)
        except asyncio.CancelledError:
            if not future.cancel():
                await _ended(waiter)
            raise

    def _release(self, waiter: asyncio.Future[R]) -> None:
        self._taken -= 1
        if not waiter.cancelled():
            waiter.exception()  # taken note of: its caller may be gone

    def close(self) -> None:
        """Let running calls end, drop the line."""
        self._pool.shutdown(wait=True, cancel_futures=True)


async def _ended(waiter: asyncio.Future[R]) -> None:
    while not waiter.done():
        try:
            await asyncio.wait([waiter])
        except asyncio.CancelledError:
            continue  # cancelled again: the promise that the call is not running holds all the same
