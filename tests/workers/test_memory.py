"""What a worker frees goes back to the system."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, re
from workers.memory import keep_little
keep_little()
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) // 1024
before = anonymous()
blocks = [b"x" * (2 << 20) for _ in range(100)]
held = anonymous()
del blocks[1::2], blocks
gc.collect()
print(before, held, anonymous())
"""


def test_large_blocks_are_given_back() -> None:
    out = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True).stdout

    before, held, after = map(int, out.split())
    assert held - before >= 190
    assert after - before <= 20
