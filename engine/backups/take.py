"""Taking a backup: locks, one snapshot, streams in key order, counted twice, published last.

The same for a backup on its own, before an import and before a restore. It knows storage, keys and the platform, and no
control schema: what comes of it is the manifest.
"""

from __future__ import annotations

import binascii
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from psycopg import IsolationLevel, sql

from engine.backups.archive import Archive
from engine.backups.manifest import (
    SETTINGS,
    BackedEntity,
    BackedSequence,
    Manifest,
    columns_of,
    references_of,
)
from engine.backups.model import Asked, BackupType
from engine.backups.repository import Repository
from engine.backups.segments import SegmentWriter
from engine.catalog import Catalog, Entity
from engine.catalog.order import reference_order
from engine.clock import Clock
from engine.db.copy import CopyOut
from engine.db.platform import Connection, one_row
from engine.errors import Aborted, DataLoss, FailedPrecondition
from engine.faults import fault
from engine.imports.fingerprints import new_seed, whole_fingerprint
from engine.imports.sequences import numbered_fields, sequence_of
from engine.imports.sqltext import listed

PRINT = slice(3, 19)
"""Of a line: the hexadecimal digits of the row's fingerprint, behind the two backslashes and the x of COPY's bytea."""
ROW = 20
"""Of a line: where the row itself begins, behind the fingerprint and a TAB."""

PATIENT = {"idle_in_transaction_session_timeout": "0"}
"""Of two sessions, the one that is done first waits in its transaction for the other: hours, where tables are large."""

APART_BYTES = 32 << 20
"""Of the tables with their indexes: from here on the second count has a session of its own. It costs a small backup, as
most imports take one, as much again as the backup itself."""

LARGE_OBJECTS = {"name": "large objects", "why": "only the rows of tables are backed up"}
DEFINITIONS = {
    "name": "definitions, roles and rights",
    "why": "a backup holds rows; tables, functions and roles are the platform's migrations to make",
}


class Work(Protocol):
    """What a piece of work tells and hears: a job's run, or a terminal's."""

    def check(self) -> None: ...
    def stage(self, name: str, *, rows: int | None = None, bytes: int | None = None) -> None: ...  # noqa: A002
    def progress(self, *, rows: int | None = None, bytes: int | None = None) -> None: ...  # noqa: A002
    def platform(self, purpose: str, **settings: Any) -> AbstractContextManager[Connection]: ...


@dataclass(frozen=True)
class Settings:
    """The control schema's own rows, one JSON object a line."""

    lines: Sequence[bytes] = ()


def take(
    work: Work,
    repository: Repository,
    read_catalog: Callable[[Connection], Catalog],
    asked: Asked,
    settings: Settings,
    clock: Clock,
) -> Archive:
    """The backup, published and opened again.

    Raises:
        NotFound: ENTITY_UNKNOWN; FailedPrecondition: ENTITY_NOT_BACKED_UP; Aborted: CATALOG_MOVED.
        DataLoss: BACKUP_INCOMPLETE when what was read is not what the snapshot holds.
        psycopg.errors.LockNotAvailable: a table is locked by somebody who changes its definition.
    """
    with work.platform("backup", autocommit=True, **PATIENT) as connection:
        entities = entities_of(read_catalog(connection), asked.entities)
        if sum(entity.size_bytes for entity in entities) < APART_BYTES:
            with _begun(connection):
                _lock(connection, entities)
                snapshot_at = clock()
                catalog = _unchanged(read_catalog(connection), entities)
                read = _one_after_the_other(
                    work, connection, repository, catalog, entities, asked, settings, snapshot_at
                )
        else:
            read = _side_by_side(work, connection, repository, read_catalog, entities, asked, settings, clock)
    work.check()
    return _publish(repository, asked, read)


def take_held(
    work: Work,
    connection: Connection,
    repository: Repository,
    catalog: Catalog,
    asked: Asked,
    settings: Settings,
    clock: Clock,
    seed: int,
) -> Archive:
    """The same in the one session that holds the tables' locks, for who stops everybody else before a restore: nobody
    can write, so that each statement sees the same rows.

    Raises: as `take`.
    """
    entities = entities_of(catalog, asked.entities)
    # a savepoint: what is set for it is as before afterwards
    with connection.transaction(force_rollback=True):
        read = _one_after_the_other(work, connection, repository, catalog, entities, asked, settings, clock(), seed)
    work.check()
    return _publish(repository, asked, read)


@dataclass(frozen=True)
class _Read:
    """What was read and stored; a manifest is still to be made of it."""

    snapshot_at: datetime
    seed: int
    database: dict[str, str]
    not_covered: list[dict[str, str]]
    entities: list[BackedEntity]
    settings: dict[str, Any]
    writer: SegmentWriter


def _one_after_the_other(
    work: Work,
    connection: Connection,
    repository: Repository,
    catalog: Catalog,
    entities: list[Entity],
    asked: Asked,
    settings: Settings,
    snapshot_at: datetime,
    seed: int | None = None,
) -> _Read:
    """Streams, then the second count, in one session whose transaction sees one moment."""
    seed = new_seed() if seed is None else seed
    work.stage("BACKUP", rows=sum(entity.estimated_rows for entity in entities))
    database, lacking = database_of(connection), _lacking(connection, catalog)
    _read_by_no_index(connection)
    with repository.writer(asked.artifact_id) as writer:
        backed = _streams(work, connection, entities, seed, writer)
        own = _write_settings(writer, settings)
        writer.end()
    fault("backups.written")
    counts = []
    for entity in entities:
        work.check()
        counts.append(_count_one(connection, entity, seed))
    _require_equal(backed, counts)
    return _Read(snapshot_at, seed, database, lacking, backed, own, writer)


def _side_by_side(
    work: Work,
    connection: Connection,
    repository: Repository,
    read_catalog: Callable[[Connection], Catalog],
    entities: list[Entity],
    asked: Asked,
    settings: Settings,
    clock: Clock,
) -> _Read:
    """The second count in a session of its own, of the same snapshot, while the streams are written."""
    with (
        work.platform("backup, counting", autocommit=True, **PATIENT) as counting,
        _begun(counting),
        _begun(connection),
    ):
        # the counting session too, and first: behind a TRUNCATE that waits for us it would wait for ever
        _lock(counting, entities)
        _lock(connection, entities)
        snapshot_at, seed = clock(), new_seed()
        catalog = _unchanged(read_catalog(connection), entities)
        (snapshot,) = one_row(connection, sql.SQL("SELECT pg_export_snapshot()").format())
        database, lacking = database_of(connection), _lacking(connection, catalog)
        _read_by_no_index(connection)
        work.stage("BACKUP", rows=sum(entity.estimated_rows for entity in entities))
        with (
            ThreadPoolExecutor(1, thread_name_prefix="backup-counting") as helper,
            repository.writer(asked.artifact_id) as writer,
        ):
            counts = helper.submit(_count, counting, snapshot, entities, seed)
            try:
                backed = _streams(work, connection, entities, seed, writer, counts)
                own = _write_settings(writer, settings)
                writer.end()
                _wait(work, counts)
            except BaseException:
                counting.cancel_safe(timeout=5)  # else its count would be waited for
                raise
        fault("backups.written")
        _require_equal(backed, counts.result())
    return _Read(snapshot_at, seed, database, lacking, backed, own, writer)


def _publish(repository: Repository, asked: Asked, read: _Read) -> Archive:
    manifest = Manifest(
        backup_id=asked.backup_id,
        artifact_id=asked.artifact_id,
        backup_type=BackupType.FULL.value,
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
        seed=read.seed,
        entities=tuple(read.entities),
        settings=read.settings,
        segments=tuple(read.writer.segments),
        not_covered=tuple(read.not_covered),
    )
    archive = repository.publish(manifest, read.writer.wraps)
    fault("backups.published")
    return archive


def _streams(
    work: Work,
    connection: Connection,
    entities: Sequence[Entity],
    seed: int,
    writer: SegmentWriter,
    counts: Future[Any] | None = None,
) -> list[BackedEntity]:
    """Every entity's rows, on their way; a count beside it that has failed need not be waited for."""
    backed: list[BackedEntity] = []
    done = 0
    for number, entity in enumerate(entities):
        backed.append(_write(work, connection, entity, number, seed, writer, done))
        done += backed[-1].rows
        if counts is not None and counts.done():
            counts.result()
    return backed


def _lacking(connection: Connection, catalog: Catalog) -> list[dict[str, str]]:
    return [*not_covered(catalog), DEFINITIONS, *_large_objects(connection)]


def not_backed_up(entity: Entity) -> str:
    """Why nothing of the entity can be backed up; empty when it can."""
    return entity.refused or ("" if entity.stored else "it has no column to be stored")


def not_covered(catalog: Catalog) -> list[dict[str, str]]:
    """`{name, why}` of everything in the configured schemas that no backup can hold."""
    found = [{"name": other.name, "why": other.why} for other in catalog.not_covered]
    return found + [{"name": e.name, "why": why} for e in catalog.entities() if (why := not_backed_up(e))]


def entities_of(catalog: Catalog, names: Iterable[str]) -> list[Entity]:
    """The entities, parents before their children.

    Raises:
        NotFound: ENTITY_UNKNOWN; FailedPrecondition: ENTITY_NOT_BACKED_UP.
    """
    entities = [catalog.entity(name) for name in names]
    for entity in entities:
        if why := not_backed_up(entity):
            raise FailedPrecondition(f"{entity.name}: {why}", reason="ENTITY_NOT_BACKED_UP")
    return reference_order(entities)


@contextmanager
def _begun(connection: Connection) -> Iterator[None]:
    connection.isolation_level, connection.read_only = IsolationLevel.REPEATABLE_READ, True
    with connection.transaction():
        yield


def _lock(connection: Connection, entities: list[Entity]) -> None:
    """Locks first, then the snapshot: another session's TRUNCATE would make an older one read nothing."""
    # ONLY is no part of LOCK here: partitions and children must stay as they are too
    if entities:
        names = sql.SQL(", ").join(e.qualified for e in sorted(entities, key=lambda e: (e.schema, e.table)))
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))


def _unchanged(catalog: Catalog, entities: list[Entity]) -> Catalog:
    for entity in entities:
        if catalog.entity(entity.name).fingerprint != entity.fingerprint:
            raise Aborted(f"{entity.name}: its definition changed while the backup began", reason="CATALOG_MOVED")
    return catalog


def _write(
    work: Work,
    connection: Connection,
    entity: Entity,
    number: int,
    seed: int,
    writer: SegmentWriter,
    done: int,
) -> BackedEntity:
    stream, total, rows = writer.stream(str(number)), 0, 0
    copy = CopyOut(connection, _copy(entity, seed))
    for lines in copy:
        prints = array("q", binascii.unhexlify(b"".join([line[PRINT] for line in lines])))
        prints.byteswap()  # the text is big-endian, the machine is not
        total += sum(prints)
        stream.write(b"".join([line[ROW:] for line in lines]))
        rows += len(lines)
        work.progress(rows=done + rows)
    if copy.rows != rows:
        raise DataLoss(f"{entity.name}: found {rows} rows, the server sent {copy.rows}", reason="BACKUP_INCOMPLETE")
    return BackedEntity(
        entity=entity.name,
        schema=entity.schema,
        table=entity.table,
        columns=columns_of(entity),
        key=entity.key,
        schema_fingerprint=entity.definition,
        rows=rows,
        bytes=stream.bytes,
        sha256=stream.end(),
        fingerprint=total,
        sequences=tuple(_sequences(connection, entity)),
        references=references_of(entity),
    )


def _copy(entity: Entity, seed: int) -> sql.Composed:
    """Rows in key order, each behind its fingerprint: `int8send` gives it as bytes, whose text has a fixed length."""
    names = [field.column for field in entity.stored]
    keyed = bool(entity.key) and set(entity.key) <= set(names)  # a generated column is not in the stream
    return sql.SQL("COPY (SELECT int8send({}), {} FROM {} t{}) TO STDOUT").format(
        whole_fingerprint("t", seed),
        listed("t", names),
        _rows_of(entity.relation, names),
        sql.SQL(" ORDER BY ") + listed("t", entity.key) if keyed else sql.SQL(""),
    )


def total_of(relation: sql.Composable, columns: Iterable[str], seed: int) -> sql.Composed:
    """A query that gives the number of rows of `relation` and the sum of the fingerprints of these columns."""
    return sql.SQL("SELECT count(*), coalesce(sum({}), 0) FROM {} t").format(
        whole_fingerprint("t", seed), _rows_of(relation, columns)
    )


def _rows_of(relation: sql.Composable, columns: Iterable[str]) -> sql.Composed:
    return sql.SQL("(SELECT {} FROM {} r)").format(listed("r", columns), relation)


def _count(connection: Connection, snapshot: str, entities: list[Entity], seed: int) -> list[tuple[int, int]]:
    """The same rows once more, read from the tables and by no index; on a thread of its own, in the transaction that
    holds the locks."""
    found = []
    connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
    _read_by_no_index(connection)
    for entity in entities:
        found.append(_count_one(connection, entity, seed))
    return found


def _count_one(connection: Connection, entity: Entity, seed: int) -> tuple[int, int]:
    rows, total = one_row(connection, total_of(entity.relation, [f.column for f in entity.stored], seed))
    return int(rows), int(total)


def _read_by_no_index(connection: Connection) -> None:
    """In this transaction tables are read as they lie and sorted then. An index that lacks rows loses none so, and of a
    key without order, as a random UUID is, it is faster too: 1,000,000 users 1.7 s, by the index 2.6 s."""
    plans = {"indexscan": "off", "indexonlyscan": "off", "bitmapscan": "off", "seqscan": "on", "sort": "on"}
    for plan, value in plans.items():  # a role may have its own; where all are off, the cheapest is taken after all
        connection.execute(sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(f"enable_{plan}"), sql.SQL(value)))


def _wait(work: Work, counts: Future[Any]) -> None:
    """Until the other session has counted; an interrupt cancels its statement too."""
    while not counts.done():
        try:
            counts.exception(timeout=0.25)
        except TimeoutError:
            work.check()


def _require_equal(backed: Sequence[BackedEntity], counts: Sequence[tuple[int, int]]) -> None:
    for entity, (rows, total) in zip(backed, counts, strict=True):
        if (entity.rows, entity.fingerprint) == (rows, total):
            continue
        raise DataLoss(
            f"{entity.entity}: found {entity.rows} rows in the stream, {rows} in the snapshot, of"
            f" {'the same' if entity.fingerprint == total else 'another'} fingerprint",
            reason="BACKUP_INCOMPLETE",
            metadata={"entity": entity.entity},
        )


def _write_settings(writer: SegmentWriter, settings: Settings) -> dict[str, Any]:
    stream = writer.stream(SETTINGS)
    for line in settings.lines:
        stream.write(line)
    return {"rows": len(settings.lines), "sha256": stream.end()}


def _sequences(connection: Connection, entity: Entity) -> Iterable[BackedSequence]:
    for field in numbered_fields(entity.stored):
        name = sequence_of(connection, entity, field)
        if name is None:
            continue
        (readable,) = one_row(
            connection, sql.SQL("SELECT has_sequence_privilege({}, 'SELECT')").format(sql.Literal(name))
        )
        if not readable:  # then nobody could say later that it fell behind: a restore moves it past the rows
            continue
        last, called, step = one_row(
            connection,
            sql.SQL(
                "SELECT s.last_value, s.is_called, q.seqincrement FROM {} s, pg_sequence q"
                " WHERE q.seqrelid = {}::regclass"
            ).format(sql.SQL(name), sql.Literal(name)),
        )
        yield BackedSequence(name, field.column, int(last), bool(called), int(step))


def database_of(connection: Connection) -> dict[str, str]:
    """Which database this is: its name, encoding, cluster and server version."""
    name, encoding, identifier = one_row(
        connection,
        sql.SQL(
            "SELECT current_database(), current_setting('server_encoding'),"
            " (SELECT system_identifier::text FROM pg_control_system())"
        ).format(),
    )
    return {
        "name": str(name),
        "encoding": str(encoding),
        "system_identifier": str(identifier),
        "server_version": str(connection.info.server_version),
    }


def _large_objects(connection: Connection) -> list[dict[str, str]]:
    (there,) = one_row(connection, sql.SQL("SELECT EXISTS (SELECT FROM pg_largeobject_metadata)").format())
    return [LARGE_OBJECTS] if there else []
