"""Uploads on a real control schema, with callers, a movable clock and other "processes" over the same rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from engine.access.caller import CallContext, Caller
from engine.artifacts import ArtifactStore
from engine.clock import Clock
from engine.config import Settings
from engine.crypto.keyring import KeyRing
from engine.db.database import Database
from engine.db.models import ImportRow, PrincipalRow, UploadRow
from engine.ids import new_id
from engine.storage.memory import MemoryStorage
from engine.uploads import Uploads
from tests.engine.artifacts.conftest import MovableClock
from tests.suites.storage_faults import SlowStorage

PART = 8 << 20
MIB = 1 << 20
DATA = os.urandom(2 * PART + 3 * MIB + 777)


@dataclass(frozen=True)
class Process:
    """What `Uploads` takes of a process's resources."""

    db: Database
    artifacts: ArtifactStore
    settings: Settings
    clock: Clock


class Bench:
    """Two callers, one upload service, and more of them on demand."""

    def __init__(self, db: Database, dsn: str) -> None:
        self.db = db
        self.clock = MovableClock()
        self.memory = MemoryStorage(self.clock)
        self.slow = SlowStorage(self.memory)
        self.keys = KeyRing({"k1": os.urandom(32)}, "k1")
        self.settings = Settings(
            control_dsn=dsn,
            platform_dsn=dsn,
            artifacts="memory:",
            max_uploads_per_principal=3,
            max_upload_bytes=64 * MIB,
        )
        self.uploads = self.process()
        self.artifacts = self.store()
        self.ann, self.bob = self.caller("ann"), self.caller("bob")
        self.boss = self.caller("boss", "uploads.manage")

    def store(self) -> ArtifactStore:
        return ArtifactStore(self.db, self.slow, self.keys, self.clock)

    def process(self, **settings: Any) -> Uploads:
        """An upload service that shares nothing but database and storage with the others."""
        changed = self.settings.model_copy(update=settings)
        return Uploads(Process(self.db, self.store(), changed, self.clock))

    def caller(self, subject: str, *permissions: str) -> Caller:
        row = PrincipalRow(
            id=new_id(), issuer="test", subject=subject, kind="USER", display_name="", created_at=self.clock()
        )
        with self.db.transaction() as session:
            session.add(row)
        return Caller(row.id, "test", subject, "USER", (), ("uploads.create", *permissions), CallContext(client="t"))

    def start(self, caller: Caller | None = None, size: int | None = None, sha256: bytes | None = None) -> UploadRow:
        request_id = str(uuid4())
        return self.uploads.start(
            caller or self.ann, "users.csv", size, sha256, request_id, hashlib.sha256(request_id.encode()).digest()
        )

    def finished(self, data: bytes = b"a,b\n1,2\n") -> UploadRow:
        upload = self.start()
        stream = self.uploads.open_stream(self.ann, upload.id)
        send(stream, data)
        done = stream.finish()
        stream.close()
        return done

    def content(self, upload_id: UUID) -> bytes:
        artifact_id = self.row(upload_id).artifact_id
        assert artifact_id is not None
        return b"".join(self.artifacts.reader(artifact_id).read())

    def row(self, upload_id: UUID) -> UploadRow:
        with self.db.transaction() as session:
            return session.get_one(UploadRow, upload_id)

    def importing(self, upload_id: UUID, status: str) -> UUID:
        row = ImportRow(id=new_id(), import_type="ADDITIVE", entity_type="users", status=status, upload_id=upload_id)
        row.principal_id, row.options, row.context = self.ann.principal_id, {}, {}
        row.created_at = row.updated_at = self.clock()
        with self.db.transaction() as session:
            session.add(row)
        return row.id


def send(stream: Any, data: bytes, start: int = 0, size: int = MIB) -> None:
    """`data[start:]` in messages of `size`, each at its place in the file."""
    for at in range(start, len(data), size):
        stream.write(at, data[at : at + size])


@pytest.fixture
def bench(control_dsn: str) -> Iterator[Bench]:
    db = Database(control_dsn)
    yield Bench(db, control_dsn)
    db.close()
