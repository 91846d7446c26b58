"""Which lock apply takes on the table, decided by the plan and stated in it."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import psycopg
from psycopg import sql

from engine.catalog import Entity
from engine.db.platform import Connection, one_number
from engine.errors import Aborted, PlatformNotPrepared
from engine.imports.indexes import WORTH_ROWS, is_empty, removable_with_keys

WHOLE_TABLE_SHARE = 0.2
"""From a fifth of the rows on one lock that stops writers costs them less than row by row conflicts would."""

ROWS_PER_SECOND = 70_000
"""Of a plain INSERT of 1,000,000 users into a table of as many, with three indexes, on 2 cores: 13 to 15 s."""

COUNTED_ROWS = 5_000_000
"""Above it an estimate will do: nothing hangs on the number but the lock's choice and what the plan shows."""

ROW_EXCLUSIVE = "ROW EXCLUSIVE"
SHARE_ROW_EXCLUSIVE = "SHARE ROW EXCLUSIVE"
ACCESS_EXCLUSIVE = "ACCESS EXCLUSIVE"


@dataclass(frozen=True)
class LockChoice:
    """The lock's mode as PostgreSQL calls it, who waits for it, and for how long about."""

    mode: str
    blocks: str
    seconds: float
    also: tuple[tuple[str, str], ...] = ()
    """Other tables, by schema and name, that are locked in this mode too."""

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


def choose_lock(
    connection: Connection,
    entity: Entity,
    writes: int,
    rows: int,
    *,
    only_adds: bool = True,
    unique: Collection[str] = (),
) -> LockChoice:
    """By how much of the table is written. Readers go on, unless the table is empty and its indexes are built after,
    those named in `unique` too."""
    seconds = round(0.1 + writes / ROWS_PER_SECOND, 1)
    bulk = only_adds and writes >= WORTH_ROWS and is_empty(connection, entity)
    indexes, keys = removable_with_keys(connection, entity, unique) if bulk else ([], [])
    if indexes:
        also = tuple(sorted({(key.schema, key.table) for key in keys}))
        who = "everybody who uses the table, which is empty" + (", or one that refers to it" if also else "")
        return LockChoice(ACCESS_EXCLUSIVE, who, round(seconds / 2, 1), also)
    if writes > WHOLE_TABLE_SHARE * rows:
        return LockChoice(SHARE_ROW_EXCLUSIVE, "other writers of the table", seconds)
    return LockChoice(ROW_EXCLUSIVE, "writers of the same keys", seconds)


def rows_there(connection: Connection, entity: Entity) -> int:
    """How many rows the table has; where statistics say that counting would take seconds, about how many."""
    if entity.estimated_rows > COUNTED_ROWS:
        return entity.estimated_rows
    return one_number(connection, sql.SQL("SELECT count(*) FROM {}").format(entity.relation))


def _text(connection: Connection, entity: Entity) -> str:
    return entity.qualified.as_string(connection)


LOCK_SECONDS = 60.0
"""How long apply tries for its lock before the attempt ends; each try waits the session's lock_timeout (3 s), so that
those who queue behind it wait no longer than that."""


Wanted = tuple[Entity, str]
"""A table and the mode its lock is wanted in."""


class Waiting(Protocol):
    """Who waits for locks: a job's run."""

    def check(self) -> None: ...
    def hold(self, connection: Connection) -> None: ...
    def notice(self, code: str, message: str) -> None: ...


def wait_for_locks(run: Waiting, connection: Connection, wanted: Sequence[Wanted]) -> None:
    """Begins the effect's transaction: the fence, then the locks, all or none of them. Says who blocks, each time it
    does not get one.

    Raises:
        Aborted: PLAN_STALE when there is no such table any more.
        PlatformNotPrepared: RIGHTS_MISSING, with the SQL that gives them.
        psycopg.errors.LockNotAvailable: after LOCK_SECONDS; the job tries again later.
    """
    deadline, pause = time.monotonic() + LOCK_SECONDS, 0.2
    while (blocked := _lock(run, connection, wanted)) is not None:
        entity, mode = blocked
        if time.monotonic() > deadline:
            raise psycopg.errors.LockNotAvailable(f"{mode} on {entity.name} not had in {LOCK_SECONDS:.0f} s")
        by = _holders(connection, entity, mode)
        connection.rollback()
        run.notice("LOCK_WAITING", f"waiting for {mode} on {entity.name}, held by {by}")
        until = time.monotonic() + pause
        while time.monotonic() < until:
            run.check()
            time.sleep(0.1)
        pause = min(pause * 2, 5.0)


def _lock(run: Waiting, connection: Connection, wanted: Sequence[Wanted]) -> Wanted | None:
    """One try: None when all locks are held, else the one that was not to be had; then the transaction is over."""
    run.hold(connection)
    for entity, mode in sorted(wanted, key=lambda w: (w[0].schema, w[0].table)):
        try:
            connection.execute(sql.SQL("LOCK TABLE {} IN {} MODE").format(entity.relation, sql.SQL(mode)))
        except psycopg.errors.UndefinedTable:
            raise Aborted(f"{entity.name}: it has gone since the plan", reason="PLAN_STALE") from None
        except psycopg.errors.InsufficientPrivilege:
            connection.rollback()
            raise _rights_missing(connection, entity) from None
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            # of a deadlock too: with the rollback the others go on, and then so do we
            connection.rollback()
            return entity, mode
    return None


def _rights_missing(connection: Connection, entity: Entity) -> PlatformNotPrepared:
    row = connection.execute("SELECT quote_ident(current_user)").fetchone()
    grant = f"GRANT SELECT, INSERT, UPDATE, DELETE ON {_text(connection, entity)} TO {row[0] if row else ''};"
    connection.rollback()
    return PlatformNotPrepared(
        f"{entity.name}: found no right to write it; let its owner run: {grant}",
        reason="RIGHTS_MISSING",
        metadata={"sql": grant},
    )


def _holders(connection: Connection, entity: Entity, mode: str) -> str:
    """Who is in the way: readers are only where all locks are."""
    row = connection.execute(
        "SELECT string_agg(DISTINCT format('%%s (pid %%s)', coalesce(nullif(a.application_name, ''), 'a session'),"
        " a.pid), ', ') FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE l.relation = %s::regclass AND l.granted AND l.pid <> pg_backend_pid()"
        " AND (%s OR l.mode <> 'AccessShareLock')",
        (_text(connection, entity), mode == ACCESS_EXCLUSIVE),
    ).fetchone()
    return (row[0] if row else None) or "a session that has just let go"
