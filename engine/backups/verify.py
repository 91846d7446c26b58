"""Proving a backup: its objects, its bytes, its rows. It knows no control schema; what is thrown is the finding."""

from __future__ import annotations

from psycopg import sql

from engine.backups.archive import Archive
from engine.backups.manifest import BackedEntity
from engine.backups.model import VerifyLevel
from engine.backups.staging import drop, stage, staged_table
from engine.backups.work import Work
from engine.db.platform import Connection, one_row
from engine.errors import DataLoss, DataOpsError
from engine.imports.sqltext import Temp, joined

LEVELS = tuple(VerifyLevel)
"""From the least to the most; each includes those before it."""


def verify(work: Work, archive: Archive, level: VerifyLevel) -> None:
    """Return when the backup is good as far as the level goes. RESTORED loads one entity after the other into temp
    tables of the platform, and writes nothing else.

    Raises:
        DataLoss: BACKUP_INCOMPLETE, PART_MISSING, PART_DAMAGED, KEY_WRONG, BACKUP_DAMAGED.
        FailedPrecondition: KEY_UNKNOWN; SCHEMA_INCOMPATIBLE when the platform lacks a type or has another encoding,
            which says nothing of the backup; PlatformNotPrepared: PLATFORM_NOT_PREPARED.
    """
    work.stage("PRESENT")
    archive.require_present(work.check)
    if level is VerifyLevel.PRESENT:
        return
    work.stage(
        "DECODE" if level is VerifyLevel.DECODED else "LOAD", rows=sum(e.rows for e in archive.manifest.entities)
    )
    for _ in archive.settings():
        work.check()
    if level is VerifyLevel.DECODED:
        _decode(work, archive)
    else:
        _load(work, archive)


def condemns(error: DataOpsError) -> bool:
    """Whether the error says of the backup itself that it is not good. A key that is not there, a platform that is
    away or has other types, a storage that cannot be reached, a format of a newer release say nothing of it."""
    lost = isinstance(error, DataLoss) and error.reason != "BACKUP_FORMAT"
    return lost or error.reason in ("BACKUP_GONE", "BACKUP_DAMAGED")


def _decode(work: Work, archive: Archive) -> None:
    rows = size = 0
    for entity in archive.manifest.entities:
        for block in archive.rows(entity, work.check):
            rows += block.count(b"\n")
            size += len(block)
            work.progress(rows=rows, bytes=size)


def _load(work: Work, archive: Archive) -> None:
    done, table = 0, staged_table(0)
    for entity in archive.manifest.entities:
        # a session for each: what is staged goes with it at the latest
        with work.platform("verify", autocommit=True) as connection:
            stage(work, connection, archive, entity, table, done=done)
            _require_key(connection, entity, table)
            drop(connection, [table])
        done += entity.rows


def _require_key(connection: Connection, entity: BackedEntity, table: Temp) -> None:
    """No two rows have one key, and none has none. Of a key with a generated column the stream lacks that column."""
    if not entity.key or not set(entity.key) <= set(entity.column_names):
        return
    key = [sql.Identifier(column) for column in entity.key]
    lacking, double = one_row(
        connection,
        sql.SQL(
            "SELECT EXISTS (SELECT FROM {table} WHERE num_nulls({key}) > 0),"
            " EXISTS (SELECT FROM {table} GROUP BY {key} HAVING count(*) > 1)"
        ).format(table=table, key=joined(key)),
    )
    if lacking or double:
        raise DataLoss(
            f"{entity.entity}: found rows {'without a key' if lacking else 'of one key'}, expected one for each",
            reason="BACKUP_DAMAGED",
            metadata={"entity": entity.entity},
        )
