"""Giving memory back: a worker's peak is what its job needs, not the sum of what all stages ever freed.

Left alone, glibc raises its mmap threshold with every large block that is freed and then keeps such blocks for each
thread, and pyarrow's own pool keeps its pages. An import and an export of 300,000 users peaked at 277 and 304 MB so,
and at 207 and 215 MB with fixed thresholds.
"""

from __future__ import annotations

import ctypes

import pyarrow as pa

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""`mallopt` parameters, from malloc.h."""

LARGE = 1 << 20
"""Blocks from here on are mapped one by one and unmapped when freed. The price is fresh pages for each of them: with
1 MiB an import of 1,000,000 users peaks at 207-216 MB and validates in 3.3-3.6 s, with 2 MiB at 276-303 MB and in
2.5-3.1 s."""


def keep_little() -> None:
    """Fix the allocator's thresholds for this process; call it once, before threads. A no-op without glibc."""
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE)
        mallopt(_M_TRIM_THRESHOLD, LARGE)
        mallopt(_M_ARENA_MAX, 2)
