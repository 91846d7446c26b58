"""What foreign keys will do by themselves at apply: the rows that were planned, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg import sql

from engine.catalog import Catalog, Entity, Field
from engine.db.platform import Connection, one_row
from engine.errors import FailedPrecondition
from engine.imports.drift import stale
from engine.imports.edges import REFUSING, Edge, Table, read_edges
from engine.imports.effects import Effects, Origin, Reached
from engine.imports.fingerprints import fingerprint
from engine.imports.loaded import PRINT, Loaded, load_cascade
from engine.imports.planfile import Plan
from engine.imports.sqltext import Temp, all_of, creation, equal, joined, listed, typed

if TYPE_CHECKING:
    from engine.jobs.run import JobRun


@dataclass(frozen=True)
class Stayed:
    """One entity's rows that foreign keys have changed and not deleted, read again."""

    number: int
    """Its place among the plan's cascades."""
    entity: Entity
    changed: int
    """Rows that are stored otherwise than planned."""

    @property
    def written(self) -> sql.Identifier:
        """The fingerprint of what is stored, and the key."""
        return Temp(f"stayed_{self.number}")


class Reactions:
    """Made before the transaction, from the plan; looked at again inside."""

    def __init__(
        self, run: JobRun, connection: Connection, catalog: Catalog, plan: Plan, entries: Sequence[Loaded]
    ) -> None:
        self._connection = connection
        self._heads = plan.head["cascades"]
        self._entries = {(e.entity.schema, e.entity.table): e for e in entries}
        self._seed = int(plan.head["seed"])
        moves = any(e.rows("DELETE") or e.rows("UPDATE") for e in entries)
        edges = read_edges(connection) if moves else []
        self._origins = [origin for entry in entries for origin in self._of(entry, edges)]
        self._effects = Effects(connection, catalog, edges, self._seed)
        for number, head in enumerate(self._heads):
            rows = self._effects.add(catalog.entity(head["name"]), head["changing"], head["actions"])
            load_cascade(run, connection, plan, number, rows)
        self.entities = self._watched(catalog, edges)
        """Entities whose rows a foreign key may change: nobody else may write them meanwhile."""

    def require_as_planned(self) -> None:
        """Raises:
        Aborted: PLAN_STALE, when a planned row has moved, or another one has come to be reached.
        """
        self._lock_referred()
        for reached in self._effects.reached.values():
            entity = reached.entity
            whole = fingerprint("t", [f.column for f in entity.stored], self._seed)
            key = [entity.column(c) for c in entity.key]
            expected, found = one_row(
                self._connection,
                sql.SQL(
                    "SELECT (SELECT count(*) FROM {0}), "
                    "(SELECT count(*) FROM {0} s JOIN {1} t ON {2} WHERE {3} = s.{4})"
                ).format(reached.rows, entity.relation, equal(key), whole, PRINT),
            )
            if found != expected:
                raise stale(f"{entity.name}: {expected - found} of {expected} rows that follow have changed")
        if self._origins and (found := self._effects.unplanned(self._origins, self._stays)):
            raise stale(f"{found} rows refer to rows that go, and did not when it was planned")

    def _lock_referred(self) -> None:
        """Rows that others refer to and that go or change, in key order: who would refer to one of them now, in a table
        that is not locked, must wait, and finds it gone."""
        referred = {edge.target for edge in self._effects.edges}
        for table in sorted(referred & self._entries.keys()):
            entry = self._entries[table]
            for verb, rows in (("DELETE", entry.gone), ("UPDATE", entry.updates)):
                if any(o.table == table and o.verb == verb for o in self._origins):
                    self._lock_rows(entry.entity, rows, entry.key)
        for table, reached in self._effects.reached.items():
            if table in referred:
                self._lock_rows(reached.entity, reached.rows, [reached.entity.column(c) for c in reached.entity.key])

    def _lock_rows(self, entity: Entity, rows: sql.Composable, key: Sequence[Field]) -> None:
        self._connection.execute(
            sql.SQL("SELECT count(*) FROM (SELECT FROM {} s JOIN {} t ON {} ORDER BY {} FOR UPDATE OF t) l").format(
                rows, entity.relation, equal(key), listed("t", [f.column for f in key])
            )
        )

    def counts(self) -> dict[Table, int]:
        """Rows of each entity that loses some by a cascade."""
        return {
            table: one_row(self._connection, sql.SQL("SELECT count(*) FROM {}").format(reached.entity.relation))[0]
            for table, reached in self._effects.reached.items()
            if table not in self._entries
        }

    def require_counts(self, before: dict[Table, int]) -> None:
        """Raises:
        FailedPrecondition: ROWS_UNACCOUNTED, when another number of rows went than was planned.
        """
        for table, after in self.counts().items():
            gone = self.deleted(self._effects.reached[table].entity)
            if before[table] - gone != after:
                raise FailedPrecondition(
                    f"{self._effects.reached[table].entity.name}: found {after} rows of {before[table]} after cascades,"
                    f" expected {gone} fewer",
                    reason="ROWS_UNACCOUNTED",
                )

    def read_again(self, left_out: bool) -> list[Stayed]:
        """Every reached row that stays, by the key it has now: a trigger may have changed more of it, or kept the
        foreign key from it.

        Args:
            left_out: whether rows of the plan were; then nothing may have followed them.
        """
        found = []
        for number, head in enumerate(self._heads):
            staying = any(action != "DELETE CASCADE" for _, action, _ in head["actions"])
            reached = next(r for r in self._effects.reached.values() if r.entity.name == head["name"])
            if staying:
                stayed = Stayed(number, reached.entity, 0)
                found.append(replace(stayed, changed=self._read_again(stayed, reached, left_out)))
        return found

    def _read_again(self, stayed: Stayed, reached: Reached, left_out: bool) -> int:
        entity = stayed.entity
        key = [entity.column(c) for c in entity.key]
        by_key = ((sql.Identifier(f.column), sql.SQL(f.equality), reached.becomes(f.column)) for f in key)
        rest = [f.column for f in entity.stored if f.column not in reached.changing]
        own = sql.SQL('"#print" bigint, "#same" boolean')
        self._connection.execute(creation(stayed.written, [own, *map(typed, key)]))
        self._connection.execute(
            sql.SQL(
                "INSERT INTO {} SELECT {}, {}, {} FROM {} s JOIN {} t ON {} WHERE s.\"#action\" <> 'DELETE CASCADE'"
            ).format(
                stayed.written,
                fingerprint("t", [f.column for f in entity.stored], self._seed),
                all_of(
                    sql.SQL("{} = {}").format(fingerprint("t", rest, self._seed), fingerprint("s", rest, self._seed)),
                    *(_as_planned(c, reached, left_out) for c in reached.changing),
                ),
                listed("t", entity.key),
                reached.rows,
                entity.relation,
                all_of(*(sql.SQL("t.{} {} s.{}").format(c, same, new) for c, same, new in by_key)),
            )
        )
        expected, there, same = one_row(
            self._connection,
            sql.SQL(
                "SELECT (SELECT count(*) FROM {} WHERE \"#action\" <> 'DELETE CASCADE'), "
                'count(*), count(*) FILTER (WHERE "#same") FROM {}'
            ).format(reached.rows, stayed.written),
        )
        return int((there if left_out else expected) - same)

    def deleted(self, entity: Entity) -> int:
        """Rows of the entity that a cascade takes."""
        head = next((h for h in self._heads if h["name"] == entity.name), None)
        return sum(rows for _, action, rows in head["actions"] if action == "DELETE CASCADE") if head else 0

    def _of(self, entry: Loaded, edges: Sequence[Edge]) -> list[Origin]:
        table = (entry.entity.schema, entry.entity.table)
        found = [Origin(table, entry.gone, "DELETE")] if entry.rows("DELETE") else []
        if not entry.rows("UPDATE"):
            return found
        touched = set(entry.touched) - set(entry.head["key"])
        for columns in dict.fromkeys(
            e.target_columns for e in edges if e.target == table and touched & set(e.target_columns)
        ):
            differs = joined(
                (
                    sql.SQL("{} IS DISTINCT FROM {}").format(_text("s", entry.old(c)), _text("s", sql.Identifier(c)))
                    for c in columns if c in touched
                ),
                " OR ",
            )  # fmt: skip
            rows = sql.SQL("(SELECT {} FROM {} s JOIN {} t ON {} WHERE {})").format(
                listed("t", columns), entry.updates, entry.entity.relation, entry.same_key(), differs
            )
            found.append(Origin(table, rows, "UPDATE", columns))
        return found

    def _stays(self, edge: Edge) -> sql.Composable | None:
        """The referring row `t` goes by the plan itself, or gets another reference by it."""
        entry = self._entries.get(edge.source)
        if entry is None or not entry.head["key"]:
            return None
        conditions = [_absent(entry, entry.gone)] if entry.rows("DELETE") else []
        if entry.rows("UPDATE") and set(edge.columns) & set(entry.touched):
            conditions.append(_absent(entry, entry.updates))
        return all_of(*conditions) if conditions else None

    def _watched(self, catalog: Catalog, edges: list[Edge]) -> list[Entity]:
        tables = set(self._effects.reached)
        for origin in self._effects.and_what_follows(self._origins):
            for edge in edges:
                if origin.sets_off(edge) and edge.action(origin.verb) not in REFUSING:
                    tables.add(edge.source)
        found = [catalog.of_table(*table) for table in sorted(tables)]
        return [entity for entity in found if entity is not None]


def _as_planned(column: str, reached: Reached, left_out: bool) -> sql.Composable:
    stands, planned = _text("t", sql.Identifier(column)), _text("s", reached.becomes(column))
    found = sql.SQL("{} IS NOT DISTINCT FROM {}").format(stands, planned)
    if left_out:
        before = _text("s", sql.Identifier(column))
        found = sql.SQL("({} OR {} IS NOT DISTINCT FROM {})").format(found, stands, before)
    return found


def _absent(entry: Loaded, table: sql.Identifier) -> sql.Composable:
    return sql.SQL("NOT EXISTS (SELECT FROM {} s WHERE {})").format(table, entry.same_key())


def _text(alias: str, name: sql.Identifier) -> sql.Composed:
    return sql.SQL("{}.{}::text").format(sql.SQL(alias), name)
