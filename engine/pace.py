"""How often something is done that costs more the more there is, as listing a whole storage does."""

from __future__ import annotations

import time

SHARE = 20
"""It waits 20 times what it took the last time: a store of a million objects is not listed every minute."""

FREE = 1.0
"""Seconds it may take without being thinned out."""


class Pace:
    """Says when it is time again. One thread at a time."""

    def __init__(self) -> None:
        self._next = self._begun = 0.0

    def due(self) -> bool:
        """Whether it may be done now; then `done` must be called behind it."""
        self._begun = time.monotonic()
        return self._begun >= self._next

    def done(self) -> None:
        ended = time.monotonic()
        took = ended - self._begun
        self._next = ended + SHARE * took if took > FREE else 0.0
