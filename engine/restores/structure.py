"""What stands around the rows of some tables: read, taken down so that they can be filled, and put up as it was.

Owner rights are enough: `session_replication_role` would need a superuser. So triggers are switched one by one (DISABLE
TRIGGER USER and ENABLE TRIGGER USER would flatten their states), foreign keys are dropped and made again, which proves
them, and indexes, those of primary keys too, are built after the rows are in. The proof that all of it is as before is
a fingerprint over the definitions, as PostgreSQL itself writes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg import sql
from psycopg.rows import class_row

from engine.catalog import Entity
from engine.catalog.definitions import definitions_of, tree_of
from engine.catalog.foreign_keys import Key, drop, keys_of, make
from engine.db.platform import Connection, one_row
from engine.errors import FailedPrecondition, PlatformNotPrepared
from engine.imports import indexes
from engine.imports.indexes import Removable

_TRIGGERS = """
SELECT n.nspname AS schema, c.relname AS "table", t.tgname AS name, t.tgenabled AS state
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE t.tgrelid = ANY(%s) AND NOT t.tgisinternal ORDER BY 1, 2, 3
"""

_UNPROVEN = """
SELECT n.nspname AS schema, c.relname AS "table", k.conname AS name, pg_get_constraintdef(k.oid) AS definition,
       obj_description(k.oid, 'pg_constraint') AS comment
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.conrelid = ANY(%s) AND k.contype IN ('c', 'n') AND NOT k.convalidated AND k.conislocal AND k.coninhcount = 0
  AND coalesce(to_jsonb(k) ->> 'conenforced', 'true')::boolean
ORDER BY 1, 2, 3
"""
"""Checks, and NOT NULL, that are kept for new rows only: to a restore all rows are new, and old ones may break them."""

_STATES = {"O": "ENABLE TRIGGER", "R": "ENABLE REPLICA TRIGGER", "A": "ENABLE ALWAYS TRIGGER", "D": "DISABLE TRIGGER"}


@dataclass(frozen=True)
class TriggerState:
    """A trigger and when it fires: `pg_trigger.tgenabled`."""

    schema: str
    table: str
    name: str
    state: str


@dataclass(frozen=True)
class Rule:
    """A check, or a NOT NULL, that was never proven for the rows that were there."""

    schema: str
    table: str
    name: str
    definition: str
    comment: str | None

    @property
    def source(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.table)


class Structure:
    """Of these tables, as one transaction sees it."""

    def __init__(self, connection: Connection, entities: Sequence[Entity]) -> None:
        self._connection = connection
        self._entities = list(entities)
        names = [e.qualified.as_string(connection) for e in entities]
        self._oids = tree_of(connection, names)
        with connection.cursor(row_factory=class_row(TriggerState)) as cursor:
            self.triggers = cursor.execute(_TRIGGERS, (self._oids,)).fetchall()
        self.keys = keys_of(connection, self._oids)
        with connection.cursor(row_factory=class_row(Rule)) as cursor:
            self.unproven = cursor.execute(_UNPROVEN, (self._oids,)).fetchall()
        self._indexes: list[tuple[Entity, list[Removable]]] = []
        self._parts: dict[Key, dict[tuple[str, str], tuple[str, str | None]]] = {}

    @property
    def dropped(self) -> list[Key]:
        """The foreign keys that refer to these tables: while they stand, no table they refer to can be emptied. Those
        from here to other tables stay, and are kept row by row, since dropping one would lock that other table too; but
        one that was never proven must not be for rows that it was not kept for."""
        return [key for key in self.keys if key.target_inside or "NOT VALID" in key.definition]

    @property
    def others(self) -> list[Entity]:
        """The tables outside that a foreign key which is dropped and made again refers from or to."""
        found = {(key.schema, key.table): key.partitioned for key in self.dropped if not key.source_inside}
        found |= {
            (key.target_schema, key.target_table): key.to_partitioned for key in self.dropped if not key.target_inside
        }
        return [
            Entity(f"{schema}.{table}", schema, table, fields=(), key=(), partitioned=partitioned)
            for (schema, table), partitioned in sorted(found.items())
        ]

    def definitions(self) -> list[str]:
        """All definitions of the tables, and the foreign keys of the others that refer to them; the same texts, in the
        same order, as long as nothing of it changes."""
        others = sorted(other.qualified.as_string(self._connection) for other in self.others)
        return definitions_of(self._connection, self._oids, tree_of(self._connection, others))

    def fingerprint(self) -> str:
        """SHA-256 of the definitions."""
        return hashlib.sha256("\n".join(self.definitions()).encode()).hexdigest()

    def require_rights(self) -> None:
        """Owner of every table whose triggers, keys and rows change, and of those that refer to them.

        Raises:
            PlatformNotPrepared: RIGHTS_MISSING, with the SQL that gives them.
            FailedPrecondition: KEY_SWITCHED_OFF where a foreign key's own triggers are not as they are made.
        """
        (role,) = one_row(self._connection, sql.SQL("SELECT quote_ident(current_user)").format())
        lacking = {e.qualified.as_string(self._connection) for e in self._entities if not e.owned}
        lacking |= {key.source.as_string(self._connection) for key in self.dropped if not key.owned}
        if lacking:
            statements = [f"ALTER TABLE {name} OWNER TO {role};" for name in sorted(lacking)]
            raise PlatformNotPrepared(
                f"restore: {role} must own {len(lacking)} more tables, itself or as a member of their owner; grant it"
                f" their owner's role, or let a superuser run: {' '.join(statements)}",
                reason="RIGHTS_MISSING",
                metadata={"sql": "\n".join(statements)},
            )
        for key in self.dropped:
            if key.states != "O":
                raise FailedPrecondition(
                    f"{key.schema}.{key.table}: the triggers of its foreign key {key.name} are switched off or to"
                    " another state, which only a superuser can do again; expected them as a key makes them",
                    reason="KEY_SWITCHED_OFF",
                )

    def take_down(self, rows: Iterable[int]) -> None:
        """Triggers off; foreign keys to the tables, and all indexes that can be built again, away.

        Args:
            rows: those that each table will get; below some number dropping an index is not worth it.
        """
        for trigger in self.triggers:
            if trigger.state != "D":
                self._switch(trigger, "D")
        self._parts = {key: self._parts_of(key) for key in self.dropped}
        drop(self._connection, [*self.dropped, *self.unproven])
        for entity, count in zip(self._entities, rows, strict=True):
            worth = count >= indexes.WORTH_ROWS
            plain = indexes.removable(self._connection, entity, unique=None) if worth else []
            indexes.drop(self._connection, entity, plain)
            self._indexes.append((entity, plain))

    def clear(self) -> None:
        """All rows, in one statement. Never CASCADE: what refers to them from outside must not be in it."""
        self._run("TRUNCATE TABLE {}", sql.SQL(", ").join(e.relation for e in self._entities))

    def put_up(self) -> None:
        """As it was: indexes, foreign keys, which are proven by it, and the state of each trigger."""
        # what a deferrable unique key has left to be looked at would stand in the way of its table's changes
        self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for entity, plain in self._indexes:
            indexes.build(self._connection, entity, plain)
        self._indexes = []
        make(self._connection, [*self.unproven, *self.dropped])
        for key in self.dropped:
            self._name_parts(key)
        for trigger in self.triggers:
            if trigger.state != "D":
                self._switch(trigger, trigger.state)

    def _parts_of(self, key: Key) -> dict[tuple[str, str], tuple[str, str | None]]:
        """By the tables from which and to which they go: names and comments of the keys that PostgreSQL keeps beneath
        this one, for each partition on either side. Made again they get names as for new ones."""
        rows = self._connection.execute(
            "WITH RECURSIVE tree AS (SELECT oid FROM pg_constraint WHERE conrelid = %s::regclass AND conname = %s"
            " UNION ALL SELECT c.oid FROM pg_constraint c JOIN tree ON c.conparentid = tree.oid)"
            " SELECT c.conrelid::regclass::text, c.confrelid::regclass::text, c.conname,"
            " obj_description(c.oid, 'pg_constraint') FROM pg_constraint c JOIN tree USING (oid)"
            " WHERE c.conparentid <> 0",
            (key.source.as_string(self._connection), key.name),
        )
        return {(source, target): (name, comment) for source, target, name, comment in rows}

    def _name_parts(self, key: Key) -> None:
        """In two steps, since two of them may have changed names with each other."""
        before = self._parts.get(key, {})
        steps: list[tuple[str, str, str]] = []
        for number, (tables, (name, comment)) in enumerate(self._parts_of(key).items()):
            old, said = before.get(tables, (name, comment))
            if old != name:
                self._rename(tables[0], name, f"#{number}")
                steps.append((tables[0], f"#{number}", old))
            if said != comment:
                now = f"#{number}" if old != name else name
                table = sql.SQL(tables[0])
                self._run("COMMENT ON CONSTRAINT {} ON {} IS {}", sql.Identifier(now), table, sql.Literal(said))
        for step in steps:
            self._rename(*step)

    def _rename(self, table: str, name: str, to: str) -> None:
        self._run("ALTER TABLE {} RENAME CONSTRAINT {} TO {}", sql.SQL(table), sql.Identifier(name), sql.Identifier(to))

    def analyze(self) -> None:
        for entity in self._entities:
            self._run("ANALYZE {}", entity.qualified)

    def _switch(self, trigger: TriggerState, state: str) -> None:
        table = sql.Identifier(trigger.schema, trigger.table)
        self._run(f"ALTER TABLE ONLY {{}} {_STATES[state]} {{}}", table, sql.Identifier(trigger.name))

    def _run(self, statement: str, *parts: sql.Composable) -> None:
        self._connection.execute(sql.SQL(statement).format(*parts))
