"""What the feed reads: a job's events after a sequence, by the only asynchronous database code of the house."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from engine.db.database import CONTROL_SETTINGS, libpq_dsn
from engine.errors import Unavailable

PAGE = 1_000
"""Events one query fetches at most: some 300 KB, so that a catch-up never holds much memory or a connection long."""

_PAGE_QUERY = """
    SELECT j.kind, j.resource_type, j.resource_id, j.created_at, j.state, j.last_sequence,
           e.sequence, e.at, e.kind, e.payload
    FROM dataops.jobs j
    LEFT JOIN LATERAL (
        SELECT sequence, at, kind, payload FROM dataops.job_events
        WHERE job_id = j.id AND sequence > greatest(%(after)s::bigint, j.last_sequence - %(tail)s::bigint)
        ORDER BY sequence LIMIT %(limit)s
    ) e ON true
    WHERE j.id = %(job_id)s
    ORDER BY e.sequence
"""
"""One statement, so one snapshot: state, newest sequence and events are of the same moment."""

_WHOLE = 1 << 60


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One row of `dataops.job_events`."""

    sequence: int
    at: datetime
    kind: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobHead:
    """What never changes about a job."""

    id: uuid.UUID
    kind: str
    resource_type: str
    resource_id: uuid.UUID
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """A job at one moment, and its events after the sequence asked for, oldest first."""

    job: JobHead
    state: str
    last_sequence: int
    events: tuple[StoredEvent, ...]
    more: bool
    """True when the limit cut the events off."""


class FeedStore:
    """A few connections to the control database, opened when needed, replaced when broken."""

    def __init__(self, dsn: str, *, connections: int = 3) -> None:
        self._dsn = libpq_dsn(dsn)
        self._room = asyncio.Semaphore(connections)
        self._idle: list[psycopg.AsyncConnection[TupleRow]] = []
        self._closed = False

    async def read(self, job_id: uuid.UUID, after: int, *, tail: int = _WHOLE, limit: int = PAGE) -> Page | None:
        """The job's events after `after`, of the newest `tail` ones; None when there is no such job.

        Raises:
            Unavailable: CONTROL_UNREACHABLE; the same read may succeed later.
        """
        arguments = {"job_id": job_id, "after": after, "tail": tail, "limit": limit}
        try:
            rows = await self._fetch(arguments)
        except psycopg.OperationalError:
            rows = await self._fetch_anew(arguments)
        if not rows:
            return None
        head, (state, last_sequence) = JobHead(job_id, *rows[0][:4]), rows[0][4:6]
        events = tuple(StoredEvent(*row[6:]) for row in rows if row[6] is not None)
        return Page(head, state, last_sequence, events, more=len(events) == limit)

    async def close(self) -> None:
        """Close what is idle; what is in use is closed when it comes back."""
        self._closed = True
        while self._idle:
            await self._discard(self._idle.pop())

    async def _fetch(self, arguments: dict[str, Any]) -> list[TupleRow]:
        async with self._connection() as connection:
            cursor = await connection.execute(_PAGE_QUERY, arguments)
            return await cursor.fetchall()

    async def _fetch_anew(self, arguments: dict[str, Any]) -> list[TupleRow]:
        """Once more on a fresh connection: after a restart of PostgreSQL every idle one is dead."""
        while self._idle:
            await self._discard(self._idle.pop())
        try:
            return await self._fetch(arguments)
        except psycopg.OperationalError:
            raise Unavailable(
                "control database: cannot be read now", reason="CONTROL_UNREACHABLE", retry_after=1.0
            ) from None

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
        async with self._room:
            connection = await self._usable()
            try:
                yield connection
            except BaseException:  # a cancelled read leaves its answer in the pipe: such a connection is never reused
                await self._discard(connection)
                raise
            if self._closed:
                await self._discard(connection)
            else:
                self._idle.append(connection)

    async def _usable(self) -> psycopg.AsyncConnection[TupleRow]:
        while self._idle:
            connection = self._idle.pop()
            if not connection.broken and not connection.closed:
                return connection
        return await psycopg.AsyncConnection.connect(
            self._dsn,
            autocommit=True,
            application_name="dataops server: feed",
            connect_timeout=10,
            options=" ".join(f"-c {name}={value}" for name, value in CONTROL_SETTINGS.items()),
            prepare_threshold=None,
        )

    async def _discard(self, connection: psycopg.AsyncConnection[TupleRow]) -> None:
        with suppress(psycopg.Error):
            await connection.close()
