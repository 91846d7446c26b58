"""Running digests of open artifacts, so that a file which arrives by many streams is hashed once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Protocol
from uuid import UUID

KEPT = 1_000
"""Open artifacts whose digest is remembered: some 200 bytes each. A forgotten one is read again before closing."""


class Hasher(Protocol):
    """The part of hashlib's objects that is used."""

    def update(self, data: bytes | memoryview, /) -> None: ...
    def digest(self) -> bytes: ...
    def copy(self) -> Hasher: ...


class RunningDigests:
    """Digest states after a number of committed parts. Parts never change, so a state stays true for ever."""

    def __init__(self) -> None:
        self._states: OrderedDict[UUID, tuple[int, Hasher]] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, artifact_id: UUID, parts: int, state: Hasher) -> None:
        with self._lock:
            self._states[artifact_id] = (parts, state)
            self._states.move_to_end(artifact_id)
            while len(self._states) > KEPT:
                self._states.popitem(last=False)

    def after(self, artifact_id: UUID, parts: int) -> Hasher | None:
        """A state of its own for the caller, or None when this process has not seen exactly these parts."""
        with self._lock:
            found = self._states.get(artifact_id)
        return found[1].copy() if found is not None and found[0] == parts else None

    def forget(self, artifact_id: UUID) -> None:
        with self._lock:
            self._states.pop(artifact_id, None)
