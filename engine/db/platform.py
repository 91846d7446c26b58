"""The platform database: every session to it is opened here, pinned alike.

The settings make text forms reproducible (fingerprints are made of them) and failures loud (`row_security off` turns a
silently filtered read into an error). A transaction-pooling PgBouncer would spread one session over many backends, so
it is recognised and refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import sql

from engine.db.database import libpq_dsn
from engine.errors import FailedPrecondition, Unavailable

Connection = psycopg.Connection[tuple[Any, ...]]

SESSION_SETTINGS = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "search_path": "pg_catalog",
    "lc_monetary": "C",
    "row_security": "off",
    "synchronize_seqscans": "off",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "client_connection_check_interval": "2s",
    "lock_timeout": "3s",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "10min",
    "idle_session_timeout": "0",
    "work_mem": "64MB",
    "temp_buffers": "32MB",
}
"""A killed client's backend held its table lock over 40 s; with the connection check it is gone within 2 s."""

SETTINGS_SINCE = {170000: {"transaction_timeout": "0"}}
"""Those that older servers do not know. Where a platform ends its own long transactions, an apply is one of them."""

MIN_VERSION = 160000


def one_row(connection: Connection, query: sql.Composed) -> tuple[Any, ...]:
    """The row of a query that always gives one, as an aggregate does."""
    row = connection.execute(query).fetchone()
    assert row is not None, "an aggregate without GROUP BY gives a row"
    return row


def one_number(connection: Connection, query: sql.Composed) -> int:
    """The number that such a query gives."""
    return int(one_row(connection, query)[0])


class Platform:
    """Opens pinned sessions to the platform database."""

    def __init__(self, dsn: str) -> None:
        self.dsn = libpq_dsn(dsn)

    @contextmanager
    def connect(self, purpose: str, *, autocommit: bool = False, **settings: str) -> Iterator[Connection]:
        """A session named `dataops: <purpose>`; `settings` override the pinned ones. Rolled back and closed at the end.

        Raises:
            Unavailable: PLATFORM_UNREACHABLE when no session can be had now.
            FailedPrecondition: PLATFORM_TOO_OLD or POOLER_REFUSED.
        """
        connection = self._open(purpose, settings)
        try:
            connection.autocommit = autocommit
            yield connection
        finally:
            with suppress(psycopg.Error):
                connection.close()

    def _open(self, purpose: str, settings: dict[str, str]) -> Connection:
        try:
            connection = psycopg.connect(
                self.dsn,
                autocommit=True,
                application_name=f"dataops: {purpose}",
                connect_timeout=10,
                keepalives_idle=30,
                keepalives_interval=10,
                keepalives_count=3,
                prepare_threshold=None,
            )
        except psycopg.OperationalError:
            raise Unavailable("platform database: cannot open a session", reason="PLATFORM_UNREACHABLE") from None
        try:
            self._pin(connection, SESSION_SETTINGS | settings)
        except BaseException:
            connection.close()
            raise
        return connection

    def _pin(self, connection: Connection, settings: dict[str, str]) -> None:
        version = connection.info.server_version
        if version < MIN_VERSION:
            raise FailedPrecondition(
                f"platform database: found PostgreSQL {version // 10000}, expected 16 or newer",
                reason="PLATFORM_TOO_OLD",
            )
        for since, more in SETTINGS_SINCE.items():
            settings = (more if version >= since else {}) | settings
        names, values = list(settings), list(settings.values())
        query = "SELECT pg_catalog.pg_backend_pid(), " + ", ".join(
            ["pg_catalog.set_config(%s, %s, false)"] * len(names)
        )
        arguments = [item for pair in zip(names, values, strict=True) for item in pair]
        row = connection.execute(query, arguments).fetchone()
        # A pooler answers the start-up itself with a key of its own making; PostgreSQL's own names the backend.
        if row is None or row[0] != connection.info.backend_pid:
            raise FailedPrecondition(
                "platform database: found a connection pooler between us, expected a direct connection",
                reason="POOLER_REFUSED",
            )
