"""Which errors of PostgreSQL the table's own rules have made, and which are the session's, the system's or ours."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from engine.catalog import Entity
from engine.db.platform import Connection

_OTHERS = ("08", "40", "53", "55P03", "57", "58", "XX")
"""SQLSTATEs, by their beginning: connection, conflict, resources, locks, operator, system, defects."""

_RIGHT_MISSING = "42501"


def is_refusal(error: psycopg.Error) -> bool:
    """Whether a check, function, trigger or limit of the table said it, and would say it again.

    Its function may raise any SQLSTATE of its own making, and stumble over anything that it names.
    """
    state = error.sqlstate
    return state is not None and not state.startswith(_OTHERS) and state != _RIGHT_MISSING


@dataclass(frozen=True)
class Refuser:
    """Whose constraint an error speaks of; empty names where it does not say."""

    schema: str
    table: str
    constraint: str


_ROOTS = """
WITH RECURSIVE above (conname, conparentid) AS (
    SELECT k.conname, k.conparentid FROM pg_constraint k WHERE k.conrelid = %(table)s::regclass AND k.conname = %(name)s
    UNION ALL
    SELECT k.conname, k.conparentid FROM above a JOIN pg_constraint k ON k.oid = a.conparentid
)
SELECT n.nspname, c.relname, coalesce(
    (SELECT conname FROM above WHERE conparentid = 0),
    (SELECT r.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
     JOIN pg_class r ON r.oid = pg_partition_root(x.oid)
     WHERE i.indrelid = %(table)s::regclass AND x.relname = %(name)s),
    %(name)s)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = pg_partition_root(%(table)s::regclass)
"""


def refuser(connection: Connection, error: psycopg.Error) -> Refuser:
    """A partition's error names the partition and its own index or constraint: here they are the whole table's."""
    diag = error.diag
    found = Refuser(diag.schema_name or "", diag.table_name or "", diag.constraint_name or "")
    if not found.table:
        return found
    name = sql.Identifier(found.schema, found.table).as_string(connection)
    row = connection.execute(_ROOTS, {"table": name, "name": found.constraint}).fetchone()
    return Refuser(*row) if row else found


def refused_by(entity: Entity, error: psycopg.Error, constraint: str, what: str) -> str:
    """Who refused `what`. The driver's text holds values, so only the constraint is named."""
    if constraint:
        return f"the constraint {constraint} refused {what}"
    if entity.partitioned and isinstance(error, psycopg.errors.CheckViolation):
        return f"no partition takes {what}"
    return f"a trigger or function refused {what}, SQLSTATE {error.sqlstate}"
