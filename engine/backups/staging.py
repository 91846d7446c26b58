"""A backup's rows in temp tables of its own columns and types, proven there. Nothing else is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

import psycopg
from psycopg import sql

from engine.backups.archive import Archive
from engine.backups.load import load
from engine.backups.manifest import BackedEntity, Column
from engine.backups.rows import counted
from engine.backups.work import Work
from engine.db.platform import Connection, one_row
from engine.errors import DataLoss, FailedPrecondition
from engine.imports.refusals import is_refusal
from engine.imports.sqltext import Temp, creation
from engine.imports.temporary import temp_tables


def staged_table(number: int) -> Temp:
    """The temp table of the entity with this number."""
    return Temp(f"backed_{number}")


def stage(
    work: Work, connection: Connection, archive: Archive, entity: BackedEntity, table: Temp, *, done: int = 0
) -> None:
    """The entity's rows in a temp table of the backup's own columns and types, proven. The session must be in
    autocommit, or in a transaction that may write.

    Args:
        done: rows of the present stage that were done before.

    Raises:
        FailedPrecondition: SCHEMA_INCOMPATIBLE when the database has another encoding, when a type is gone, or does
            not read a value any more.
        DataLoss: BACKUP_DAMAGED when the rows are not those of the manifest; what `Archive.rows` raises.
        PlatformNotPrepared: PLATFORM_NOT_PREPARED.
    """
    _require_encoding(connection, archive)
    _require_types(connection, entity)
    make_table(connection, table, entity.columns)
    try:
        copied = load(work, connection, archive, entity, table, entity.column_names, done=done)
    except psycopg.Error as error:
        if not is_refusal(error):
            raise
        # the bytes are those that were sealed, so it is the type that changed; the server's text would quote them
        raise FailedPrecondition(
            f"{entity.entity}: found a value that its type does not read any more (SQLSTATE {error.sqlstate})",
            reason="SCHEMA_INCOMPATIBLE",
            metadata={"entity": entity.entity},
        ) from None
    connection.execute(sql.SQL("ANALYZE {}").format(table))
    work.check()
    rows, total = counted(connection, table, entity.columns, archive.manifest.seed)
    if (copied, rows, total) != (entity.rows, entity.rows, entity.fingerprint):
        raise DataLoss(
            f"{entity.entity}: found {rows} rows of the backup, expected {entity.rows}, of"
            f" {'the same' if total == entity.fingerprint else 'another'} fingerprint",
            reason="BACKUP_DAMAGED",
            metadata={"entity": entity.entity},
        )


def make_table(connection: Connection, table: Temp, columns: Iterable[Column]) -> None:
    """An empty temp table of these columns and types.

    Raises:
        PlatformNotPrepared: PLATFORM_NOT_PREPARED.
    """
    typed = [sql.SQL("{} {}").format(sql.Identifier(c.name), sql.SQL(c.storage_type)) for c in columns]
    with temp_tables(connection):
        connection.execute(creation(table, typed))


def _require_encoding(connection: Connection, archive: Archive) -> None:
    """Fingerprints are of the bytes that a server keeps: in another encoding they never agree, whatever the rows."""
    (found,) = one_row(connection, sql.SQL("SELECT current_setting('server_encoding')").format())
    expected = archive.manifest.database.get("encoding", found)
    if found != expected:
        raise FailedPrecondition(
            f"backup: it is of a database in {expected}, found this one in {found}; its rows can be proven in one of"
            " its own encoding only, which says nothing of the backup",
            reason="SCHEMA_INCOMPATIBLE",
            metadata={"encoding": str(found), "expected": str(expected)},
        )


def _require_types(connection: Connection, entity: BackedEntity) -> None:
    types = list(dict.fromkeys(c.storage_type for c in entity.columns))
    row = connection.execute(
        "SELECT coalesce(array_agg(t) FILTER (WHERE to_regtype(t) IS NULL), '{}') FROM unnest(%s::text[]) t", (types,)
    ).fetchone()
    gone = set(row[0]) if row else set()
    for column in entity.columns:
        if column.storage_type in gone:
            raise FailedPrecondition(
                f"{entity.entity}: the column {column.name} was of the type {column.storage_type}, found none such now",
                reason="SCHEMA_INCOMPATIBLE",
                metadata={"entity": entity.entity, "column": column.name, "type": column.storage_type},
            )


def drop(connection: Connection, tables: Sequence[Temp]) -> None:
    """One by one: the server locks all that one transaction drops. What cannot be dropped goes with the session."""
    with suppress(psycopg.Error):
        for table in tables:
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
