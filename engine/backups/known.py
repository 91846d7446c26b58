"""A table's lines as a multiset of 64-bit hashes: what of another such table is in it, and what of it is left over.

Some 13 bytes a line, so that millions fit; who has more compares in several passes. Nothing relies on a hash alone:
what comes of it is proven by the rows' fingerprints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 6_000_000
"""Lines of one pass: 72 MB, and as much again for the moment in which they are sorted."""

Hashes = NDArray[np.int64]


def passes_for(rows: int) -> int:
    return -(-rows // AT_ONCE) or 1


def hashed(lines: Sequence[bytes]) -> Hashes:
    """Python's own hash, whose key is random in each process: 0.1 s for a million rows of 200 bytes."""
    return np.fromiter(map(hash, lines), dtype=np.int64, count=len(lines))


class Known:
    """The lines of one side that belong to a pass."""

    def __init__(self, lines: Iterable[Sequence[bytes]], rows: int, number: int = 0, passes: int = 1) -> None:
        """Args:
        lines: all of them, some at once.
        rows: about how many there are.
        number: of the pass, from 0.
        """
        self._number, self._passes = number, passes
        values, count = np.empty(rows // passes + 1024, dtype=np.int64), 0
        for some in lines:
            own = hashed(some)
            own = own[self._mine(own)]
            if count + len(own) > len(values):
                values = np.concatenate([values, np.empty(len(values) // 4 + len(own), dtype=np.int64)])
            values[count : count + len(own)] = own
            count += len(own)
        self._values = values[:count]
        self._values.sort()
        self._left = np.zeros(count, dtype=np.uint32)
        """At the first place of each hash: how often it was not found yet."""
        if count:
            firsts = np.flatnonzero(np.concatenate([[True], self._values[1:] != self._values[:-1]]))
            self._left[firsts] = np.diff(np.append(firsts, count)).astype(np.uint32)

    def take(self, lines: Sequence[bytes]) -> list[bytes]:
        """Of the lines that belong to this pass, those that are not known, or are more than are known."""
        mine, places, found = self._look(lines)
        new = mine[~found]
        if len(over := self._consume(places[found])):
            new = np.sort(np.concatenate([new, mine[found][over]]))
        return [lines[i] for i in new.tolist()]

    @property
    def left(self) -> int:
        """How many lines were not taken."""
        return int(self._left.sum())

    def leftover(self, lines: Sequence[bytes]) -> Iterator[int]:
        """Places, among the lines of the known side as they are shown again, of those that were not taken."""
        mine, places, _ = self._look(lines)
        for at in np.flatnonzero(self._left[places]).tolist():
            if self._left[places[at]]:
                self._left[places[at]] -= 1
                yield int(mine[at])

    def _mine(self, hashes: Hashes) -> NDArray[np.bool_]:
        if self._passes == 1:
            return np.ones(len(hashes), dtype=np.bool_)
        chosen: NDArray[np.bool_] = hashes.view(np.uint64) % np.uint64(self._passes) == self._number
        return chosen

    def _look(self, lines: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Of the lines that belong to this pass: their places in `lines`, the places of their hashes here, and whether
        these are theirs."""
        hashes = hashed(lines)
        mine = np.flatnonzero(self._mine(hashes))
        hashes = hashes[mine]
        if not len(self._values):
            return mine, np.zeros(len(mine), dtype=np.int64), np.zeros(len(mine), dtype=np.bool_)
        places = np.minimum(np.searchsorted(self._values, hashes), len(self._values) - 1)
        return mine, places, self._values[places] == hashes

    def _consume(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Takes one of each; the indexes into `places` of those of which there were none left."""
        unique, counts = np.unique(places, return_counts=True)
        room = self._left[unique]
        taken = np.minimum(room, counts).astype(np.uint32)
        self._left[unique] = room - taken
        over = np.flatnonzero(counts > room)
        if not len(over):
            return np.empty(0, dtype=np.int64)
        return np.concatenate([np.flatnonzero(places == unique[i])[taken[i] :] for i in over.tolist()])
