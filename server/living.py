"""Whether the event loop still turns, asked from another thread."""

from __future__ import annotations

import asyncio
import threading

LOOP_SECONDS = 5.0
"""A loop that has not come round for so long serves nobody: nothing that blocks runs on it, so it should in some ms."""


class Living:
    """Asks the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float = LOOP_SECONDS) -> None:
        self._loop, self._limit = loop, limit

    def wrong(self) -> dict[str, str]:
        """As `engine.health.endpoint.Alive`. Blocks until the loop has answered, at most for the limit."""
        turned = threading.Event()
        try:
            self._loop.call_soon_threadsafe(turned.set)
        except RuntimeError:
            return {"event_loop": "it is closed"}
        if turned.wait(self._limit):
            return {"event_loop": ""}
        return {"event_loop": f"no answer within {self._limit:g} s"}
