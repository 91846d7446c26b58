"""Whether the server takes a call at all: not while it stops, and not more at once than it can hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.errors import ResourceExhausted
from server.caller import Call
from server.drain import Drain
from server.interceptors.access_log import QUIET
from server.interceptors.base import Context, Interceptor


class Admission(Interceptor):
    """Counts calls under way, and refuses new ones when there are too many or the server is stopping."""

    def __init__(self, drain: Drain, max_calls: int) -> None:
        self._drain = drain
        self._max_calls = max_calls
        self._calls = 0

    @asynccontextmanager
    async def around(self, call: Call, context: Context) -> AsyncIterator[None]:
        if not call.method.startswith(QUIET):  # probes must be able to learn that the server is stopping
            self._drain.check()
        if self._calls >= self._max_calls:
            raise ResourceExhausted(
                f"the server has {self._calls} calls under way, expected fewer than {self._max_calls}",
                reason="SERVER_BUSY",
                retry_after=1.0,
            )
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
