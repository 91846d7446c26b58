"""The effect: deletes, updates and inserts of all entities of a plan in one statement.

One statement, because its foreign keys are then judged by what stands at its end: a row may lose its parent and get
another that is inserted only here, two tables may refer to each other. Unique values are judged row by row, so the
parts run in an order: each waits for the one before by counting its rows. Deletes come first, then updates, then
inserts; deletes from the last entity to the first, the others from the first, since parents stand first.

Updates that wait for one another go in rounds, by one UPDATE that comes to its rows in their order: a subquery sorts
them, and is the outer side of a nested loop whose inner side finds the table's row by its key. `= ANY` leaves no other
join, and without sequential scans the table cannot be the outer side. EXPLAIN says beforehand whether it will be so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from engine.catalog import Field
from engine.db.platform import Connection, one_number, one_row
from engine.imports.fingerprints import fingerprint
from engine.imports.loaded import ROUND, Loaded
from engine.imports.proofs import Proof, choose_proof
from engine.imports.sqltext import ROW, Temp, all_of, creation, joined, listed, typed

MOST_PARTS = 1_500
"""Parts of one statement, planned in 1.2 s: twice the three of each entity that an import may have (MOST_ENTITIES)."""


@dataclass(frozen=True)
class Part:
    """One INSERT, UPDATE or DELETE of one entity; an UPDATE of all rounds, 0 to `last`, or of one `round`."""

    entry: Loaded
    verb: str
    proof: Proof
    last: int = 0
    round: int | None = None

    @property
    def in_rounds(self) -> bool:
        """Whether its rows wait for one another."""
        return self.last > 0 and self.round is None

    @property
    def source(self) -> sql.Identifier:
        """The temp table that its rows come from."""
        return {"INSERT": self.entry.planned, "UPDATE": self.entry.updates, "DELETE": self.entry.gone}[self.verb]

    @property
    def columns(self) -> list[str]:
        """What an INSERT or UPDATE writes, as the plan shows it."""
        return self.entry.columns if self.verb == "INSERT" else self.entry.touched

    @property
    def written(self) -> Temp:
        """Where it says what it has stored; see `proofs`."""
        return Temp(f"written_{self.entry.number}_{self.verb.lower()}")


def parts_of(entries: Sequence[Loaded], rounds: dict[int, int], assigned: set[int]) -> list[Part]:
    """What is to be written, in order.

    Args:
        rounds: by entity, the last round of its updates.
        assigned: the entities whose new rows get values that only the database knows.
    """
    found = [Part(e, "DELETE", Proof.COUNT) for e in reversed(entries) if e.rows("DELETE")]
    for entry in entries:
        if entry.rows("UPDATE"):
            proof = choose_proof(entry.entity, "UPDATE", assigned=False)
            found.append(Part(entry, "UPDATE", proof, last=rounds.get(entry.number, 0)))
        if entry.rows("INSERT"):
            proof = choose_proof(entry.entity, "INSERT", assigned=entry.number in assigned)
            found.append(Part(entry, "INSERT", proof))
    return found


class Effect:
    """Writes parts and counts what they wrote."""

    def __init__(self, connection: Connection, seed: int) -> None:
        self._connection = connection
        self._seed = seed

    def prepare(self, parts: Sequence[Part]) -> None:
        """Makes the tables that the parts tell what they have stored in; in the effect's transaction or before it."""
        made: set[str] = set()
        for part in parts:
            if part.proof is not Proof.COUNT and part.written.name not in made:
                made.add(part.written.name)
                own = sql.SQL('"#print" bigint, "#shown" bigint')
                self._connection.execute(creation(part.written, [own, *map(typed, _key_of(part.entry))]))

    def write(self, parts: Sequence[Part], among: sql.Composable | None = None) -> list[int]:
        """Rows that each part wrote. `among` restricts the rows `s` of the plan that are looked at.

        Raises:
            psycopg.Error: what the table refuses; nothing of the statement stands then.
        """
        with self._rows_in_order(parts):
            apart = [self._by_round(part) if among is None else [part] for part in parts]
            pieces = [piece for found in apart for piece in found]
            if len(pieces) > MOST_PARTS:
                counts = [self._together([piece], among)[0] for piece in pieces]
            elif len(pieces) == 1 and pieces[0].proof is Proof.COUNT:
                counts = [self._connection.execute(self._statement(pieces[0], among, None, returning=None)).rowcount]
            else:
                counts = self._together(pieces, among)
        left = iter(counts)
        return [sum(next(left) for _ in found) for found in apart]

    def _together(self, parts: Sequence[Part], among: sql.Composable | None) -> list[int]:
        ctes: list[sql.Composable] = []
        before: sql.Identifier | None = None
        for number, part in enumerate(parts):
            name = sql.Identifier(f"part_{number}")
            after = sql.SQL("(SELECT count(*) FROM {}) >= 0").format(before) if before is not None else None
            returning = self._told(part) if part.proof is not Proof.COUNT else sql.SQL("1")
            statement = self._statement(part, among, after, returning=returning)
            ctes.append(sql.SQL("{} AS ({})").format(name, statement))
            if part.proof is not Proof.COUNT:
                ctes.append(
                    sql.SQL("{} AS (INSERT INTO {} SELECT * FROM {})").format(
                        sql.Identifier(f"told_{number}"), part.written, name
                    )
                )
            before = name
        counts = joined(  # an array, as a SELECT has 1,664 columns at most
            sql.SQL("(SELECT count(*) FROM {})").format(sql.Identifier(f"part_{n}")) for n in range(len(parts))
        )
        return list(one_row(self._connection, sql.SQL("WITH {} SELECT ARRAY[{}]").format(joined(ctes), counts))[0])

    def _statement(
        self, part: Part, among: sql.Composable | None, after: sql.Composable | None, returning: sql.Composable | None
    ) -> sql.Composed:
        entry, where = part.entry, all_of(among, after)
        tail = sql.SQL(" RETURNING {}").format(returning) if returning is not None else sql.SQL("")
        if part.verb == "DELETE":
            return (
                sql.SQL("DELETE FROM {} t USING {} s WHERE {}").format(
                    entry.entity.relation, entry.gone, all_of(entry.same_key(), where)
                )
                + tail
            )
        if part.verb == "UPDATE":
            return self._update(part, among, after) + tail
        always = any(entry.entity.column(c).identity == "ALWAYS" for c in entry.columns)
        return (
            sql.SQL("INSERT INTO {} AS t ({}) {} SELECT {} FROM {} s WHERE {}").format(
                entry.entity.qualified,
                joined(map(sql.Identifier, entry.columns)),
                sql.SQL("OVERRIDING SYSTEM VALUE" if always else ""),
                listed("s", entry.columns),
                entry.planned,
                all_of(where),
            )
            + tail
        )

    def _update(self, part: Part, among: sql.Composable | None, after: sql.Composable | None) -> sql.Composed:
        entry = part.entry
        rows: sql.Composable = entry.updates
        same, where = entry.same_key(), all_of(among, after)
        if part.in_rounds:  # in each round in the order of loading, which is that of the key
            rows = sql.SQL("(SELECT s.* FROM {} s WHERE {} ORDER BY s.{}, s.ctid)").format(rows, all_of(among), ROUND)
            same, where = _found_by_key(entry), all_of(after)
        elif part.round is not None:
            where = all_of(sql.SQL("s.{} = {}").format(ROUND, sql.Literal(part.round)), where)
        sets = joined(sql.SQL("{0} = s.{0}").format(sql.Identifier(c)) for c in entry.settable)
        return sql.SQL("UPDATE {} t SET {} FROM {} s WHERE {}").format(
            entry.entity.relation, sets, rows, all_of(same, where)
        )

    # --- rounds

    @contextmanager
    def _rows_in_order(self, parts: Sequence[Part]) -> Iterator[None]:
        """What an UPDATE in rounds needs to come to its rows in their order."""
        if not any(part.in_rounds for part in parts):
            yield
            return
        self._connection.execute("SET LOCAL enable_seqscan = off")
        yield  # after an error the savepoint's end resets it
        self._connection.execute("SET LOCAL enable_seqscan TO DEFAULT")

    def _by_round(self, part: Part) -> list[Part]:
        """The part itself, or one for each round where one UPDATE would not come to the rows in their order."""
        if not part.in_rounds or self._goes_in_order(part):
            return [part]
        self._connection.execute(sql.SQL("CREATE INDEX ON {} ({})").format(part.entry.updates, ROUND))
        return [replace(part, round=number) for number in range(part.last + 1)]

    def _goes_in_order(self, part: Part) -> bool:
        query = self._statement(part, None, None, returning=None)
        node: dict[str, Any] = one_row(self._connection, sql.SQL("EXPLAIN (FORMAT JSON) ") + query)[0][0]["Plan"]
        while len(node.get("Plans", ())) == 1:
            node = node["Plans"][0]
        outer = node["Plans"][0] if node.get("Node Type") == "Nested Loop" else {}
        return part.entry.updates.name in _scanned(outer)

    # --- what is stored

    def _told(self, part: Part) -> sql.Composed:
        """The fingerprint that a way back compares, that of what was planned, and the key."""
        entry = part.entry
        whole = [f.column for f in entry.entity.stored] if part.verb == "INSERT" else entry.head["relied"]
        return joined(
            [
                fingerprint("t", whole, self._seed),
                fingerprint("t", part.columns, self._seed),
                *(sql.SQL("t.") + sql.Identifier(f.column) for f in _key_of(entry)),
            ]
        )

    def read_again(self, part: Part) -> int:
        """Replaces what a statement returned by what the table has now: an AFTER trigger may have changed it again."""
        entry, kept = part.entry, Temp(f"{part.written.name}_returned")
        self._connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(part.written, sql.Identifier(kept.name)))
        self._connection.execute(sql.SQL("CREATE TEMP TABLE {} (LIKE {})").format(part.written, kept))
        key = _key_of(entry)
        same = all_of(*(sql.SQL("t.{0} {1} s.{0}").format(sql.Identifier(f.column), sql.SQL(f.equality)) for f in key))
        return self._connection.execute(
            sql.SQL("INSERT INTO {} SELECT {} FROM {} s JOIN {} t ON {}").format(
                part.written, self._told(part), kept, entry.entity.relation, same
            )
        ).rowcount

    def changed(self, part: Part) -> int:
        """Rows of the part that are stored otherwise than planned."""
        return one_number(
            self._connection,
            sql.SQL(
                'SELECT count(*) FROM (SELECT w."#shown" FROM {} w EXCEPT ALL SELECT {} FROM {} s WHERE {}) changed'
            ).format(part.written, fingerprint("s", part.columns, self._seed), part.source, self._not_late(part.entry)),
        )

    def _not_late(self, entry: Loaded) -> sql.Composable:
        return sql.SQL("NOT EXISTS (SELECT FROM {} e WHERE e.row = s.{})").format(entry.errors, ROW)


def _key_of(entry: Loaded) -> list[Field]:
    """What tells a stored row afterwards: the entity's own key, which the file need not know."""
    return [entry.entity.column(c) for c in entry.entity.key]


def _found_by_key(entry: Loaded) -> sql.Composable:
    """The key is equal, said so that no hash or merge join can be made of it, which would lose the rows' order."""
    return all_of(
        *(
            sql.SQL("t.{0} {1} ANY (ARRAY[s.{0}])" if not f.base.startswith("_") else "t.{0} {1} s.{0}").format(
                sql.Identifier(f.column), sql.SQL(f.equality)
            )
            for f in entry.key
        )
    )


def _scanned(node: dict[str, Any]) -> set[str]:
    """The tables that a node of a plan reads."""
    found = {node["Relation Name"]} if "Relation Name" in node else set()
    return found.union(*(_scanned(below) for below in node.get("Plans", ())))
