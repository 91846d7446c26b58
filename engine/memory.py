"""Giving memory back: a worker's peak is what its stage needs, not the sum of what all stages ever freed.

Left alone, glibc raises its mmap threshold with every large block that is freed and then keeps such blocks for each
thread, and pyarrow's own pool keeps its pages. An import and an export of 300,000 users peaked at 277 and 304 MB so,
and at 207 and 215 MB with fixed thresholds. The price is fresh pages for every large block. Where that is most of them,
`kept` keeps them for as long as the work goes on; what glibc's heap has grown to then is used again later, and so is
given back whenever a stage begins.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""`mallopt` parameters, from malloc.h."""

LARGE = 1 << 20
"""Blocks from here on are mapped one by one and unmapped when freed. With 2 MiB imports peaked at 276-303 MB."""

_KEPT = 32 << 20
"""Up to here blocks come from the heap while `kept`, and are used again: the most that glibc lets be asked for."""

_LIBC = ctypes.CDLL(None)


T = TypeVar("T")


class _State:
    little = False


def keep_little() -> None:
    """Fix the allocator's thresholds for this process; call it once, before threads. A no-op without glibc."""
    _State.little = True
    _give_back_from(LARGE)
    _set(_M_ARENA_MAX, 2)
    pa.set_memory_pool(pa.system_memory_pool())


def reuse_blocks() -> None:
    """For a process that passes files on all day: keep blocks of up to 4 MiB for the next, 32 MiB of each arena; call
    it once, before threads.

    Left alone, glibc gave the pieces of 1 MiB back as they came: of an export's 432 MiB fresh pages were 0.3 of the
    server's 1.35 s of CPU. Two arenas, since one for every few threads would keep as much each: with an upload, exports
    and a restore the server peaked at 264 MB. With glibc's own number and blocks of up to 16 MiB it was 278 MB.
    """
    _set(_M_ARENA_MAX, 2)
    _set(_M_MMAP_THRESHOLD, 4 << 20)
    _set(_M_TRIM_THRESHOLD, 32 << 20)


def collect_seldom() -> None:
    """Call it once, when the process has all that it serves with: the collector leaves that alone from then on, and
    looks at what comes and goes after 10,000 new objects instead of 700.

    A thousand watchers of one job are several 100,000 objects that stay. To go through them all every 8 s took the loop
    0.2 s, so that an event reached the last watcher after 0.31 s (p99 of 130), and a fifth of the server's CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


@contextmanager
def kept() -> Iterator[None]:
    """Keep what is freed for what comes next, until the end. Of 1,000,000 users' validation, where blocks of the file
    come and go, 350,000 page faults were 0.8 s of the system's time; the peak is 65 MB higher.

    One of a process at a time, as jobs are. Nothing in one that does not `keep_little`.
    """
    if not _State.little:
        yield
        return
    _give_back_from(_KEPT)
    try:
        yield
    finally:
        _give_back_from(LARGE)
        give_back()


def giving_back(items: Iterable[T], every: int = 12) -> Iterator[T]:
    """The items; after so many of them what is free is handed to the system, while memory is `kept` too.

    Blocks of 2 MiB that come and go on three threads leave holes: the peak of 1,000,000 users' validation is 30 MB
    lower so, for 0.2 s of the system's time.
    """
    for number, item in enumerate(items, 1):
        yield item
        if number % every == 0:
            give_back()


def give_back() -> None:
    """Hand what is free to the system; milliseconds. Nothing in a process that does not `keep_little`."""
    if _State.little and (trim := getattr(_LIBC, "malloc_trim", None)) is not None:
        trim(0)


def _give_back_from(size: int) -> None:
    _set(_M_MMAP_THRESHOLD, size)
    _set(_M_TRIM_THRESHOLD, size)


def _set(parameter: int, value: int) -> None:
    if (mallopt := getattr(_LIBC, "mallopt", None)) is not None:
        mallopt(parameter, value)
