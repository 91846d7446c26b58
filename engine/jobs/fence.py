"""The fence: what lets a job's effect in the platform database happen once, whoever else still believes to run it.

It lives where the effect is, in one row per job: `dataops_work.applied(job_id, fence, backend_pid, backend_start,
state, facts)`.

1. `announce`, a transaction of its own: job, fence, and which backend will do it; so a take-over can see whom to end.
2. `hold`, in the transaction that changes rows: takes the row FOR UPDATE and checks the fence.
3. `mark`, its last statement: DONE, with facts enough to write the report.

`raise_fence` is the take-over: it writes a higher fence. If the row is held, an older attempt is in its effect: that
backend (pid and start time, a pid alone may be someone else's by now) is terminated, and only when it is gone is the
mark read. Seen: after kill -9 of a client its backend held its locks for over 40 s. A lost COMMIT reply and a cancel
during COMMIT are decided in the same way: by the mark, read behind the lock.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog
from psycopg import sql
from psycopg.types.json import Jsonb

from engine.db.platform import Connection
from engine.errors import InternalError, PlatformNotPrepared, Unavailable
from engine.jobs.interrupts import LeaseLost

WORK_SCHEMA_SQL = """\
CREATE SCHEMA IF NOT EXISTS dataops_work;
CREATE TABLE IF NOT EXISTS dataops_work.applied (
    job_id uuid PRIMARY KEY,
    fence bigint NOT NULL,
    backend_pid integer,
    backend_start timestamptz,
    state text NOT NULL CHECK (state IN ('ANNOUNCED', 'DONE')),
    facts jsonb NOT NULL DEFAULT '{}',
    changed_at timestamptz NOT NULL DEFAULT now()
);
"""
"""All that is ever made in a platform database. Run by an owner, it needs `GRANT` lines of `grant_sql` for our role."""

TABLE_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
"""What our role needs on that table; DELETE to thin out what is long done."""

LOCK_WAIT = "300ms"
"""How long a take-over waits for the row before it looks who holds it: far longer than an announce takes."""

TAKE_OVER_SECONDS = 15.0
"""A terminated backend is gone in milliseconds; one that still writes out its COMMIT may need seconds."""

PREPARE_LOCK = 0x64617461_77726B
"""Advisory lock ("datawrk"): two workers that make the schema at once would meet in a unique violation."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Mark:
    """A committed effect: the facts it left, and under which fence."""

    fence: int
    facts: dict[str, Any]
    state: str = "DONE"


def ensure_work_schema(connection: Connection) -> bool:
    """Make sure the work schema is there and usable; returns whether it was made now. `connection` is in autocommit.

    Raises:
        PlatformNotPrepared: PLATFORM_NOT_PREPARED, with the SQL that somebody with the right must run.
    """
    if usable(connection):
        return False
    try:
        with connection.transaction():
            connection.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", (PREPARE_LOCK,))
            connection.execute(WORK_SCHEMA_SQL.encode())
    except psycopg.errors.InsufficientPrivilege:
        raise _not_prepared(connection) from None
    if not usable(connection):
        raise _not_prepared(connection)
    return True


def grant_sql(role: str) -> str:
    """The rights our role needs if somebody else owns the work schema."""
    name = _quoted(role)
    return (
        f"GRANT USAGE ON SCHEMA dataops_work TO {name};\n"
        f"GRANT {', '.join(TABLE_RIGHTS)} ON dataops_work.applied TO {name};\n"
    )


def prepare_sql(role: str) -> str:
    """All that somebody with the right must run so that `role` can use the work schema; it may be run again."""
    return WORK_SCHEMA_SQL + grant_sql(role)


def temporary_sql(database: str, role: str) -> str:
    """The right to temporary tables, which imports are planned in. Everybody has it unless somebody took it away."""
    return f"GRANT TEMPORARY ON DATABASE {_quoted(database)} TO {_quoted(role)};\n"


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()


def usable(connection: Connection) -> bool:
    """Whether the work schema is there and the session's role may use it."""
    row = connection.execute(
        "SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE')"
        " AND pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(c.oid, 'INSERT')"
        " AND pg_catalog.has_table_privilege(c.oid, 'UPDATE')"
        " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'dataops_work' AND c.relname = 'applied'"
    ).fetchone()
    return row is not None and bool(row[0])


def announce(connection: Connection, job_id: uuid.UUID, fence: int) -> None:
    """Step 1, on the connection that will have the effect; it must be idle. One statement, so it cannot stop half-way.

    Raises:
        LeaseLost: a higher fence stands there.
    """
    was = connection.autocommit
    connection.autocommit = True
    try:
        row = connection.execute(
            "INSERT INTO dataops_work.applied AS a (job_id, fence, backend_pid, backend_start, state)"
            " SELECT %s, %s, s.pid, s.backend_start, 'ANNOUNCED'"
            " FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) s"
            " ON CONFLICT (job_id) DO UPDATE SET fence = excluded.fence, backend_pid = excluded.backend_pid,"
            " backend_start = excluded.backend_start, changed_at = pg_catalog.now()"
            " WHERE a.fence <= excluded.fence RETURNING 1",
            (job_id, fence),
        ).fetchone()
    finally:
        connection.autocommit = was
    if row is None:
        raise LeaseLost


def hold(connection: Connection, job_id: uuid.UUID, fence: int) -> None:
    """Step 2, inside the transaction that changes rows, before it changes any.

    Raises:
        LeaseLost: the fence was raised, or another session announced itself for this job.
        InternalError: the effect is committed already; a handler that asks `take_over` first never gets here.
    """
    row = connection.execute(
        "SELECT fence, backend_pid = pg_catalog.pg_backend_pid(), state FROM dataops_work.applied"
        " WHERE job_id = %s FOR UPDATE",
        (job_id,),
    ).fetchone()
    if row is None or row[0] != fence or not row[1]:
        raise LeaseLost
    if row[2] == "DONE":
        raise InternalError("job: found its effect committed, expected none")


def mark(connection: Connection, job_id: uuid.UUID, fence: int, facts: dict[str, Any]) -> None:
    """Step 3, the last statement before COMMIT.

    Raises:
        LeaseLost: the row is not ours; the transaction must be rolled back.
    """
    done = connection.execute(
        "UPDATE dataops_work.applied SET state = 'DONE', facts = %s, changed_at = pg_catalog.now()"
        " WHERE job_id = %s AND fence = %s AND state = 'ANNOUNCED'",
        (Jsonb(facts), job_id, fence),
    )
    if done.rowcount != 1:
        raise LeaseLost


def raise_fence(connection: Connection, job_id: uuid.UUID, fence: int) -> Mark | None:
    """The take-over: from here on nobody with a lower fence can commit an effect; returns the mark if one stands.

    `connection` is in autocommit, on a session of its own. Takes milliseconds when nobody holds the row.

    Raises:
        LeaseLost: a higher fence stands there: we are the older one.
        Unavailable: FENCE_HELD when the holder cannot be made to go within 15 s.
    """
    connection.execute("SELECT pg_catalog.set_config('lock_timeout', %s, false)", (LOCK_WAIT,))
    deadline = time.monotonic() + TAKE_OVER_SECONDS
    while True:
        try:
            return _raise_once(connection, job_id, fence)
        except psycopg.errors.LockNotAvailable:
            if time.monotonic() > deadline:
                raise Unavailable("the fence: its row is still held", reason="FENCE_HELD") from None
            _end_holder(connection, job_id)


def _raise_once(connection: Connection, job_id: uuid.UUID, fence: int) -> Mark | None:
    row = connection.execute(
        "INSERT INTO dataops_work.applied AS a (job_id, fence, state) VALUES (%s, %s, 'ANNOUNCED')"
        " ON CONFLICT (job_id) DO UPDATE SET fence = excluded.fence, changed_at = pg_catalog.now()"
        " WHERE a.fence <= excluded.fence RETURNING state, facts",
        (job_id, fence),
    ).fetchone()
    if row is None:
        raise LeaseLost
    return Mark(fence, row[1]) if row[0] == "DONE" else None


def _end_holder(connection: Connection, job_id: uuid.UUID) -> None:
    """End the announced backend and wait until it is gone. Whoever else holds the row is only waited for."""
    row = connection.execute(
        "SELECT s.pid, pg_catalog.pg_terminate_backend(s.pid, 5000)"
        " FROM dataops_work.applied a JOIN pg_catalog.pg_stat_activity s"
        " ON s.pid = a.backend_pid AND s.backend_start = a.backend_start"
        " WHERE a.job_id = %s AND s.pid <> pg_catalog.pg_backend_pid()",
        (job_id,),
    ).fetchone()
    if row is not None:
        log.warning("take_over_terminated", job_id=str(job_id), backend_pid=row[0], gone=row[1])


def _not_prepared(connection: Connection) -> PlatformNotPrepared:
    role = connection.execute("SELECT current_user").fetchone()
    wanted = prepare_sql(str(role[0]) if role else "dataops")
    return PlatformNotPrepared(
        f"platform database: found no usable schema dataops_work; let its owner run:\n{wanted}",
        reason="PLATFORM_NOT_PREPARED",
        metadata={"sql": wanted},
    )
