"""What foreign keys do by themselves when rows go or get other keys, followed to its end.

`DELETE 3` may remove three more rows elsewhere and null three others, silently. Planning finds every row that such an
action would reach; apply looks again, under the locks, and goes on only if it finds the very same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from psycopg import sql

from engine.catalog import Catalog, Entity
from engine.db.platform import Connection, one_number
from engine.errors import FailedPrecondition, Violation
from engine.imports.edges import REFUSING, Edge, Table
from engine.imports.fingerprints import fingerprint
from engine.imports.sqltext import Temp, all_of, creation, equal, joined, listed, typed

SHOWN_EFFECTS = 20


@dataclass(frozen=True)
class Origin:
    """Rows that go or change: a temp table or subquery that holds the values referred to, as they are now."""

    table: Table
    rows: sql.Composable
    verb: str
    """DELETE or UPDATE."""
    changes: tuple[str, ...] = ()
    """What an UPDATE changes: it sets off the foreign keys that refer to just these columns. While planning, `rows`
    hold what they become too, as `#n0`, `#n1` …"""

    def sets_off(self, edge: Edge) -> bool:
        return edge.target == self.table and self.changes in ((), edge.target_columns)


@dataclass
class Reached:
    """The temp table of one entity's rows that foreign keys reach."""

    entity: Entity
    rows: sql.Identifier
    changing: tuple[str, ...]
    """Columns that a foreign key may set; `rows` hold what they become as `#n0`, `#n1` …"""
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    """Rows by (foreign key, action); a row stands in `rows` once, by the first that reached it."""

    def becomes(self, column: str) -> sql.Identifier:
        """The column of `rows` that holds what `column` becomes."""
        return new_column(self.changing.index(column)) if column in self.changing else sql.Identifier(column)


def new_column(number: int) -> sql.Identifier:
    return sql.Identifier(f"#n{number}")


class Effects:
    """Follows the foreign keys of one plan. `create` before the transaction, `follow` or `unplanned` inside."""

    def __init__(self, connection: Connection, catalog: Catalog, edges: Sequence[Edge], seed: int) -> None:
        self._connection = connection
        self._catalog = catalog
        self.edges = edges
        self._seed = seed
        self.reached: dict[Table, Reached] = {}

    def create(self, origins: Sequence[tuple[Table, str]]) -> None:
        """Makes a temp table for every entity that could be reached from the tables that are written, by verb."""
        waiting: list[tuple[Table, str, tuple[str, ...]]] = [(table, verb, ()) for table, verb in origins]
        seen = set(waiting)
        while waiting:
            table, verb, changed = waiting.pop()
            for edge in self._to(table):
                entity = self._catalog.of_table(*edge.source)
                if edge.action(verb) in REFUSING or entity is None:
                    continue
                if changed and not set(changed) & set(edge.target_columns):
                    continue
                if edge.source not in self.reached:
                    self._make(edge.source, entity, self._changing(entity))
                goes = (verb, edge.action(verb)) == ("DELETE", "CASCADE")
                following = (edge.source, "DELETE", ()) if goes else (edge.source, "UPDATE", edge.sets(verb))
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)

    def _changing(self, entity: Entity) -> tuple[str, ...]:
        own = [e for e in self.edges if e.source == (entity.schema, entity.table)]
        found = {
            c for e in own for verb in ("DELETE", "UPDATE")
            if e.action(verb) not in REFUSING and (verb, e.action(verb)) != ("DELETE", "CASCADE")
            for c in e.sets(verb)
        }  # fmt: skip
        return tuple(f.column for f in entity.stored if f.column in found)

    def add(self, entity: Entity, changing: Sequence[str], actions: Sequence[tuple[str, str, int]]) -> sql.Identifier:
        """Makes the temp table of one entity; apply fills it with what was planned."""
        table = (entity.schema, entity.table)
        self._make(table, entity, tuple(changing))
        self.reached[table].counts = {(name, action): rows for name, action, rows in actions}
        return self.reached[table].rows

    def _make(self, table: Table, entity: Entity, changing: tuple[str, ...]) -> None:
        reached = Reached(entity, Temp(f"reached_{len(self.reached)}"), changing)
        own = sql.SQL('"#row" bigint, "#print" bigint, "#action" text, "#constraint" text')
        columns = [typed(f) for f in entity.stored]
        columns += [typed(entity.column(c), new_column(n)) for n, c in enumerate(changing)]
        self._connection.execute(creation(reached.rows, [own, *columns]))
        self.reached[table] = reached

    def follow(
        self,
        origins: Sequence[Origin],
        stays: Callable[[Edge], sql.Composable | None],
        *,
        allowed: Callable[[str], bool],
        written: frozenset[Table],
        check: Callable[[], None],
    ) -> None:
        """Finds every row that is reached.

        Args:
            stays: a condition on the referring row `t`: the plan itself deletes it or gives it another reference.
            written: the tables that the plan writes; a foreign key may not undo there what the file says.

        Raises:
            FailedPrecondition: ROWS_REFERENCED, where a foreign key would refuse; CASCADE_NOT_ALLOWED, where it would
                change what it may not, with what and how much as violations.
        """
        refused: list[Violation] = []
        forbidden: list[Violation] = []
        going = self._with_deleted(origins, stays, check)
        for origin in self._with_updated(going, stays, check):
            for edge in self._to(origin.table):
                check()
                if not origin.sets_off(edge):
                    continue
                action = edge.action(origin.verb)
                reached = None if action in REFUSING else self.reached.get(edge.source)
                if reached is not None and _deletes(edge, origin):
                    found = reached.counts.get((edge.name, "DELETE CASCADE"), 0)
                else:
                    found = self._count(edge, origin, stays, "DELETE CASCADE")
                if found:
                    if reached is not None and not _deletes(edge, origin):
                        at = (edge.name, f"{origin.verb} {action}")
                        reached.counts[at] = reached.counts.get(at, 0) + found
                    name = self._name(edge)
                    what = f"{found} rows of {name} refer by {edge.name} to rows that {_GO[origin.verb]}"
                    if action in REFUSING:
                        refused.append(Violation(name, what))
                    elif edge.source in written or edge.source not in self.reached or not allowed(name):
                        forbidden.append(Violation(name, f"{what}: {origin.verb} {action}"))
        _refuse(refused, reason="ROWS_REFERENCED", why="and would keep them from it")
        _refuse(forbidden, reason="CASCADE_NOT_ALLOWED", why="and are no part of allow_cascade, or of the file itself")

    def unplanned(self, origins: Sequence[Origin], stays: Callable[[Edge], sql.Composable | None]) -> int:
        """Rows that refer to what goes, and were not when it was planned. `reached` holds what was planned."""
        found = 0
        for origin in self.and_what_follows(origins):
            for edge in self._to(origin.table):
                if origin.sets_off(edge):
                    found += self._count(edge, origin, stays)
        return found

    def and_what_follows(self, origins: Sequence[Origin]) -> list[Origin]:
        """The origins and, as planned, the rows that go or change by what they set off."""
        deleted = [
            self._deleted(table)
            for table, reached in self.reached.items()
            if any(action == "DELETE CASCADE" for _, action in reached.counts)
        ]
        return [*origins, *deleted, *self._updated()]

    def _with_deleted(
        self, origins: Sequence[Origin], stays: Callable[[Edge], sql.Composable | None], check: Callable[[], None]
    ) -> list[Origin]:
        """The origins, and after them every table that loses rows by cascades, which are found first."""
        deleting = [o for o in origins if o.verb == "DELETE"]
        reached: set[Table] = set()
        moved = True
        while moved:
            moved = False
            for origin in [*deleting, *map(self._deleted, sorted(reached))]:
                for edge in self._to(origin.table):
                    check()
                    follows = edge.on_delete == "CASCADE" and edge.source in self.reached
                    if follows and (found := self._reach(edge, origin, stays)):
                        counts, at = self.reached[edge.source].counts, (edge.name, "DELETE CASCADE")
                        counts[at] = counts.get(at, 0) + found
                        moved = True
                        reached.add(edge.source)
        return [*origins, *map(self._deleted, sorted(reached))]

    def _with_updated(
        self, origins: list[Origin], stays: Callable[[Edge], sql.Composable | None], check: Callable[[], None]
    ) -> list[Origin]:
        """The origins, and after them every table whose referred columns a foreign key sets, which are found first."""
        moved: list[Edge] = []
        for _ in range(len(self.edges) + 2):  # a chain of them is no longer, if each column has one value at the end
            found = [*origins, *self._updated()]
            moved = []
            for origin in found:
                for edge in self._to(origin.table):
                    check()
                    follows = origin.sets_off(edge) and edge.action(origin.verb) not in REFUSING
                    if not follows or _deletes(edge, origin) or edge.source not in self.reached:
                        continue
                    self._require_known(edge, origin, stays)
                    if self._reach(edge, origin, stays) + self._set(edge, origin, stays):
                        moved.append(edge)
            if not moved:
                return found
        unclear = [Violation(self._name(e), f"{self._name(e)} gets several values by {e.name}") for e in moved]
        _refuse(unclear, reason="CASCADE_NOT_ALLOWED", why="and the last cannot be foreseen")
        return []

    def _updated(self) -> list[Origin]:
        """Rows that stay, and whose columns that others refer to are set by a foreign key."""
        found: list[Origin] = []
        for table, reached in self.reached.items():
            changing = set(reached.changing)
            for columns in dict.fromkeys(e.target_columns for e in self._to(table) if changing & {*e.target_columns}):
                old, new = [sql.Identifier(c) for c in columns], [reached.becomes(c) for c in columns]
                pairs = [(o, n) for o, n in zip(old, new, strict=True) if o != n]
                differs = (sql.SQL("{}::text IS DISTINCT FROM {}::text").format(o, n) for o, n in pairs)
                rows = sql.SQL("(SELECT {}, {} FROM {} WHERE \"#action\" <> 'DELETE CASCADE' AND ({}))").format(
                    joined(old),
                    joined(sql.SQL("{} AS {}").format(c, new_column(n)) for n, c in enumerate(new)),
                    reached.rows,
                    joined(differs, " OR "),
                )
                found.append(Origin(table, rows, "UPDATE", columns))
        return found

    def _deleted(self, table: Table) -> Origin:
        rows = sql.SQL("(SELECT * FROM {} WHERE \"#action\" = 'DELETE CASCADE')").format(self.reached[table].rows)
        return Origin(table, rows, "DELETE")

    def _to(self, table: Table) -> list[Edge]:
        return [edge for edge in self.edges if edge.target == table]

    def _reach(self, edge: Edge, origin: Origin, stays: Callable[[Edge], sql.Composable | None]) -> int:
        """The rows that the action reaches and no other has before, into their temp table."""
        reached = self.reached[edge.source]
        entity, new = reached.entity, self._becomes(edge, origin)
        columns = [f.column for f in entity.stored]
        found = self._connection.execute(
            sql.SQL("INSERT INTO {} SELECT {} FROM {} WHERE {}").format(
                reached.rows,
                joined(
                    [
                        sql.SQL("0"),
                        fingerprint("t", columns, self._seed),
                        sql.Literal(f"{origin.verb} {edge.action(origin.verb)}"),
                        sql.Literal(edge.name),
                        listed("t", columns),
                        *(new.get(c, sql.SQL("t.") + sql.Identifier(c)) for c in reached.changing),
                    ]
                ),
                self._referring(edge, origin),
                all_of(self._refers(edge, origin), stays(edge), self._not_reached(edge)),
            )
        ).rowcount
        if found:
            if not entity.key:
                keyless = Violation(entity.name, f"{entity.name} has no key")
                _refuse([keyless], reason="CASCADE_NOT_ALLOWED", why="to tell its rows by")
            self._connection.execute(sql.SQL("ANALYZE {}").format(reached.rows))
        return found

    def _set(self, edge: Edge, origin: Origin, stays: Callable[[Edge], sql.Composable | None]) -> int:
        """Rows that were reached before and that the action gives a value they did not have yet."""
        reached = self.reached[edge.source]
        if not reached.entity.key:
            return 0
        new = [(reached.becomes(c), value) for c, value in self._becomes(edge, origin).items()]
        differs = (sql.SQL("r.{}::text IS DISTINCT FROM ({})::text").format(c, value) for c, value in new)
        return self._connection.execute(
            sql.SQL("UPDATE {} r SET {} FROM {} WHERE {} AND r.\"#action\" <> 'DELETE CASCADE' AND ({})").format(
                reached.rows,
                joined(sql.SQL("{} = {}").format(c, value) for c, value in new),
                self._referring(edge, origin),
                all_of(
                    self._refers(edge, origin),
                    stays(edge),
                    equal([reached.entity.column(c) for c in reached.entity.key], s="r"),
                ),
                joined(differs, " OR "),
            )
        ).rowcount

    def _becomes(self, edge: Edge, origin: Origin) -> dict[str, sql.Composable]:
        """What the action sets a column to, as an expression over the row `o` that is referred to."""
        if _deletes(edge, origin):
            return {}
        entity, action = self.reached[edge.source].entity, edge.action(origin.verb)
        found: dict[str, sql.Composable] = {}
        for column in edge.sets(origin.verb):
            field = entity.column(column)
            value: sql.Composable = sql.SQL("NULL")
            if action == "CASCADE":
                value = sql.SQL("o.") + new_column(edge.columns.index(column))
            elif action == "SET DEFAULT" and field.default is not None:
                value = sql.SQL(field.default)
            found[column] = sql.SQL("CAST({} AS {})").format(value, sql.SQL(field.storage_type))
        return found

    def _require_known(self, edge: Edge, origin: Origin, stays: Callable[[Edge], sql.Composable | None]) -> None:
        entity, action = self.reached[edge.source].entity, edge.action(origin.verb)
        unknown = [c for c in edge.sets(origin.verb) if entity.column(c).server_assigned]
        if action == "SET DEFAULT" and unknown and self._count(edge, origin, stays, "DELETE CASCADE"):
            what = Violation(entity.name, f"{edge.name} sets {', '.join(unknown)} of {entity.name} to a default")
            _refuse([what], reason="CASCADE_NOT_ALLOWED", why="which only the server knows")

    def _referring(self, edge: Edge, origin: Origin) -> sql.Composable:
        """The referring rows `t`; where their new values come from there, with the row `o` that is referred to."""
        relation = self.reached[edge.source].entity.relation
        if (origin.verb, edge.action(origin.verb)) != ("UPDATE", "CASCADE"):
            return sql.SQL("{} t").format(relation)
        one = sql.SQL("(SELECT DISTINCT ON ({}) o.* FROM {} o)").format(listed("o", edge.target_columns), origin.rows)
        return sql.SQL("{} t JOIN {} o ON {}").format(relation, one, self._same(edge))

    def _count(
        self, edge: Edge, origin: Origin, stays: Callable[[Edge], sql.Composable | None], reached_by: str = ""
    ) -> int:
        """Rows that refer to the origin's, but for those reached before, if they were by the action `reached_by`."""
        if not edge.readable:
            name = self._name(edge)
            unread = Violation(name, f"{name} refers by {edge.name}")
            _refuse([unread], reason="ROWS_REFERENCED", why="and cannot be read")
        entity = self._catalog.of_table(*edge.source)
        relation = entity.relation if entity else sql.Identifier(*edge.source)
        return one_number(
            self._connection,
            sql.SQL("SELECT count(*) FROM {} t WHERE {}").format(
                relation, all_of(self._refers(edge, origin), stays(edge), self._not_reached(edge, reached_by))
            ),
        )

    def _refers(self, edge: Edge, origin: Origin) -> sql.Composable:
        refers = sql.SQL("EXISTS (SELECT FROM {} o WHERE {})").format(origin.rows, self._same(edge))
        if not edge.parts:
            return refers
        return all_of(sql.SQL("t.tableoid = ANY ({}::oid[])").format(sql.Literal(list(edge.parts))), refers)

    def _same(self, edge: Edge) -> sql.Composable:
        """The row `t` refers to the row `o`."""
        entity = self._catalog.of_table(*edge.source)
        if entity is not None:
            return equal([entity.column(c) for c in edge.columns], edge.target_columns, s="t", t="o")
        pairs = zip(edge.columns, edge.target_columns, strict=True)
        return joined((sql.SQL("o.{} = t.{}").format(sql.Identifier(b), sql.Identifier(a)) for a, b in pairs), " AND ")

    def _not_reached(self, edge: Edge, by: str = "") -> sql.Composable | None:
        reached = self.reached.get(edge.source)
        if reached is None or not reached.entity.key:
            return None
        key = [reached.entity.column(c) for c in reached.entity.key]
        action = sql.SQL('r."#action" = {}').format(sql.Literal(by)) if by else None
        return sql.SQL("NOT EXISTS (SELECT FROM {} r WHERE {})").format(reached.rows, all_of(equal(key, s="r"), action))

    def _name(self, edge: Edge) -> str:
        entity = self._catalog.of_table(*edge.source)
        return entity.name if entity else ".".join(edge.source)


_GO = {"DELETE": "go", "UPDATE": "get another key"}


def _deletes(edge: Edge, origin: Origin) -> bool:
    return (origin.verb, edge.action(origin.verb)) == ("DELETE", "CASCADE")


def _refuse(found: list[Violation], *, reason: str, why: str) -> None:
    if found:
        shown = "; ".join(v.description for v in found[:3])
        raise FailedPrecondition(f"{shown}; {why}", reason=reason, violations=found[:SHOWN_EFFECTS])
