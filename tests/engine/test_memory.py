"""What a worker frees goes back to the system: at once, or at the end of work that keeps it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAD = """
import gc, re
from engine.memory import give_back, keep_little, kept
keep_little()
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) // 1024
def use():
    blocks = [b"x" * (2 << 20) for _ in range(100)]
    held = anonymous()
    del blocks[1::2], blocks
    gc.collect()
    return held
before = anonymous()
"""
BLOCKS = "print(before, use(), anonymous())"
KEPT = """
with kept():
    held = use()
    few = [b"x" * (2 << 20) for _ in range(10)]
    del few
    inside = anonymous()
use()  # of what the heap has grown to
give_back()
print(before, held, anonymous(), inside)
"""


NOW_AND_THEN = """
from engine.memory import giving_back
with kept():
    held = use()
    assert list(giving_back(iter(range(5)), every=5)) == [0, 1, 2, 3, 4]
    print(before, held, anonymous())
"""


@pytest.mark.parametrize("script", [BLOCKS, KEPT, NOW_AND_THEN])
def test_large_blocks_are_given_back(script: str) -> None:
    out = subprocess.run([sys.executable, "-c", HEAD + script], check=True, capture_output=True, text=True).stdout

    before, held, after, *inside = map(int, out.split())
    assert held - before >= 190
    assert after - before <= 20
    assert all(one - before >= 15 for one in inside), "kept for the next"
