"""A backup against the live rows: staged in temp tables, proven there, compared by the key.

The differences are kept as a plan's streams (`engine.imports.planfile`), so that they are looked at as a plan is: they
say what going back to the backup would do. The comparison itself is one REPEATABLE READ READ ONLY transaction over all
entities, undone at its end; temp tables are made and filled before it, as a read-only one makes none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.backups.archive import Archive
from engine.backups.differences import Compared, compare
from engine.backups.manifest import BackedEntity, not_held
from engine.backups.staging import drop, stage, staged_table
from engine.backups.work import Work
from engine.catalog import Catalog, Entity
from engine.catalog.moment import lock_shared, one_moment, require_unchanged
from engine.db.platform import Connection
from engine.errors import FailedPrecondition
from engine.imports import planfile
from engine.imports.sqltext import Temp

ReadCatalog = Callable[[Connection], Catalog]
Look = Callable[[Entity, BackedEntity, Temp], None]


def compare_all(
    work: Work,
    connection: Connection,
    archive: Archive,
    entities: Sequence[tuple[Entity, BackedEntity]],
    renames: Mapping[str, Mapping[str, str]],
    sink: planfile.PartSink,
    read_catalog: ReadCatalog,
    *,
    look: Look | None = None,
) -> tuple[list[Compared], bytes]:
    """Stages and compares the entities, writes the streams and the head into `sink`, and gives the head's digest.

    Nothing but temp tables is written on the platform, by the server's own word: the comparison is READ ONLY. The
    session must be in autocommit; the temp tables are dropped at the end.

    Args:
        entities: those that are there now beside those of the backup, as `matched` finds them.
        renames: by the backup's entity, what a column of it is called now.
        read_catalog: reads the catalog again, under the locks, to be sure that no definition has moved.
        look: is called for each entity inside of the transaction, when all are compared and all still staged.

    Raises:
        Aborted: CATALOG_MOVED; InvalidRequest: OPTION_INVALID; what `stage` raises.
        psycopg.errors.LockNotAvailable: a table is locked by somebody who changes its definition.
    """
    tables = [staged_table(number) for number in range(len(entities))]
    total, done = sum(backed.rows for _, backed in entities), 0
    work.stage("LOAD", rows=total)
    try:
        for (_, backed), table in zip(entities, tables, strict=True):
            stage(work, connection, archive, backed, table, done=done)
            done += backed.rows
        work.stage("COMPARE", rows=total)
        found: list[Compared] = []
        with one_moment(connection, undone=True):
            lives = [live for live, _ in entities]
            lock_shared(connection, lives)
            require_unchanged(read_catalog(connection), lives)
            # whatever is known, or not, of how many rows the live table has: a row of all against all is never right
            connection.execute("SET LOCAL enable_nestloop = off")
            for number, ((live, backed), table) in enumerate(zip(entities, tables, strict=True)):
                own = renames.get(backed.entity, {})
                found.append(compare(connection, live, backed, table, own, number, sink, archive.manifest.seed))
                work.progress(rows=sum(c.only_in_backup + c.different + c.equal for c in found))
            if look is not None:
                for (live, backed), table in zip(entities, tables, strict=True):
                    look(live, backed, table)
                    work.check()
    finally:
        drop(connection, tables)
    return found, planfile.write_head(sink, _head(archive, found))


def _head(archive: Archive, found: Sequence[Compared]) -> dict[str, Any]:
    """As a plan's: what stands in the streams, and of which backup."""
    return {
        "format": planfile.FORMAT,
        "backup_id": str(archive.manifest.backup_id),
        "checksum": archive.checksum.hex(),
        "entities": [compared.head for compared in found],
        "cascades": [],
        "seed": archive.manifest.seed,
        "streams": {name: entry for compared in found for name, entry in compared.streams.items()},
    }


def matched(catalog: Catalog, archive: Archive, names: Sequence[str]) -> list[tuple[Entity, BackedEntity]]:
    """What is there now beside what the backup holds. A table is known by its schema and its own name: what a catalog
    file calls it may be another table's name by now.

    Raises:
        NotFound: ENTITY_UNKNOWN for one that the backup lacks; FailedPrecondition: SCHEMA_INCOMPATIBLE where its table
            is not there.
    """
    found = []
    for name in names:
        backed = archive.manifest.entity(name)
        if backed is None:
            raise not_held(name)
        found.append((live_of(catalog, backed), backed))
    return found


def live_of(catalog: Catalog, backed: BackedEntity) -> Entity:
    """Raises:
    FailedPrecondition: SCHEMA_INCOMPATIBLE where the table is not there.
    """
    live = catalog.of_table(backed.schema, backed.table)
    if live is None:
        raise FailedPrecondition(
            f"{backed.entity}: the table {backed.schema}.{backed.table} is not there, or not to be seen",
            reason="SCHEMA_INCOMPATIBLE",
            metadata={"entity": backed.entity},
        )
    return live
