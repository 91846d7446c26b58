"""What fails a test when blocking work runs on a thread with a running event loop."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.artifacts import ArtifactWriter
from engine.artifacts.parts import PartVault
from engine.db.database import Database
from engine.storage import Storage, storage_from

SMALL = 4_096
"""Bytes that may be hashed anywhere, in some 5 us: page tokens are."""


class LoopWatch:
    """Counts calls, and notes those that were made on a loop's thread."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.on_loop: list[str] = []
        self._lock = threading.Lock()

    def note(self, what: str) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            running = False
        else:
            running = True
        with self._lock:
            self.calls[what] = self.calls.get(what, 0) + 1
            if running:
                self.on_loop.append(what)

    def watching(self, what: str, fn: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            self.note(what)
            return fn(*args, **kwargs)

        return noted


def watch_blocking_work(patch: pytest.MonkeyPatch) -> LoopWatch:
    """Watch sealing, opening, hashing and control transactions of this process."""
    watch = LoopWatch()
    patch.setattr(PartVault, "put", watch.watching("seal", PartVault.put))
    patch.setattr(PartVault, "get", watch.watching("open", PartVault.get))
    patch.setattr(ArtifactWriter, "write", watch.watching("write", ArtifactWriter.write))  # hashes what it is given
    sha256 = hashlib.sha256

    def hashing(data: bytes = b"", **kwargs: Any) -> Any:
        if len(data) > SMALL:
            watch.note("hash")
        return sha256(data, **kwargs)

    patch.setattr(hashlib, "sha256", hashing)
    real = Database.transaction

    @contextmanager
    def transaction(self: Database) -> Iterator[Any]:
        watch.note("transaction")
        with real(self) as session:
            yield session

    patch.setattr(Database, "transaction", transaction)
    return watch


def watched_storage(folder: Path, watch: LoopWatch) -> Storage:
    """A local storage whose every method is watched."""
    storage = storage_from(str(folder))
    for name in ("put", "get", "delete", "list"):
        setattr(storage, name, watch.watching(f"storage.{name}", getattr(storage, name)))
    return storage
