"""Whether the platform database can be worked with at all: it answers, its version is known, nobody stands between.

A transaction pooler lends each transaction whichever server session is free. What we set for a session, and the temp
tables of a plan, would then be another's. It is told by three signs: the start-up names another backend than the one
that answers (poolers make keys of their own), a second session gets the very backend of the first, or a session's
backend or setting changes while another one is in a transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg

from engine.admin.doctor.finding import OPERATIONS, Finding, Severity
from engine.db.database import libpq_dsn
from engine.db.platform import MIN_VERSION

NEWEST_TESTED = 18
CONNECT_SECONDS = 10
MARK = "dataops.doctor"
"""A setting of ours alone, which no server knows until a session sets it."""

STATEMENTS = 3
"""A pooler that takes its server sessions in turn gives another one to some of them; most give the last one again."""

_WHY = (
    ("password authentication failed", "the password is refused"),
    ("no password supplied", "a password is wanted, and none given"),
    ("does not exist", "the role or database does not exist"),
    ("no pg_hba.conf entry", "the server's pg_hba.conf lets nobody in from here as this role"),
    ("permission denied for database", "the role lacks CONNECT on the database"),
    ("too many connections", "no connection is left"),
    ("remaining connection slots", "no connection is left"),
    ("Connection refused", "nobody listens at that address"),
    ("could not translate host name", "the host's name is unknown"),
    ("timeout expired", f"no answer within {CONNECT_SECONDS} s"),
    ("certificate", "TLS cannot be agreed on"),
    ("SSL", "TLS cannot be agreed on"),
    ("starting up", "the server is starting up"),
    ("shutting down", "the server is shutting down"),
)
"""Words in libpq's texts, which are not shown: they hold addresses. The first that fits counts."""

Session = psycopg.Connection[tuple[Any, ...]]


def check_reach(dsn: str) -> Iterator[Finding]:
    """ERROR when no work can be done; then nothing else of the database can be looked at."""
    with ExitStack() as opened:
        try:
            first, second = (opened.enter_context(_session(dsn)) for _ in range(2))
        except psycopg.Error as error:
            yield _cannot("connection", "platform database", f"no session: {_why(error)}")
            return
        subject, version = first.info.dbname, first.info.server_version
        name = f"PostgreSQL {version // 10000}.{version % 10000}"
        if version < MIN_VERSION:
            yield _cannot("server_version", subject, f"{name}; expected 16 to {NEWEST_TESTED}")
            return
        if version // 10000 > NEWEST_TESTED:
            means = f"newer than what this release was tested on, which is 16 to {NEWEST_TESTED}"
            yield Finding("server_version", Severity.WARNING, subject, name, means)
        else:
            yield Finding("server_version", Severity.OK, subject, name, "supported")
        try:
            pooled = _pooled(first, second)
        except psycopg.Error as error:
            pooled = f"a session that was ended after {error.sqlstate or 'its first statement'}"
        if pooled:
            yield _cannot("pooler", subject, pooled, "; name the database server itself in DATAOPS_PLATFORM_DSN")
        else:
            yield Finding("pooler", Severity.OK, subject, "a direct connection", "sessions keep their backend")


def _session(dsn: str) -> Session:
    return psycopg.connect(
        libpq_dsn(dsn),
        autocommit=True,
        application_name="dataops: doctor",
        connect_timeout=CONNECT_SECONDS,
        prepare_threshold=None,
        client_encoding="UTF8",  # of a database in SQL_ASCII texts would come as bytes
    )


def _pooled(first: Session, second: Session) -> str:
    """How a pooler shows itself; empty where none does."""
    backend, _ = _row(first, f"SELECT pg_catalog.pg_backend_pid(), pg_catalog.set_config('{MARK}', 'first', false)")
    if backend != first.info.backend_pid:
        return "a connection pooler, which answers in the server's place"
    if any(_row(first, _WHO) != (backend, "first") for _ in range(STATEMENTS)):
        return "a transaction pooler: a session's backend changes between statements"
    with second.transaction():  # takes the backend that a pooler believes to be free
        other, mark = _row(second, _WHO)
        kept = _row(first, _WHO) == (backend, "first")
    return "" if kept and other != backend and mark != "first" else "a transaction pooler: sessions share a backend"


_WHO = f"SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('{MARK}', true)"


def _row(session: Session, query: str) -> tuple[Any, ...]:
    row = session.execute(query.encode()).fetchone()
    assert row is not None, "a SELECT without FROM gives a row"
    return row


def _why(error: psycopg.Error) -> str:
    said = str(error)
    return next((why for words, why in _WHY if words in said), "the server could not be reached")


def _cannot(check: str, subject: str, found: str, hint: str = "") -> Finding:
    means = f"nothing can be done, and nothing else of this database was looked at{hint}"
    return Finding(check, Severity.ERROR, subject, found, means, refused=OPERATIONS)
