"""What a worker frees goes back to the system: at once, or at the end of work that keeps it. A server uses it again."""

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
    few = [b"x" * (2 << 20) for _ in range(10)]
    del few
    inside = anonymous()
    some = giving_back(iter(range(6)), every=3)
    items = [next(some) for _ in range(3)]
    between = anonymous()
    items += some
    print(before, inside, between, anonymous(), items == list(range(6)))
"""


@pytest.mark.parametrize("script", [BLOCKS, KEPT])
def test_large_blocks_are_given_back(script: str) -> None:
    out = subprocess.run([sys.executable, "-c", HEAD + script], check=True, capture_output=True, text=True).stdout

    before, held, after, *inside = map(int, out.split())
    assert held - before >= 190
    assert after - before <= 20
    assert all(one - before >= 15 for one in inside), "kept for the next"


def test_what_is_kept_is_given_back_after_so_many_items() -> None:
    out = subprocess.run([sys.executable, "-c", HEAD + NOW_AND_THEN], check=True, capture_output=True, text=True).stdout

    before, inside, between, after, same = out.split()
    assert int(inside) - int(before) >= 15
    assert int(between) - int(before) >= 15, "not before the next is asked for"
    assert (int(after) - int(before) <= 5, same) == (True, "True")


USED_AGAIN = """
import resource
from engine.memory import reuse_blocks
reuse_blocks()
def faults():
    pieces = [b"x" * (1 << 20) for _ in range(16)]
    del pieces
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        pieces = [b"x" * (1 << 20) for _ in range(16)]
        del pieces
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults())
"""


def test_a_server_uses_the_pieces_of_a_file_again() -> None:
    out = subprocess.run([sys.executable, "-c", USED_AGAIN], check=True, capture_output=True, text=True).stdout

    assert int(out) < 4000, "pages of 4 KiB, of the 40,000 that ten times 16 MiB take"
