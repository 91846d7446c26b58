"""What a manifest says beside the rows: which entities it can hold and what it cannot, sequences, the database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from psycopg import sql

from engine.backups.manifest import BackedSequence
from engine.catalog import Catalog, Entity
from engine.catalog.order import reference_order
from engine.db.platform import Connection, one_row
from engine.errors import FailedPrecondition
from engine.imports.sequences import numbered_fields, sequence_of

LARGE_OBJECTS = {"name": "large objects", "why": "only the rows of tables are backed up"}
DEFINITIONS = {
    "name": "definitions, roles and rights",
    "why": "a backup holds rows; tables, functions and roles are the platform's migrations to make",
}


def not_backed_up(entity: Entity) -> str:
    """Why nothing of the entity can be backed up; empty when it can."""
    return entity.refused or ("" if entity.stored else "it has no column to be stored")


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


def not_covered(connection: Connection, catalog: Catalog) -> list[dict[str, str]]:
    """`{name, why}` of everything in the configured schemas, and of the database, that no backup can hold."""
    found = [{"name": other.name, "why": other.why} for other in catalog.not_covered]
    found += [{"name": e.name, "why": why} for e in catalog.entities() if (why := not_backed_up(e))]
    return [*found, DEFINITIONS, *([LARGE_OBJECTS] if has_large_objects(connection) else [])]


def has_large_objects(connection: Connection) -> bool:
    """Whether the database holds any."""
    return bool(one_row(connection, sql.SQL("SELECT EXISTS (SELECT FROM pg_largeobject_metadata)").format())[0])


def sequences_of(connection: Connection, entity: Entity) -> Iterator[BackedSequence]:
    """The sequences behind its columns as they stand now; they are in no snapshot."""
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
