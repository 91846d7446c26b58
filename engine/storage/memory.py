"""Objects in memory: for tests, and as the plainest statement of what a storage is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime

from engine.clock import Clock, utc_now
from engine.errors import AlreadyExists
from engine.storage.base import StoredObject, checked_name, copied_into, missing


class MemoryStorage:
    """A `Storage` that lives as long as its object."""

    def __init__(self, clock: Clock = utc_now) -> None:
        self._objects: dict[str, tuple[bytes, datetime]] = {}
        self._lock = threading.Lock()
        self._clock = clock

    def put(self, name: str, data: bytes | memoryview) -> None:
        copy = bytes(data)
        with self._lock:
            if checked_name(name) in self._objects:
                raise AlreadyExists(f"object {name!r} exists already", reason="OBJECT_EXISTS")
            self._objects[name] = (copy, self._clock())

    def get(self, name: str) -> bytes:
        with self._lock:
            found = self._objects.get(checked_name(name))
        if found is None:
            raise missing(name)
        return found[0]

    def get_into(self, name: str, room: memoryview) -> int:
        return copied_into(room, self.get(name))

    def delete(self, name: str) -> None:
        with self._lock:
            self._objects.pop(checked_name(name), None)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        with self._lock:
            found = [StoredObject(n, len(data), at) for n, (data, at) in self._objects.items() if n.startswith(prefix)]
        return iter(found)

    def tidy(self, before: datetime) -> int:
        return 0
