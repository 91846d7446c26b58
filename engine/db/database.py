"""The control database: one engine per process, short transactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

CONTROL_SETTINGS = {
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
    "client_connection_check_interval": "2s",
    "timezone": "UTC",
}
"""Control transactions are milliseconds long; whatever takes longer is a fault that must end by itself."""


class Database:
    """The control schema's handle. `transaction()`, the only way to a session, commits at its end or rolls back."""

    def __init__(self, dsn: str, *, pool_size: int = 8, application_name: str = "dataops") -> None:
        self.dsn = dsn
        self.engine: Engine = create_engine(
            sqlalchemy_url(dsn),
            pool_size=pool_size,
            max_overflow=2,
            pool_timeout=10,
            pool_pre_ping=True,
            connect_args={
                "application_name": application_name,
                "connect_timeout": 10,
                "options": " ".join(f"-c {name}={value}" for name, value in CONTROL_SETTINGS.items()),
                "prepare_threshold": None,
            },
        )
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One READ COMMITTED transaction; objects stay readable after it."""
        with self._sessions.begin() as session:
            yield session

    def close(self) -> None:
        self.engine.dispose()


def sqlalchemy_url(dsn: str) -> str:
    """A libpq URI (`postgresql://…`) as SQLAlchemy wants it: with the driver's name."""
    url = make_url(dsn)
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def libpq_dsn(dsn: str) -> str:
    """The same address for psycopg itself."""
    return make_url(dsn).set(drivername="postgresql").render_as_string(hide_password=False)


__all__ = ["Database", "libpq_dsn", "sqlalchemy_url"]
