"""An empty table is filled first and indexed afterwards: building an index at once is cheaper than keeping it up row by
row, which is most of what an INSERT into an indexed table does.

An import drops plain indexes, and unique ones and keys where its plan has judged their values and its rows go straight
in: nothing looks a row up meanwhile. So it drops a key that foreign keys of other tables refer to, if those tables are
empty too, and ours: their foreign keys go first and come back last, with no row to be proven. Before a first load that
is how tables are, and a key of random values kept up row by row is 2.6 s of the 5.3 s that 1,000,000 users take with it
alone. A restore drops all that are unique. Neither drops an exclusion constraint's, any other foreign key's target, the
replica identity, the primary key of a table that others inherit from (to make it again could forbid NULL in those), or
one that anything else depends on. Each comes back from its own definition, with tablespace, comment, statistics,
CLUSTER mark; a key with its constraint. The definitions prove that all is as before.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from engine.catalog import Entity, foreign_keys
from engine.catalog.definitions import definitions_of, require_same, tree_of
from engine.catalog.foreign_keys import Key, keys_of
from engine.db.platform import Connection, one_row

WORTH_ROWS = 20_000
"""Below it dropping and building costs more catalog work than it saves."""

_REMOVABLE = """
SELECT n.nspname AS schema, c.relname AS name, pg_get_indexdef(i.indexrelid) AS definition,
       coalesce(t.spcname, '') AS tablespace, obj_description(i.indexrelid, 'pg_class') AS comment,
       i.indisclustered AS clustered,
       ARRAY(SELECT format('%%s=%%s', a.attnum, a.attstattarget) FROM pg_attribute a
             WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0 ORDER BY a.attnum) AS statistics,
       k.conname AS "constraint", concat(
           CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END, ' USING INDEX ', quote_ident(c.relname),
           CASE WHEN k.condeferrable THEN ' DEFERRABLE' END, CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' END
       ) AS constraint_definition, obj_description(k.oid, 'pg_constraint') AS constraint_comment,
       ARRAY(SELECT o.oid::bigint FROM pg_constraint o WHERE o.conindid = i.indexrelid AND o.contype = 'f') AS keys
FROM pg_index i
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u')
JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
WHERE i.indrelid = %(table)s::regclass AND (NOT i.indisunique OR %(all)s OR c.relname = ANY(%(unique)s))
  AND i.indisvalid AND NOT i.indisreplident AND NOT i.indisexclusion
  AND has_schema_privilege(n.oid, 'CREATE') AND (t.oid IS NULL OR has_tablespace_privilege(t.oid, 'CREATE'))
  AND (k.contype IS DISTINCT FROM 'p' OR NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = i.indrelid))
  AND NOT EXISTS (SELECT FROM pg_constraint o WHERE o.conindid = i.indexrelid AND o.oid IS DISTINCT FROM k.oid
                  AND o.oid <> ALL(%(going)s::oid[]))
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indexrelid
                  AND NOT (d.classid = 'pg_constraint'::regclass AND d.objid = ANY(%(going)s::oid[])))
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_constraint'::regclass AND d.refobjid = k.oid
                  AND d.objid <> i.indexrelid)
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                  AND d.deptype = 'x') -- of an extension, which no definition tells
ORDER BY c.relname
"""


@dataclass(frozen=True)
class Removable:
    """An index that can go and come back as it was."""

    schema: str
    name: str
    definition: str
    tablespace: str
    comment: str | None
    clustered: bool
    statistics: list[str]
    constraint: str | None = None
    """The key it belongs to, if it is one's; then that is dropped, and made again of the index."""
    constraint_definition: str = ""
    constraint_comment: str | None = None
    keys: Sequence[int] = ()
    """OIDs of foreign keys that stand on it."""

    @property
    def qualified(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)


def removable(
    connection: Connection, entity: Entity, unique: Collection[str] | None = (), going: Sequence[Key] = ()
) -> list[Removable]:
    """The indexes of the table that may be dropped, those among them that are unique, keys too, if they are named in
    `unique`, or if it is None, and if the foreign keys that stand on them are `going`; none for a partitioned table or
    one that is not ours.

    Building one takes the right to make relations in its schema, which owning the table does not bring: since
    PostgreSQL 15 `public` gives it to nobody but the database's owner.
    """
    if entity.partitioned or not entity.owned:
        return []
    with connection.cursor(row_factory=class_row(Removable)) as cursor:
        table = entity.qualified.as_string(connection)
        return cursor.execute(
            _REMOVABLE,
            {"table": table, "all": unique is None, "unique": list(unique or ()), "going": [key.oid for key in going]},
        ).fetchall()


def judged_keys(entity: Entity, planned: Collection[str]) -> list[str]:
    """The unique indexes that no new row of these columns violates in an empty table: the plan has looked at them."""
    return [key.name for key in entity.unique if not key.partial and set(planned) >= set(key.columns)]


def removable_with_keys(
    connection: Connection, entity: Entity, unique: Collection[str]
) -> tuple[list[Removable], list[Key]]:
    """The same indexes, and those that empty tables refer to, with the foreign keys that have to go for them."""
    going: list[Key] = []
    if unique and entity.owned and not entity.partitioned:
        keys = keys_of(connection, tree_of(connection, [entity.qualified.as_string(connection)]))
        going = [key for key in keys if key.target_inside and _can_go(connection, key)]
    indexes = removable(connection, entity, unique, going)
    stands = {oid for index in indexes for oid in index.keys}
    return indexes, [key for key in going if key.oid in stands]


def _can_go(connection: Connection, key: Key) -> bool:
    """Whether the foreign key is made again as it was, and no row has to be proven for it."""
    parts = key.partitioned or key.of_part or key.to_part
    if key.source_inside or parts or not key.owned or key.states != "O" or key.has_choice:
        return False
    try:
        with connection.transaction():
            (empty,) = one_row(connection, sql.SQL("SELECT NOT EXISTS (SELECT FROM ONLY {})").format(key.source))
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.LockNotAvailable):
        return False  # not to be looked into: for want of a right, for row-level security, or just now
    return bool(empty)


class Bare:
    """An empty table, under ACCESS EXCLUSIVE, without the indexes that are built when its rows are in."""

    def __init__(
        self,
        connection: Connection,
        entity: Entity,
        unique: Collection[str] = (),
        locked: Collection[tuple[str, str]] = (),
    ) -> None:
        """Args:
        unique: names of the unique indexes that may go too.
        locked: other tables that are ACCESS EXCLUSIVE, by schema and name: their foreign keys may go.
        """
        self._connection = connection
        self._entity = entity
        self._dropped, self._keys = removable_with_keys(connection, entity, unique)
        if any((key.schema, key.table) not in locked for key in self._keys):
            self._dropped, self._keys = removable(connection, entity, unique), []
        self._before = self._definitions()
        foreign_keys.drop(connection, self._keys)
        drop(connection, entity, self._dropped)

    def build(self) -> None:
        """Raises:
        FailedPrecondition: DEFINITIONS_NOT_EQUAL.
        psycopg.Error: where an index refuses the rows.
        """
        build(self._connection, self._entity, self._dropped)
        foreign_keys.make(self._connection, self._keys)
        require_same(self._entity.name, self._before, self._definitions())

    def _definitions(self) -> list[str]:
        connection = self._connection
        own = tree_of(connection, [self._entity.qualified.as_string(connection)])
        sources = {key.source.as_string(connection) for key in self._keys}
        return definitions_of(connection, own, tree_of(connection, sorted(sources)))


def is_empty(connection: Connection, entity: Entity) -> bool:
    row = connection.execute(sql.SQL("SELECT NOT EXISTS (SELECT FROM {})").format(entity.relation)).fetchone()
    return bool(row and row[0])


def drop(connection: Connection, entity: Entity, indexes: list[Removable]) -> None:
    """Under ACCESS EXCLUSIVE, in the transaction that builds them again."""
    for index in indexes:
        if index.constraint is not None:
            name = sql.Identifier(index.constraint)
            connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(entity.qualified, name))
        else:
            connection.execute(sql.SQL("DROP INDEX {}").format(index.qualified))


def build(connection: Connection, entity: Entity, indexes: list[Removable]) -> None:
    """As they were. `maintenance_work_mem` is for this transaction only."""
    if indexes:
        connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
    for index in indexes:
        tablespace = sql.Literal(index.tablespace)
        connection.execute(sql.SQL("SET LOCAL default_tablespace = {}").format(tablespace))
        # as PostgreSQL itself says it; a key made of its index keeps what the key's own definition does not tell: WITH
        connection.execute(sql.SQL(index.definition))
        if index.constraint is not None:
            connection.execute(
                sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} ").format(entity.qualified, sql.Identifier(index.constraint))
                + sql.SQL(index.constraint_definition)
            )
        for target in index.statistics:
            column, _, value = target.partition("=")
            connection.execute(
                sql.SQL("ALTER INDEX {} ALTER COLUMN {} SET STATISTICS {}").format(
                    index.qualified, sql.SQL(column), sql.SQL(value)
                )
            )
        if index.comment is not None:
            connection.execute(sql.SQL("COMMENT ON INDEX {} IS {}").format(index.qualified, sql.Literal(index.comment)))
        if index.clustered:
            connection.execute(
                sql.SQL("ALTER TABLE {} CLUSTER ON {}").format(entity.qualified, sql.Identifier(index.name))
            )
        if index.constraint is not None and index.constraint_comment is not None:
            connection.execute(
                sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(
                    sql.Identifier(index.constraint), entity.qualified, sql.Literal(index.constraint_comment)
                )
            )
