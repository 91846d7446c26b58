"""A plan, loaded: the temp tables that apply writes from, a set for each entity, proven by the plan's digests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from engine.catalog import Entity, Field
from engine.db import binary
from engine.db.copy import write_copy
from engine.db.platform import Connection
from engine.errors import DataLoss, FailedPrecondition
from engine.imports.planfile import Plan
from engine.imports.sqltext import ROW, Temp, creation, equal, typed

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

PRINT = sql.Identifier("#print")
ROUND = sql.Identifier("#round")


@dataclass(frozen=True)
class Loaded:
    """One entity of a plan. The temp tables hold typed rows: `planned` new ones, `updates` new and old values,
    `stays` what is relied on and not written, `gone` whole rows."""

    number: int
    entity: Entity
    head: dict[str, Any]
    plan: Plan

    @property
    def planned(self) -> sql.Identifier:
        return Temp(f"planned_{self.number}")

    @property
    def updates(self) -> Temp:
        return Temp(f"updates_{self.number}")

    @property
    def stays(self) -> sql.Identifier:
        return Temp(f"stays_{self.number}")

    @property
    def gone(self) -> sql.Identifier:
        return Temp(f"gone_{self.number}")

    @property
    def errors(self) -> sql.Identifier:
        """What apply itself finds: rows that have moved, rows that the table refuses."""
        return Temp(f"late_{self.number}")

    def lookup(self, number: int) -> sql.Identifier:
        return Temp(f"lookup_{self.number}_{number}")

    @property
    def key(self) -> list[Field]:
        return [self.entity.column(c) for c in self.head["key"]]

    @property
    def columns(self) -> list[str]:
        """Of a new row."""
        return list(self.head["planned"])

    @property
    def touched(self) -> list[str]:
        return list(self.head["touched"])

    @property
    def settable(self) -> list[str]:
        """What an update writes: a key that the database always assigns is only a key."""
        return [c for c in self.touched if self.entity.column(c).identity != "ALWAYS"]

    @property
    def lock(self) -> str:
        return str(self.head["lock"]["mode"])

    @property
    def also_locked(self) -> list[tuple[str, str]]:
        """Other tables that are locked in the same mode, by schema and name."""
        return [(schema, table) for schema, table in self.head["lock"]["also"]]

    def rows(self, kind: str) -> int:
        """As planned."""
        return self.plan.rows(f"{self.number}.{kind}")

    def same_key(self, s: str = "s", t: str = "t") -> sql.Composable:
        return equal(self.key, s=s, t=t)

    def old(self, column: str) -> sql.Identifier:
        """The column of `updates` that holds what `column` had when it was planned."""
        return sql.Identifier(f"#o{self.touched.index(column)}")


def load(run: JobRun, connection: Connection, entries: list[Loaded], *, but: Loaded | None = None) -> None:
    """Makes and fills the temp tables, outside of the effect's transaction; that of the new rows of `but` is left to
    `load_new`.

    Raises:
        DataLoss: PLAN_DAMAGED.
        FailedPrecondition: ENTITY_NOT_IMPORTABLE for rows that have no room on a page twice, as old and new ones.
    """
    loading = _Loading(run, connection)
    for entry in entries:
        own = [_bigint(ROW), _bigint(PRINT)]
        if entry is not but:
            loading.new(entry)
        touched = [typed(entry.entity.column(c)) for c in entry.touched]
        updates = bool(entry.rows("UPDATE"))  # else a table may have more columns than stand twice in a line
        old = [typed(entry.entity.column(c), entry.old(c)) for c in entry.touched] if updates else []
        loading.fill(entry, entry.updates, "UPDATE", [*own, _bigint(ROUND), *touched, *old])
        key = [typed(f) for f in entry.key]
        loading.make(entry.stays, [*own, *key])
        for kind in ("UNCHANGED", "SKIP", "KEEP"):
            loading.copy(f"{entry.number}.{kind}", entry.plan, entry.stays)
        stored = [typed(f) for f in entry.entity.stored]
        loading.fill(entry, entry.gone, "DELETE", [*own, *stored])
        loading.make(entry.errors, [sql.SQL("row bigint, severity text, field text, code text, message text")])
        for table in (entry.updates, entry.stays, entry.gone):
            connection.execute(sql.SQL("ANALYZE {}").format(table))


def load_new(run: JobRun, connection: Connection, entry: Loaded) -> None:
    """The new rows of one entity, where they were to go without a temp table and cannot."""
    _Loading(run, connection).new(entry)


def load_lookup(run: JobRun, connection: Connection, entry: Loaded, number: int, fields: tuple[Field, Field]) -> None:
    """What was looked up and found: columns `text` and `found`."""
    loading, table = _Loading(run, connection), entry.lookup(number)
    columns = [typed(f, sql.Identifier(n)) for f, n in zip(fields, ("text", "found"), strict=True)]
    loading.fill(entry, table, f"LOOKUP{number}", [_bigint(ROW), *columns])
    connection.execute(sql.SQL("ANALYZE {}").format(table))


def load_cascade(run: JobRun, connection: Connection, plan: Plan, number: int, table: sql.Identifier) -> None:
    """The rows that foreign keys were planned to reach, into `table`."""
    _Loading(run, connection).copy(f"{number}.CASCADE", plan, table)
    connection.execute(sql.SQL("ANALYZE {}").format(table))


class _Loading:
    def __init__(self, run: JobRun, connection: Connection) -> None:
        self._run = run
        self._connection = connection
        self._done = 0

    def new(self, entry: Loaded) -> None:
        self.fill(
            entry, entry.planned, "INSERT", [_bigint(ROW), *(typed(entry.entity.column(c)) for c in entry.columns)]
        )

    def fill(self, entry: Loaded, table: sql.Identifier, kind: str, columns: list[sql.Composable]) -> None:
        self.make(table, columns)
        try:
            self.copy(f"{entry.number}.{kind}", entry.plan, table)
        except psycopg.errors.ProgramLimitExceeded:
            raise FailedPrecondition(
                f"{entry.entity.name}: found rows too wide to keep what is planned beside what is there; expected both"
                " to fit on a page of 8,160 bytes: import fewer columns at once",
                reason="ENTITY_NOT_IMPORTABLE",
            ) from None

    def make(self, table: sql.Identifier, columns: list[sql.Composable]) -> None:
        self._connection.execute(creation(table, columns))

    def copy(self, stream: str, plan: Plan, table: sql.Identifier) -> None:
        """One stream into one temp table. Its digest is proven at the end of `lines`, its count after."""
        expected = plan.rows(stream)
        if not expected:
            return
        statement = sql.SQL("COPY {} FROM STDIN").format(table)
        copied = copy_lines(self._connection, statement, plan.lines(stream), plan.types(stream), self._told)
        if copied != expected:
            raise DataLoss(f"plan: found {copied} rows in {stream}, expected {expected}", reason="PLAN_DAMAGED")

    def _told(self, rows: int) -> None:
        self._done += rows
        self._run.progress(rows=self._done)


def copy_lines(
    connection: Connection,
    statement: sql.Composed,
    parts: Iterator[tuple[bytes, int]],
    types: Sequence[str],
    told: Callable[[int], None],
) -> int:
    """Feeds a plan's lines, or its rows where it has `types`, to COPY … FROM STDIN; how many PostgreSQL took.

    Args:
        told: is told of each part's rows when they are on their way, and may raise.
    """
    with connection.cursor() as cursor:
        with cursor.copy(statement + sql.SQL(" (FORMAT binary)" if types else "")) as copy:
            if types:
                write_copy(copy, binary.HEADER)
            for lines, rows in parts:
                write_copy(copy, lines)
                told(rows)
            if types:
                write_copy(copy, binary.TRAILER)
        return cursor.rowcount


def _bigint(name: sql.Identifier) -> sql.Composed:
    return sql.SQL("{} bigint").format(name)
