"""How long a resumable stream goes on trying, and how long it pauses between."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from dataops_client.errors import DataOpsError

DEFAULT_PATIENCE = 120.0
"""Seconds without any progress before giving up: a server drains in 20 s and starts in a few, a database restart
takes longer."""

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0


class Patience:
    """Decides about the next attempt. Progress makes it patient again."""

    def __init__(self, seconds: float = DEFAULT_PATIENCE, sleep: Callable[[float], None] = time.sleep) -> None:
        self._seconds = seconds
        self._sleep = sleep
        self._deadline: float | None = None
        self._pause = _FIRST_PAUSE

    def progressed(self) -> None:
        """Something arrived: whatever fails next is counted afresh."""
        self._deadline = None
        self._pause = _FIRST_PAUSE

    def pause_or_raise(self, error: DataOpsError) -> None:
        """Wait before the next attempt, or raise `error` if it is not transient or the time is over.

        The pause grows from 0.2 s to 5 s, each with up to half of it at random so that the clients of one
        restarted server do not return together; a delay that the server names is kept.
        """
        delayed = error.retry_delay is not None
        if not (error.transient or delayed):
            raise error
        now = time.monotonic()
        self._deadline = now + self._seconds if self._deadline is None else self._deadline
        if now >= self._deadline:
            raise error
        jittered = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 -- spreads load, guards nothing
        self._sleep(max(jittered, error.retry_delay or 0.0))
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
