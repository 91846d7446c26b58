"""A table's lines as a multiset of 64-bit hashes: what of another such table is in it, and what of it is left over.

Some 12 bytes a line, so that millions fit; who has more compares in several passes. Nothing relies on a hash alone:
what comes of it is proven by the rows' fingerprints.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

AT_ONCE = 5_000_000
"""Lines of one pass: 60 MB, and twice as much for the moment in which they are sorted."""


Shown = TypeVar("Shown")


def passes_for(rows: int) -> int:
    return -(-rows // AT_ONCE) or 1


class Known:
    """The lines of one side that belong to a pass."""

    def __init__(self, lines: Iterable[Sequence[bytes]], number: int = 0, passes: int = 1) -> None:
        """Args:
        lines: all of them, some at once.
        number: of the pass, from 0.
        """
        self._number, self._passes = number, passes
        hashes = array("q")
        for some in lines:
            hashes.extend(self._hashed(some)[0])
        found = _arrow(hashes)
        self._values = pc.take(found, pc.array_sort_indices(found))
        del found, hashes
        self._left = array("I", b"\1\0\0\0") * len(self._values)
        """At the first place of each hash: how often it was not found yet. The last place stands for all others."""
        self._left.append(0)
        twins = pc.indices_nonzero(pc.equal(self._values[1:], self._values[:-1])) if len(self._values) > 1 else []
        first, last = -1, -2
        for twin in map(int, twins):
            first, last = (first if twin == last + 1 else twin), twin
            self._left[first] += 1
            self._left[twin + 1] = 0

    def take(self, lines: Sequence[bytes]) -> list[bytes]:
        """Of the lines that belong to this pass, those that are not known, or are more than are known."""
        left, new = self._left, []
        for line, place in zip(*self._placed(lines, lines), strict=True):
            if left[place]:
                left[place] -= 1
            else:
                new.append(line)
        return new

    @property
    def left(self) -> int:
        """How many lines were not taken."""
        return sum(self._left)

    def leftover(self, lines: Sequence[bytes]) -> Iterator[int]:
        """Places, among the lines of the known side as they are shown again, of those that were not taken."""
        left = self._left
        for at, place in zip(*self._placed(lines, range(len(lines))), strict=True):
            if left[place]:
                left[place] -= 1
                yield at

    def _placed(self, lines: Sequence[bytes], shown: Sequence[Shown]) -> tuple[Sequence[Shown], list[int]]:
        """Of the lines that belong to this pass, what is shown of them, and the places of their hashes here."""
        hashes, mine = self._hashed(lines)
        chosen = shown if mine is None else list(compress(shown, mine))
        nowhere = pa.scalar(len(self._values), pa.uint64())
        if not len(self._values):
            return chosen, [0] * len(chosen)
        wanted = _arrow(hashes)
        places = pc.search_sorted(self._values, wanted)
        there = pc.take(self._values, pc.min_element_wise(places, pa.scalar(len(self._values) - 1, pa.uint64())))
        found: list[int] = pc.if_else(pc.equal(there, wanted), places, nowhere).to_pylist()
        return chosen, found

    def _hashed(self, lines: Sequence[bytes]) -> tuple[array[int], Sequence[bool] | None]:
        """Python's own hash, whose key is random in each process; and which of the lines belong to the pass, if not
        all do."""
        hashes = array("q", map(hash, lines))
        if self._passes == 1:
            return hashes, None
        mine = [h % self._passes == self._number for h in hashes]
        return array("q", compress(hashes, mine)), mine


def _arrow(hashes: array[int]) -> pa.Array:
    return pa.Array.from_buffers(pa.int64(), len(hashes), [None, pa.py_buffer(hashes)])
