"""Backups made without a database, storages that keep a diary, and work that is no job."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

from engine.backups.archive import Archive
from engine.backups.manifest import SETTINGS, BackedEntity, Column, Manifest
from engine.backups.model import Asked, Requester, Trigger
from engine.backups.repository import Repository
from engine.backups.take import take
from engine.clock import utc_now
from engine.crypto.keyring import KeyRing
from engine.db.models import BackupRow
from engine.db.platform import Connection, Platform
from engine.errors import DataLoss, FailedPrecondition, NotFound
from engine.storage import Storage
from tests.suites.storage_faults import WrappedStorage
from tests.world import World

NOW = utc_now()
OLD, NEW = os.urandom(32), os.urandom(32)
RING = KeyRing({"old": OLD}, "old")
ROTATED = KeyRing({"new": NEW, "old": OLD}, "new")

SMALL = {"parents": b"1\n2\n", "children": b"10\t1\n11\t2\n", "empty": b""}


class Diary(WrappedStorage):
    """Writes down what is put and deleted, in order; `before` is called with each, and may raise."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.put_names: list[str] = []
        self.deleted: list[str] = []
        self.before: Callable[[str, str], None] = lambda _act, _name: None

    def put(self, name: str, data: bytes | memoryview) -> None:
        self.before("put", name)
        super().put(name, data)
        self.put_names.append(name)

    def delete(self, name: str) -> None:
        self.before("delete", name)
        super().delete(name)
        self.deleted.append(name)


class Direct:
    """Work that is no job: what `take` needs, over a database."""

    def __init__(self, dsn: str) -> None:
        self._platform = Platform(dsn)
        self.on_check: Callable[[], None] = lambda: None
        self.on_progress: Callable[[int], None] = lambda _rows: None

    def check(self) -> None:
        self.on_check()

    def stage(self, name: str, *, rows: int | None = None, bytes: int | None = None) -> None:  # noqa: A002
        pass

    def progress(self, *, rows: int | None = None, bytes: int | None = None) -> None:  # noqa: A002
        self.on_progress(rows or 0)

    def platform(self, purpose: str, **settings: Any) -> AbstractContextManager[Connection]:
        return self._platform.connect(purpose, **settings)


def write(repository: Repository, streams: dict[str, bytes], *, settings: bytes = b"") -> Archive:
    """A published backup of these streams by entity."""
    artifact_id, entities = uuid.uuid4(), []
    with repository.writer(artifact_id) as writer:
        for number, (name, data) in enumerate(streams.items()):
            stream = writer.stream(str(number))
            stream.write(data)
            entities.append(_entity(name, data, stream.end()))
        stream = writer.stream(SETTINGS)
        stream.write(settings)
        own = {"rows": settings.count(b"\n"), "sha256": stream.end()}
        writer.end()
    manifest = Manifest(
        backup_id=uuid.uuid4(),
        artifact_id=artifact_id,
        backup_type="FULL",
        trigger_type="MANUAL",
        name="a backup",
        created_at=NOW,
        snapshot_at=NOW,
        requested_by={"principal_id": str(uuid.uuid4()), "issuer": "tests", "subject": "root"},
        database={"name": "d", "system_identifier": "1", "server_version": "180000", "encoding": "UTF8"},
        seed=1,
        entities=tuple(entities),
        settings=own,
        segments=tuple(writer.segments),
        not_covered=tuple({"name": os.urandom(20).hex(), "why": "it is not"} for _ in range(100)),
    )
    return repository.publish(manifest, writer.wraps)


def _entity(name: str, data: bytes, sha256: str) -> BackedEntity:
    return BackedEntity(
        entity=name,
        schema="public",
        table=name,
        columns=(Column("id", "integer", "integer", secret=False),),
        key=("id",),
        schema_fingerprint="f" * 64,
        rows=data.count(b"\n"),
        bytes=len(data),
        sha256=sha256,
        fingerprint=0,
        sequences=(),
        references=(),
    )


def lines(count: int, width: int = 100) -> bytes:
    """Rows that cannot be compressed."""
    return b"".join(os.urandom(width // 2).hex().encode() + b"\n" for _ in range(count))


def read_all(archive: Archive) -> dict[str, bytes]:
    """Every stream, verified."""
    found = {entity.entity: b"".join(archive.rows(entity)) for entity in archive.manifest.entities}
    return found | {SETTINGS: b"".join(archive.settings())}


def refused(repository: Repository, archive: Archive) -> str:
    """Why the backup cannot be read, by whoever knows its checksum; empty when it can."""
    try:
        opened = repository.open(archive.manifest.artifact_id, archive.checksum)
        read_all(opened)
    except (DataLoss, NotFound, FailedPrecondition) as error:
        return error.reason
    return ""


def names(storage: Storage, prefix: str = "") -> list[str]:
    return sorted(found.name for found in storage.list(prefix))


def replaced(storage: Storage, name: str, data: bytes) -> None:
    storage.delete(name)
    storage.put(name, data)


def take_directly(world: World, *entities: str, work: Direct | None = None, rows: Sequence[bytes] = ()) -> Archive:
    """A backup without a job or a record."""
    resources = world.resources
    asked = Asked(
        backup_id=uuid.uuid4(),
        artifact_id=uuid.uuid4(),
        trigger=Trigger.MANUAL,
        name="taken",
        created_at=resources.clock(),
        requested_by=Requester(uuid.uuid4(), "tests", "root"),
        entities=entities,
    )
    work = work or Direct(resources.platform.dsn)
    return take(work, resources.repository, resources.catalogs.read, asked, rows, resources.clock)


def copied(world: World, query: str) -> bytes:
    """What COPY gives for a query, under the pinned settings."""
    with (
        world.resources.platform.connect("test", autocommit=True) as connection,
        connection.cursor() as cursor,
        cursor.copy(f"COPY ({query}) TO STDOUT".encode()) as copy,
    ):
        return b"".join(bytes(block) for block in copy)


def records(world: World) -> list[BackupRow]:
    """All backups' records, oldest first."""
    with world.resources.db.transaction() as session:
        return list(session.query(BackupRow).order_by(BackupRow.created_at, BackupRow.id))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Later:
    """A clock that a test moves on."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return utc_now() + self.ahead


def folders(storage: Storage) -> Iterator[str]:
    """The artifacts of which there are objects, by kind of folder."""
    yield from sorted({found.name.rpartition("/")[0] for found in storage.list()})
