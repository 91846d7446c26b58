"""Part-sized buffers that are used again.

Touching 8 MiB of fresh memory takes 10 to 20 ms on a virtual machine, as much as storing a part; warm, 0.5 ms.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from engine.crypto.sealing import MAX_PART_BYTES, sealed_length

BUFFER_BYTES = -(-(sealed_length(MAX_PART_BYTES) + 1) // mmap.PAGESIZE) * mmap.PAGESIZE
"""One sealed part and a byte more, in whole pages."""

KEPT = 6
"""Buffers kept while nobody uses them (50 MB): those of one writer, and one more."""

BETWEEN_JOBS = 2
"""Buffers kept from one job to the next (17 MB): an export leaves five, and a restore planned after it took 308 MB."""


class BufferPool:
    """Anonymous memory, one sealed part each. Pages never touched cost nothing, so a small artifact stays small."""

    def __init__(self) -> None:
        self._free: list[mmap.mmap] = []
        self._lock = threading.Lock()

    def take(self) -> mmap.mmap:
        """A buffer with anything in it."""
        with self._lock:
            if self._free:
                return self._free.pop()
        return mmap.mmap(-1, BUFFER_BYTES)

    @contextmanager
    def borrowed(self) -> Iterator[mmap.mmap]:
        """A buffer for as long as the context lasts."""
        buffer = self.take()
        try:
            yield buffer
        finally:
            self.give_back(buffer)

    def let_go(self, but: int = BETWEEN_JOBS) -> None:
        """Hand what nobody uses to the system, but for so many."""
        with self._lock:
            del self._free[but:]

    def give_back(self, buffer: mmap.mmap) -> None:
        """The caller and its threads touch it no more."""
        with self._lock:
            if len(self._free) < KEPT:
                self._free.append(buffer)
