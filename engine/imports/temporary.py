"""What keeps us from making temp tables, told in the platform's own terms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from engine.db.platform import Connection
from engine.errors import PlatformNotPrepared
from engine.imports.refusals import is_refusal
from engine.jobs.fence import temporary_sql


@contextmanager
def temp_tables(connection: Connection) -> Iterator[None]:
    """What keeps us from making temp tables is the platform's to change: a missing right, or an event trigger.

    Raises:
        PlatformNotPrepared: PLATFORM_NOT_PREPARED.
    """
    try:
        yield
    except psycopg.Error as error:
        if not (isinstance(error, psycopg.errors.InsufficientPrivilege) or is_refusal(error)):
            raise
        grant = temporary_sql(connection.info.dbname, connection.info.user)
        raise PlatformNotPrepared(
            f"platform database: it let us make no temporary tables (SQLSTATE {error.sqlstate}); they take the right"
            f" to ({grant.strip()}), the right to use the types of the columns, transactions that may write and no"
            " event trigger that refuses them; `dataops-admin doctor` says which it is",
            reason="PLATFORM_NOT_PREPARED",
            metadata={"sql": grant},
        ) from None
