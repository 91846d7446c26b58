"""Storages that misbehave in a stated way, around one that does not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime

from engine.errors import Unavailable
from engine.storage import Storage, StoredObject
from engine.storage.base import copied_into


class WrappedStorage:
    """Passes everything on; the others change one thing."""

    def __init__(self, inner: Storage) -> None:
        self.inner = inner

    def put(self, name: str, data: bytes | memoryview) -> None:
        self.inner.put(name, data)

    def get(self, name: str) -> bytes:
        return self.inner.get(name)

    def get_into(self, name: str, room: memoryview) -> int:
        return copied_into(room, self.get(name))  # as `get` of those that change it

    def delete(self, name: str) -> None:
        self.inner.delete(name)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        return self.inner.list(prefix)

    def tidy(self, before: datetime) -> int:
        return self.inner.tidy(before)


class SignallingStorage(WrappedStorage):
    """Sets `reached` when `puts` puts are done; with `first_waits` the first put to begin waits for that."""

    def __init__(self, inner: Storage, *, puts: int, reached: threading.Event, first_waits: bool = False) -> None:
        super().__init__(inner)
        self._puts, self._reached, self._first_waits = puts, reached, first_waits
        self._lock = threading.Lock()

    def put(self, name: str, data: bytes | memoryview) -> None:
        with self._lock:
            waits, self._first_waits = self._first_waits, False
        if waits and not self._reached.wait(30):
            raise Unavailable("no other put came", reason="STORAGE_FAILED")
        self.inner.put(name, data)
        with self._lock:
            self._puts -= 1
            if self._puts == 0:
                self._reached.set()


class FailingStorage(WrappedStorage):
    """Fails the operations named in `failing`: before they happen, or, with `after`, although they happened."""

    def __init__(self, inner: Storage, *, after: bool = False) -> None:
        super().__init__(inner)
        self.failing: set[str] = set()
        self._after = after

    def put(self, name: str, data: bytes | memoryview) -> None:
        self._around("put", lambda: self.inner.put(name, data))

    def get(self, name: str) -> bytes:
        self._around("get", lambda: None)
        return self.inner.get(name)

    def delete(self, name: str) -> None:
        self._around("delete", lambda: self.inner.delete(name))

    def _around(self, operation: str, act: Callable[[], None]) -> None:
        if operation not in self.failing:
            return act()
        if self._after:
            act()
        raise Unavailable(f"the artifact storage failed: {operation}", reason="STORAGE_FAILED")


class SlowStorage(WrappedStorage):
    """Holds every put until it is let go: `held` is set while one waits at the gate."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.gate, self.held = threading.Event(), threading.Event()
        self.gate.set()

    def put(self, name: str, data: bytes | memoryview) -> None:
        self.held.set()
        assert self.gate.wait(60)
        self.inner.put(name, data)


class TamperingStorage(WrappedStorage):
    """Gives back something else than was put: `change` is applied to what `get` reads."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.change: Callable[[bytes], bytes] = lambda data: data

    def get(self, name: str) -> bytes:
        return self.change(self.inner.get(name))
