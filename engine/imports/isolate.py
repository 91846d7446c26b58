"""Rows that a trigger or constraint refuses only when they are written, found and left out.

Tried in chunks under savepoints, each halved until the rows that are refused stand alone. Bisecting 100,000 rows with
100 bad ones took 27 times as long as writing them, so at most 200 are borne.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from engine.catalog import ForeignKey
from engine.db.platform import Connection, one_row
from engine.errors import DataOpsError, FailedPrecondition
from engine.imports.effect import Effect, Part
from engine.imports.loaded import ROUND, Loaded
from engine.imports.refusals import is_refusal, refused_by
from engine.imports.sqltext import ROW, Temp, all_of, equal, joined

CHUNK = 2_000
MOST_REFUSED = 200

PARENT_SKIPPED = "PARENT_SKIPPED"
REFUSED = "REFUSED_AT_APPLY"


@dataclass(frozen=True)
class _Left:
    """Rows low to high, before high, of a part's order that were not written, and why."""

    number: int
    part: Part
    table: Temp
    low: int
    high: int
    error: str | psycopg.Error


class Isolation:
    """Writes the parts of a plan row by row where it must; the refused rows end in the entities' `errors`."""

    def __init__(
        self,
        connection: Connection,
        effect: Effect,
        entries: Sequence[Loaded],
        *,
        stale: Callable[[Loaded, psycopg.Error], DataOpsError | None],
        check: Callable[[], None],
    ) -> None:
        """Args:
        stale: what to raise for an error that only says that the plan's grounds have moved; None for a refusal.
        """
        self._connection = connection
        self._effect = effect
        self._entries = entries
        self._stale = stale
        self._check = check
        self._left: list[_Left] = []
        self._indexed: list[sql.Identifier] = []
        self._said = 0

    def write(self, parts: Sequence[Part]) -> list[int]:
        """Rows that each part wrote. What is refused before the others are in is tried again when they are.

        Raises:
            FailedPrecondition: ROW_REFUSED for more than 200 refused rows, or a delete that is refused.
        """
        counts = [0] * len(parts)
        late: list[tuple[int, Part, sql.Composable]] = []
        for number, part in enumerate(parts):
            refers = self._refers_to_new(part.entry) if part.verb == "UPDATE" else None
            if part.verb == "DELETE":
                counts[number] = self._whole(number, part)
            elif refers is None:
                counts[number] = self._in_chunks(number, part)
            else:
                counts[number] = self._in_chunks(number, part, sql.SQL("NOT ") + refers)
                late.append((number, part, refers))
        for number, part, refers in late:
            counts[number] += self._in_chunks(number, part, refers, "_late")
        while self._left and (self._again(counts) or self._together(counts)):
            self._check()
        self._leave_out()
        return counts

    def _whole(self, number: int, part: Part) -> int:
        table, total = self._order(part)
        if self._try(part, table, 0, total) is None:
            return total
        self._left.append(_Left(number, part, table, 0, total, ""))  # what refers to it may be updated yet
        return 0

    def _in_chunks(self, number: int, part: Part, which: sql.Composable | None = None, name: str = "") -> int:
        table, total = self._order(part, which, name)
        written = 0
        pending = deque((at, min(at + CHUNK, total)) for at in range(0, total, CHUNK))
        while pending:
            self._check()
            low, high = pending.popleft()
            error = self._try(part, table, low, high)
            if error is None:
                written += high - low
            elif high - low == 1:
                self._left.append(_Left(number, part, table, low, high, error))
                self._require_few(part)
            else:
                middle = (low + high) // 2
                pending.extendleft([(middle, high), (low, middle)])
        return written

    def _require_few(self, part: Part) -> None:
        if len(self._left) > MOST_REFUSED:
            raise FailedPrecondition(
                f"{part.entry.entity.name}: found more than {MOST_REFUSED} rows that the table refuses; nothing was"
                " changed",
                reason="ROW_REFUSED",
            )

    def _again(self, counts: list[int]) -> bool:
        """Whether any of what was left out is in now."""
        left, self._left = self._left, []
        for one in left:
            error = self._try(one.part, one.table, one.low, one.high)
            if error is None:
                counts[one.number] += one.high - one.low
            else:
                self._left.append(replace(one, error=error))
        return len(self._left) < len(left)

    def _together(self, counts: list[int]) -> bool:
        """Rows of one part that refer to each other in a circle are in all at once or not at all; whether any are."""
        by_part: dict[tuple[int, str], list[_Left]] = {}
        for one in self._left:
            if isinstance(one.error, psycopg.errors.ForeignKeyViolation):
                by_part.setdefault((one.number, one.table.name), []).append(one)
        for ones in by_part.values():
            rows = sql.SQL('o."#at" = ANY({})').format(sql.Literal([one.low for one in ones]))
            if len(ones) > 1 and self._try_rows(ones[0].part, ones[0].table, rows, len(ones)) is None:
                counts[ones[0].number] += len(ones)
                self._left = [one for one in self._left if one not in ones]
                return True
        return False

    def _try(self, part: Part, order: sql.Identifier, low: int, high: int) -> str | psycopg.Error | None:
        """Writes rows low to high of the order. None if all are in, else why not, and then none is."""
        rows = sql.SQL('o."#at" >= {} AND o."#at" < {}').format(sql.Literal(low), sql.Literal(high))
        return self._try_rows(part, order, rows, high - low)

    def _try_rows(
        self, part: Part, order: sql.Identifier, rows: sql.Composable, expected: int
    ) -> str | psycopg.Error | None:
        among = sql.SQL("s.{} IN (SELECT o.{} FROM {} o WHERE {})").format(ROW, ROW, order, rows)
        try:
            with self._connection.transaction() as scope:
                found = self._effect.write([part], among)[0]
                self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                if found != expected:
                    raise psycopg.Rollback(scope)
                return None
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            return error
        return "a trigger refused it"

    def _leave_out(self) -> None:
        """Says of every row that is not in why. Those that refer to others come last, it may be for them; before them
        those that want a value of a row that may be among the others."""
        for one in sorted(self._left, key=self._may_follow):
            entry, error = one.part.entry, one.error
            if one.part.verb == "DELETE":
                raise _delete_refused(entry, error)
            code, message = REFUSED, f"{error}"
            if isinstance(error, psycopg.Error):
                message = refused_by(entry.entity, error, error.diag.constraint_name or "", "it")
                if isinstance(error, psycopg.errors.ForeignKeyViolation) and self._parent_left_out(one):
                    code, message = PARENT_SKIPPED, "the row of the file that it refers to was left out"
                elif not self._said and (moved := self._stale(entry, error)) is not None:
                    raise moved from None  # nothing was left out that could be the cause
            self._said += 1
            self._connection.execute(
                sql.SQL(
                    "INSERT INTO {} SELECT o.{}, 'FAILED', '', {}, {} FROM {} o WHERE o.\"#at\" = {}"
                ).format(entry.errors, ROW, sql.Literal(code), sql.Literal(message), one.table, sql.Literal(one.low))
            )  # fmt: skip

    def _may_follow(self, one: _Left) -> tuple[bool, bool]:
        """Whether it may be out only because others are: by a reference, by a value that one of them would free."""
        error = one.error
        refers = isinstance(error, psycopg.errors.ForeignKeyViolation)
        return refers, isinstance(error, psycopg.Error) and self._stale(one.part.entry, error) is not None

    def _order(self, part: Part, which: sql.Composable | None = None, name: str = "") -> tuple[Temp, int]:
        """The part's rows, numbered from 0 in an order in which parents come before those that refer to them.

        Args:
            which: a condition on the rows `s`; `name` then tells this order from the part's other one.
        """
        entry = part.entry
        table = Temp(f"order_{entry.number}_{part.verb.lower()}{name}")
        depths = self._depths(entry) if part.verb == "INSERT" else None
        depth = sql.SQL("LEFT JOIN ({}) d (row, depth) ON d.row = s.{}").format(depths, ROW) if depths else sql.SQL("")
        by: sql.Composable = sql.SQL("coalesce(d.depth, 0), ") if depths else sql.SQL("")
        if part.verb == "UPDATE":
            by = sql.SQL("s.{}, ").format(ROUND)
        total = self._connection.execute(
            sql.SQL(
                'CREATE TEMP TABLE {} AS SELECT s.{}, (row_number() OVER (ORDER BY {}s.{}) - 1) AS "#at" '
                "FROM {} s {} WHERE {}"
            ).format(table, ROW, by, ROW, part.source, depth, all_of(which))
        ).rowcount
        self._connection.execute(sql.SQL('CREATE INDEX ON {} ("#at")').format(table))
        self._connection.execute(sql.SQL("ANALYZE {}").format(table))
        self._index_once(part.source)
        return table, total

    def _index_once(self, source: sql.Identifier) -> None:
        """A part may have two orders over the same rows."""
        if source not in self._indexed:
            self._indexed.append(source)
            self._connection.execute(sql.SQL("CREATE INDEX ON {} ({})").format(source, ROW))
            self._connection.execute(sql.SQL("ANALYZE {}").format(source))

    def _depths(self, entry: Loaded) -> sql.Composed | None:
        """How many rows of the file stand above each new row; None where none refers to another."""
        entity = entry.entity
        own = [
            r for r in entity.references
            if (r.target_schema, r.target_table) == (entity.schema, entity.table)
            and all(c in entry.columns for c in (*r.columns, *r.target_columns))
        ]  # fmt: skip
        if not own:
            return None
        same = equal([entity.column(c) for c in own[0].columns], own[0].target_columns)
        return sql.SQL(
            "WITH RECURSIVE below (row, depth) AS (SELECT s.{row}, 0 FROM {table} s WHERE NOT EXISTS "
            "(SELECT FROM {table} t WHERE {same}) UNION ALL SELECT s.{row}, b.depth + 1 FROM below b "
            "JOIN {table} t ON t.{row} = b.row JOIN {table} s ON {same} WHERE s.{row} <> t.{row}) "
            "SELECT row, depth FROM below"
        ).format(row=ROW, table=entry.planned, same=same)

    def _refers_to_new(self, entry: Loaded) -> sql.Composable | None:
        """Which updates `s` refer to a new row of the plan, and so must come after it; None where none can."""
        found = [
            sql.SQL("EXISTS (SELECT FROM {} q WHERE {})").format(
                parent.planned, equal([entry.entity.column(c) for c in r.columns], r.target_columns, t="q")
            )
            for r, parent in self._planned_targets(entry, entry.touched)
        ]
        return sql.SQL("({})").format(joined(found, " OR ")) if found else None

    def _parent_left_out(self, one: _Left) -> bool:
        part, entry = one.part, one.part.entry
        for reference, parent in self._planned_targets(entry, part.columns):
            same = equal([entry.entity.column(c) for c in reference.columns], reference.target_columns)
            (left_out,) = one_row(
                self._connection,
                sql.SQL(
                    'SELECT EXISTS (SELECT FROM {} o JOIN {} s ON s.{} = o.{} AND o."#at" = {} JOIN {} t ON {} '
                    "JOIN {} e ON e.row = t.{})"
                ).format(
                    one.table, part.source, ROW, ROW, sql.Literal(one.low), parent.planned, same, parent.errors, ROW
                ),
            )
            if left_out:
                return True
        return False

    def _planned_targets(self, entry: Loaded, known: Sequence[str]) -> Iterator[tuple[ForeignKey, Loaded]]:
        """Foreign keys over `known` columns, each with an entity whose new rows may be its target."""
        for reference in entry.entity.references:
            for parent in self._entries:
                target = (parent.entity.schema, parent.entity.table)
                if (reference.target_schema, reference.target_table) != target or not parent.rows("INSERT"):
                    continue
                if set(reference.columns) <= set(known) and set(reference.target_columns) <= set(parent.columns):
                    yield reference, parent


def _delete_refused(entry: Loaded, error: str | psycopg.Error) -> FailedPrecondition:
    diag = error.diag if isinstance(error, psycopg.Error) else None
    return FailedPrecondition(
        f"{entry.entity.name}: the table refused to delete planned rows; nothing was changed",
        reason="ROW_REFUSED",
        metadata={
            "constraint": (diag.constraint_name if diag else "") or "",
            "sqlstate": (diag.sqlstate if diag else "") or "",
        },
    )
