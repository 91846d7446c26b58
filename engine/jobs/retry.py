"""Which failures go away by themselves, and how long to wait for that."""

from __future__ import annotations

import random
import uuid
from datetime import timedelta

import psycopg
import sqlalchemy.exc
import structlog

from engine.errors import DataOpsError, FailedPrecondition, InternalError, Unavailable

_CONFLICTS = {"40P01": "DEADLOCK", "40001": "SERIALIZATION_CONFLICT", "55P03": "LOCK_TIMEOUT"}
_GOING_DOWN = {"57P01", "57P02", "57P03", "57P05", "53300"}
"""Ended by an administrator, by a crash, not yet up again, idle too long, no connection left."""

_REFUSED = {
    "42501": ("RIGHT_MISSING", "the database: the service's role lacks a right it needs"),
    "53100": ("DISK_FULL", "the database: found no room left on its disk"),
    "53200": ("OUT_OF_MEMORY", "the database: found no memory left"),
    "57014": ("STATEMENT_TIMEOUT", "the database: a statement was ended by a time limit"),
}
"""What an operator must mend; trying again at once would only meet it again."""

log = structlog.get_logger(__name__)


def backoff(attempt: int) -> timedelta:
    """How long to wait after attempt `attempt` (from 1): 1, 2, 4 … 60 s, less up to a half so that none run in step."""
    return timedelta(seconds=min(60.0, 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0))  # noqa: S311 - no secret


def describe(error: Exception) -> DataOpsError:
    """The error as a job may keep it. `retryable` of the result decides whether another attempt follows.

    Drivers' texts can hold row values and addresses, so neither it nor the log has them (see engine/telemetry.py). An
    id leads from it to what the log has.
    """
    if isinstance(error, DataOpsError):
        return error
    driver = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    if isinstance(driver, psycopg.Error):
        if reason := _CONFLICTS.get(driver.sqlstate or ""):
            return Unavailable("the database: found a lock conflict with another session", reason=reason)
        if known := _REFUSED.get(driver.sqlstate or ""):
            log.warning("database_refused", reason=known[0], exc_info=error)
            return FailedPrecondition(known[1], reason=known[0])
        if is_connection_loss(driver):
            return Unavailable("the database: lost the connection", reason="DATABASE_LOST")
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        return Unavailable("the database: found no free connection in time", reason="DATABASE_BUSY")
    error_id = str(uuid.uuid4())
    log.error("job_defect", error_id=error_id, exc_info=error)
    return InternalError(f"internal error {error_id}", reason="INTERNAL", metadata={"error_id": error_id})


def is_connection_loss(error: psycopg.Error) -> bool:
    """Whether the session is gone, so that nothing is known of what it was doing."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state.startswith("08") or state in _GOING_DOWN
