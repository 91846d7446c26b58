"""An artifact store on a real control schema and memory storage, with a clock that a test can move."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from engine.artifacts import ArtifactKind, ArtifactStore
from engine.clock import utc_now
from engine.crypto.keyring import KeyRing
from engine.db.database import Database
from engine.ids import new_id
from engine.storage import Storage
from engine.storage.memory import MemoryStorage
from tests.suites.storage_faults import FailingStorage, SlowStorage, TamperingStorage

KEYS = KeyRing({"k1": os.urandom(32)}, "k1")


class MovableClock:
    """The real time plus what a test adds."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return utc_now() + self.ahead


@dataclass
class Bench:
    """Everything a test of artifacts touches; `store(storage)` makes another process's store over the same rows."""

    db: Database
    clock: MovableClock = field(default_factory=MovableClock)

    def __post_init__(self) -> None:
        self.memory = MemoryStorage(self.clock)
        self.failing = FailingStorage(self.memory)
        self.slow = SlowStorage(self.failing)
        self.storage = TamperingStorage(self.slow)
        self.artifacts = self.store(self.storage)

    def store(self, storage: Storage | None = None) -> ArtifactStore:
        return ArtifactStore(self.db, storage or self.storage, KEYS, self.clock)

    def create(self, owner_type: str = "upload", owner_id: UUID | None = None, **more: object) -> UUID:
        kind = more.pop("kind", ArtifactKind.UPLOAD)
        with self.db.transaction() as session:
            return self.artifacts.create(session, kind, owner_type, owner_id or new_id(), **more)  # type: ignore[arg-type]

    def written(self, data: bytes, **more: object) -> UUID:
        artifact_id = self.create(**more)  # type: ignore[arg-type]
        with self.artifacts.writer(artifact_id) as writer:
            writer.write(data)
            writer.close()
        return artifact_id

    def names(self) -> list[str]:
        return sorted(found.name for found in self.memory.list())


@pytest.fixture
def bench(control_dsn: str) -> Iterator[Bench]:
    db = Database(control_dsn)
    yield Bench(db)
    db.close()
