"""One moment of the platform, as exports, plans, backups and comparisons read it: locks, then one snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from psycopg import IsolationLevel, sql
from psycopg.pq import TransactionStatus

from engine.catalog.model import Catalog, Entity
from engine.db.platform import Connection
from engine.errors import Aborted


@contextmanager
def one_moment(connection: Connection, *, undone: bool = False) -> Iterator[None]:
    """A REPEATABLE READ READ ONLY transaction; the session must be in autocommit. What is `undone` tells nobody: READ
    ONLY lets a function call pg_notify, which a COMMIT would send."""
    connection.isolation_level, connection.read_only = IsolationLevel.REPEATABLE_READ, True
    try:
        with connection.transaction(force_rollback=undone):
            yield
    finally:
        # else it is broken, or in a COPY that was left
        if connection.info.transaction_status is TransactionStatus.IDLE:
            connection.isolation_level = connection.read_only = None


def lock_shared(connection: Connection, entities: Sequence[Entity]) -> None:
    """The first statement of the moment, before its snapshot: another session's TRUNCATE or rewriting ALTER would let
    an older snapshot read nothing.

    Raises:
        psycopg.errors.LockNotAvailable: a table is locked by somebody who changes its definition.
    """
    if entities:  # ONLY is no part of LOCK here: partitions and children must stay as they are too
        names = sql.SQL(", ").join(e.qualified for e in sorted(entities, key=lambda e: (e.schema, e.table)))
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))


def require_unchanged(catalog: Catalog, entities: Sequence[Entity]) -> Catalog:
    """The catalog as it is under the locks, if the entities are as they were known before.

    Raises:
        Aborted: CATALOG_MOVED; NotFound: ENTITY_UNKNOWN.
    """
    for entity in entities:
        if catalog.entity(entity.name).fingerprint != entity.fingerprint:
            raise Aborted(
                f"{entity.name}: its definition changed while the reading of it began", reason="CATALOG_MOVED"
            )
    return catalog
