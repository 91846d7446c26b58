"""Taking a backup: locks, one snapshot, streams of its rows, counted once more, published last.

The same for a backup on its own, before an import and before a restore. It knows storage, keys and the platform, and no
control schema: what comes of it is the manifest.
"""

from __future__ import annotations

import binascii
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg import sql

from engine.backups.archive import Archive
from engine.backups.covered import database_of, entities_of, not_covered, sequences_of
from engine.backups.cut import Seen, durable, heaps_of, seen
from engine.backups.increment import Comparing, NoIncrement
from engine.backups.labels import same_labels
from engine.backups.manifest import SETTINGS, BackedEntity, Cut, Delta, Manifest, Parent, columns_of, references_of
from engine.backups.model import SAFETY, Asked, BackupType
from engine.backups.repository import Repository
from engine.backups.rows import MARK, ROW, Counted, Streamed, Sums, copy_of, count_read, proven, read_by_no_index
from engine.backups.segments import SegmentWriter
from engine.backups.work import Work
from engine.catalog import Catalog, Entity
from engine.catalog.moment import lock_shared, one_moment, require_unchanged
from engine.clock import Clock
from engine.db.copy import CopyOut
from engine.db.platform import Connection, one_row
from engine.errors import DataLoss
from engine.faults import fault
from engine.imports.fingerprints import new_seed

PATIENT = {"idle_in_transaction_session_timeout": "0"}
"""Of two sessions, the one that is done first waits in its transaction for the other: hours, where tables are large."""

APART_BYTES = 32 << 20
"""Of the tables with their indexes: from here on the second count has a session of its own. It costs a small backup, as
most imports take one, as much again as the backup itself."""

ReadCatalog = Callable[[Connection], Catalog]


def take(
    work: Work,
    repository: Repository,
    read_catalog: ReadCatalog,
    asked: Asked,
    settings: Sequence[bytes],
    clock: Clock,
) -> Archive:
    """The backup, published and opened again.

    Args:
        settings: the control schema's own rows, one JSON object a line.

    Raises:
        NotFound: ENTITY_UNKNOWN; FailedPrecondition: ENTITY_NOT_BACKED_UP; Aborted: CATALOG_MOVED.
        DataLoss: BACKUP_INCOMPLETE when what was read is not what the snapshot holds.
        psycopg.errors.LockNotAvailable: a table is locked by somebody who changes its definition.
    """
    taking = _Taking(work, repository, asked, settings, clock, new_seed())
    with work.platform("backup", autocommit=True, **PATIENT) as connection:
        entities = entities_of(read_catalog(connection), asked.entities)
        apart = sum(entity.size_bytes for entity in entities) >= APART_BYTES
        with same_labels(connection, entities):
            read = (taking.side_by_side if apart else taking.one_after_the_other)(connection, read_catalog, entities)
    return taking.publish(read)


def take_increment(
    work: Work,
    repository: Repository,
    read_catalog: ReadCatalog,
    asked: Asked,
    settings: Sequence[bytes],
    clock: Clock,
    parent: Archive,
    *,
    by_content: bool,
) -> Archive:
    """What has changed since the parent, published and opened again with it.

    Raises:
        NoIncrement: a full backup must be made instead, under another artifact id; else as `take`.
    """
    taking = _Taking(work, repository, asked, settings, clock, parent.manifest.seed)
    with work.platform("backup", autocommit=True, **PATIENT) as connection:
        entities = entities_of(read_catalog(connection), asked.entities)
        with same_labels(connection, entities), one_moment(connection):
            lock_shared(connection, entities)
            catalog = require_unchanged(read_catalog(connection), entities)
            read = taking.since(connection, catalog, entities, parent, by_content=by_content)
    return taking.publish(read, parent)


def take_held(
    work: Work,
    connection: Connection,
    repository: Repository,
    catalog: Catalog,
    asked: Asked,
    settings: Sequence[bytes],
    clock: Clock,
    seed: int,
    parent: Archive | None = None,
    *,
    by_content: bool = False,
) -> Archive:
    """The same in the one session that holds the tables' locks, for who stops everybody else before a restore: nobody
    can write, so that each statement sees the same rows. With a parent, whose seed must be `seed`, an increment.

    Raises: as `take`, and as `take_increment`.
    """
    taking = _Taking(work, repository, asked, settings, clock, seed)
    entities = entities_of(catalog, asked.entities)
    # a savepoint: what is set for it is as before afterwards
    with same_labels(connection, entities), connection.transaction(force_rollback=True):
        if parent is None:
            read = taking.under_locks(connection, catalog, entities)
        else:
            read = taking.since(connection, catalog, entities, parent, by_content=by_content)
    return taking.publish(read, parent)


@dataclass(frozen=True)
class _Read:
    """What was read and stored; a manifest is still to be made of it."""

    snapshot_at: datetime
    database: dict[str, str]
    not_covered: list[dict[str, str]]
    entities: list[BackedEntity]
    settings: dict[str, Any]
    writer: SegmentWriter
    cut: Cut | None = None


@dataclass(frozen=True)
class _Taking:
    """One backup on its way. Every way to it reads all rows twice: as streams, and once more to count them."""

    work: Work
    repository: Repository
    asked: Asked
    settings: Sequence[bytes]
    clock: Clock
    seed: int

    def one_after_the_other(
        self, connection: Connection, read_catalog: ReadCatalog, entities: Sequence[Entity]
    ) -> _Read:
        """Streams, then the second count, in one session whose transaction sees one moment."""
        with one_moment(connection):
            lock_shared(connection, entities)
            snapshot_at = self.clock()
            catalog = require_unchanged(read_catalog(connection), entities)
            now = seen(connection)
            read = self.under_locks(connection, catalog, entities, snapshot_at)
            return replace(read, cut=self._cut(connection, now))

    def since(
        self,
        connection: Connection,
        catalog: Catalog,
        entities: Sequence[Entity],
        parent: Archive,
        *,
        by_content: bool,
    ) -> _Read:
        """What has changed of each entity since the parent, in a transaction in which every statement sees the same
        rows."""
        snapshot_at, now = self.clock(), seen(connection)
        database, lacking = database_of(connection), not_covered(connection, catalog)
        if parent.manifest.seed != self.seed:
            raise NoIncrement("the backup before has fingerprints of another seed")
        before = parent.manifest.database
        if any(database[name] != before.get(name) for name in ("encoding", "name")):
            raise NoIncrement("the backup before is of another database")
        by_content = by_content or database["system_identifier"] != before.get("system_identifier")
        read_by_no_index(connection)
        self.work.stage("BACKUP", rows=sum(entity.estimated_rows for entity in entities))
        with self.repository.writer(self.asked.artifact_id) as writer:
            quick = self.asked.trigger in SAFETY  # an import waits for it, or everybody
            comparing = Comparing(self.work, connection, parent, writer, None if by_content else now, quick=quick)
            backed: list[BackedEntity] = []
            for number, entity in enumerate(entities):
                change = comparing.changed(entity, number)
                heaps = heaps_of(connection, entity)
                backed.append(self._backed(connection, entity, change.now, change.sha256, heaps, change.delta))
                self.work.progress(rows=sum(e.rows for e in backed))
            own = self._own(writer)
            writer.end()
        fault("backups.written")
        return _Read(snapshot_at, database, lacking, backed, own, writer, self._cut(connection, now))

    def under_locks(
        self,
        connection: Connection,
        catalog: Catalog,
        entities: Sequence[Entity],
        snapshot_at: datetime | None = None,
    ) -> _Read:
        """The same in a transaction that has begun, and in which every statement sees the same rows."""
        snapshot_at = snapshot_at or self.clock()
        database, lacking = database_of(connection), not_covered(connection, catalog)
        read_by_no_index(connection)
        with self.repository.writer(self.asked.artifact_id) as writer:
            streams, own = self._streams(connection, entities, writer)
            writer.end()
        fault("backups.written")
        connection.execute("SET LOCAL max_parallel_workers_per_gather TO DEFAULT")  # everybody may be waiting
        counts = []
        for entity in entities:
            self.work.check()
            counts.append(count_read(connection, entity, self.seed))
        return _Read(snapshot_at, database, lacking, proven(streams, counts), own, writer)

    def side_by_side(self, connection: Connection, read_catalog: ReadCatalog, entities: Sequence[Entity]) -> _Read:
        """The second count in a session of its own, of the same snapshot, while the streams are written."""
        with (
            self.work.platform("backup, counting", autocommit=True, **PATIENT) as counting,
            one_moment(counting),
            one_moment(connection),
        ):
            # the counting session too, and first: behind a TRUNCATE that waits for us it would wait for ever
            lock_shared(counting, entities)
            lock_shared(connection, entities)
            snapshot_at = self.clock()
            catalog = require_unchanged(read_catalog(connection), entities)
            now = seen(connection)
            (snapshot,) = one_row(connection, sql.SQL("SELECT pg_export_snapshot()").format())
            database, lacking = database_of(connection), not_covered(connection, catalog)
            read_by_no_index(connection)
            with (
                ThreadPoolExecutor(1, thread_name_prefix="backup-counting") as helper,
                self.repository.writer(self.asked.artifact_id) as writer,
            ):
                counts = helper.submit(_count, counting, snapshot, entities, self.seed)
                try:
                    streams, own = self._streams(connection, entities, writer, counts)
                    writer.end()
                    self._wait(counts)
                except BaseException:
                    counting.cancel_safe(timeout=5)  # else its count would be waited for
                    raise
            fault("backups.written")
            backed = proven(streams, counts.result())
            cut = self._cut(connection, now)
        return _Read(snapshot_at, database, lacking, backed, own, writer, cut)

    def publish(self, read: _Read, parent: Archive | None = None) -> Archive:
        """The manifest, and the archive opened by it."""
        self.work.check()
        asked = self.asked
        manifest = Manifest(
            backup_id=asked.backup_id,
            artifact_id=asked.artifact_id,
            backup_type=(BackupType.FULL if parent is None else BackupType.INCREMENTAL).value,
            trigger_type=asked.trigger.value,
            name=asked.name,
            created_at=asked.created_at,
            snapshot_at=read.snapshot_at,
            requested_by={
                "principal_id": str(asked.requested_by.principal_id),
                "issuer": asked.requested_by.issuer,
                "subject": asked.requested_by.subject,
            },
            database=read.database,
            seed=self.seed,
            entities=tuple(read.entities),
            settings=read.settings,
            segments=tuple(read.writer.segments),
            not_covered=tuple(read.not_covered),
            parent=named(parent) if parent is not None else None,
            cut=read.cut,
        )
        archive = self.repository.publish(manifest, read.writer.wraps)
        fault("backups.published")
        return archive

    def _cut(self, connection: Connection, now: Seen | None) -> Cut | None:
        """None for a leaf: nothing is ever concluded from its snapshot, and a restore's locks would be held while the
        flush is waited for."""
        return None if self.asked.trigger in SAFETY else durable(self.work, connection, now)

    def _streams(
        self,
        connection: Connection,
        entities: Sequence[Entity],
        writer: SegmentWriter,
        counts: Future[Any] | None = None,
    ) -> tuple[list[Streamed], dict[str, Any]]:
        """Every entity's rows, then our own, on their way; a count beside it that has failed need not be waited for."""
        connection.execute("SET LOCAL max_parallel_workers_per_gather = 0")  # which would mix the order of the rows
        self.work.stage("BACKUP", rows=sum(entity.estimated_rows for entity in entities))
        streams: list[Streamed] = []
        done = 0
        for number, entity in enumerate(entities):
            streams.append(self._stream(connection, entity, number, writer, done))
            done += streams[-1].backed.rows
            if counts is not None and counts.done():
                counts.result()
        return streams, self._own(writer)

    def _own(self, writer: SegmentWriter) -> dict[str, Any]:
        """The control schema's own rows on their way."""
        own = writer.stream(SETTINGS)
        for line in self.settings:
            own.write(line)
        return {"rows": len(self.settings), "sha256": own.end()}

    def _stream(
        self, connection: Connection, entity: Entity, number: int, writer: SegmentWriter, done: int
    ) -> Streamed:
        stream, total, rows = writer.stream(str(number)), 0, 0
        # a row of a table that is no heap may stand nowhere; and what a name prints may change while it stands there
        heaps = heaps_of(connection, entity)
        copy = CopyOut(connection, copy_of(entity, self.seed, by_place=bool(heaps)))
        for lines in copy:
            marks = array("q", binascii.unhexlify(b"".join([line[MARK] for line in lines])))
            marks.byteswap()  # the text is big-endian, the machine is not
            total += sum(marks)
            stream.write(b"".join([line[ROW:] for line in lines]))
            rows += len(lines)
            self.work.progress(rows=done + rows)
        if copy.rows != rows:
            raise DataLoss(f"{entity.name}: found {rows} rows, the server sent {copy.rows}", reason="BACKUP_INCOMPLETE")
        backed = self._backed(connection, entity, Sums(rows, stream.bytes), stream.end(), heaps)
        return Streamed(backed, bool(heaps), total)

    def _backed(
        self,
        connection: Connection,
        entity: Entity,
        sums: Sums,
        sha256: str,
        heaps: tuple[tuple[int, ...], ...],
        delta: Delta | None = None,
    ) -> BackedEntity:
        return BackedEntity(
            entity=entity.name,
            schema=entity.schema,
            table=entity.table,
            columns=columns_of(entity),
            key=entity.key,
            schema_fingerprint=entity.definition,
            rows=sums.rows,
            bytes=sums.bytes,
            sha256=sha256,
            fingerprint=sums.fingerprint,
            sequences=tuple(sequences_of(connection, entity)),
            references=references_of(entity),
            heaps=() if self.asked.trigger in SAFETY else heaps,
            delta=delta,
        )

    def _wait(self, counts: Future[Any]) -> None:
        """Until the other session has counted; an interrupt cancels its statement too."""
        while not counts.done():
            try:
                counts.exception(timeout=0.25)
            except TimeoutError:
                self.work.check()


def named(parent: Archive) -> Parent:
    """The parent as its increment's manifest names it."""
    return Parent(parent.manifest.backup_id, parent.manifest.artifact_id, parent.checksum.hex())


def _count(connection: Connection, snapshot: str, entities: Sequence[Entity], seed: int) -> list[Counted]:
    """The same rows once more, read from the tables and by no index; on a thread of its own, in the transaction that
    holds the locks."""
    connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
    read_by_no_index(connection)
    # by one process: the stream beside it takes longer, and needs what cores there are
    connection.execute("SET LOCAL max_parallel_workers_per_gather = 0")
    return [count_read(connection, entity, seed) for entity in entities]
