"""Foreign keys from and to some tables, as PostgreSQL writes them: dropped, and made again, which proves them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from psycopg import sql
from psycopg.rows import class_row

from engine.db.platform import Connection

_KEYS = """
SELECT k.oid::bigint AS oid, k.conname AS name, n.nspname AS schema, c.relname AS "table", tn.nspname AS target_schema,
       tc.relname AS target_table, pg_get_constraintdef(k.oid) AS definition,
       obj_description(k.oid, 'pg_constraint') AS comment, pg_has_role(c.relowner, 'USAGE') AS owned,
       k.conrelid = ANY(%(oids)s) AS source_inside, k.confrelid = ANY(%(oids)s) AS target_inside,
       c.relkind = 'p' AS partitioned, tc.relkind = 'p' AS to_partitioned,
       c.relispartition AS of_part, tc.relispartition AS to_part,
       (SELECT count(*) FROM pg_index u
        WHERE u.indrelid = k.confrelid AND u.indisunique AND u.indpred IS NULL
          AND ARRAY(SELECT x FROM unnest(u.indkey[0:u.indnkeyatts - 1]) x ORDER BY x)
              = ARRAY(SELECT x FROM unnest(k.confkey) x ORDER BY x)) > 1 AS has_choice,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(attnum, n)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum ORDER BY u.n) AS columns,
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(attnum, n)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum ORDER BY u.n) AS target_columns,
       coalesce((WITH RECURSIVE tree AS (
                     SELECT k.oid UNION ALL
                     SELECT c.oid FROM pg_constraint c JOIN tree ON c.conparentid = tree.oid
                 ) SELECT string_agg(DISTINCT t.tgenabled::text, '') FROM pg_trigger t
                 WHERE t.tgconstraint IN (SELECT oid FROM tree)), 'O') AS states
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class tc ON tc.oid = k.confrelid JOIN pg_namespace tn ON tn.oid = tc.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND (k.conrelid = ANY(%(oids)s) OR k.confrelid = ANY(%(oids)s))
ORDER BY n.nspname, c.relname, k.conname
"""


@dataclass(frozen=True, eq=False)
class Key:
    """A foreign key from or to one of the tables."""

    oid: int
    name: str
    schema: str
    table: str
    target_schema: str
    target_table: str
    definition: str
    comment: str | None
    owned: bool
    """Whether the table that refers is ours to change."""
    source_inside: bool
    """Whether the table that refers is one of those."""
    target_inside: bool
    partitioned: bool
    """Whether the table that refers has partitions, each with a key of its own beneath this one."""
    to_partitioned: bool
    of_part: bool
    """Whether it is a partition's own, so that it speaks of a part of an entity's rows only; `to_part` likewise."""
    to_part: bool
    has_choice: bool
    """Whether it could stand on several unique indexes: made again it takes the first."""
    columns: list[str]
    target_columns: list[str]
    states: str
    """`tgenabled` of the triggers that keep it, each once: a new key has O alone."""

    @property
    def source(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.table)

    @property
    def target(self) -> sql.Identifier:
        return sql.Identifier(self.target_schema, self.target_table)


class Constraint(Protocol):
    """What a table's constraint is made of."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> sql.Identifier: ...
    @property
    def definition(self) -> str: ...
    @property
    def comment(self) -> str | None: ...


def keys_of(connection: Connection, oids: Sequence[int]) -> list[Key]:
    """Those from or to these tables; of the keys that PostgreSQL keeps for partitions beneath one, that one alone."""
    with connection.cursor(row_factory=class_row(Key)) as cursor:
        return cursor.execute(_KEYS, {"oids": list(oids)}).fetchall()


def drop(connection: Connection, constraints: Iterable[Constraint]) -> None:
    for one in constraints:
        statement = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}")
        connection.execute(statement.format(one.source, sql.Identifier(one.name)))


def make(connection: Connection, constraints: Iterable[Constraint]) -> None:
    for one in constraints:
        name, source = sql.Identifier(one.name), one.source
        statement = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}")
        connection.execute(statement.format(source, name, sql.SQL(one.definition)))
        if one.comment is not None:
            comment = sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}")
            connection.execute(comment.format(name, source, sql.Literal(one.comment)))
