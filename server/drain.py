"""The end of streams when the server stops: each ends at a message edge, and says when to come back."""

from __future__ import annotations

import asyncio

from engine.errors import Unavailable

COME_BACK_SECONDS = 1.0
"""A restarted server, or another one behind the same name, takes the stream up again this soon."""


class Drain:
    """One flag of the whole server. Streams ask it between two messages; whoever waits can wait for it too."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()

    @property
    def begun(self) -> bool:
        return self._begun.is_set()

    def begin(self) -> None:
        """From now on every stream ends at its next message edge."""
        self._begun.set()

    async def wait(self) -> None:
        """Return when the server begins to stop."""
        await self._begun.wait()

    def check(self) -> None:
        """Do nothing while the server runs.

        Raises:
            Unavailable: SERVER_STOPPING, retryable at once elsewhere.
        """
        if self._begun.is_set():
            raise Unavailable(
                "the server is stopping, go on with another stream",
                reason="SERVER_STOPPING",
                retry_after=COME_BACK_SECONDS,
            )
