"""The heartbeat: keeps one job's lease from a thread and a connection of its own, and notices what should end it.

When something should (a cancel, a stop, a lost lease) it sets `interrupt`, which the job's thread raises at its next
look, and cancels the statements that the job has running in the platform database, again and again until the job's
thread has left them: a cancel that arrives between two statements does nothing.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import psycopg
import structlog

from engine.db.database import libpq_dsn
from engine.jobs.interrupts import JobCancelled, JobInterrupt, LeaseLost, WorkerStopping
from engine.jobs.lease import Held
from engine.jobs.model import JobState

LOOK_SECONDS = 0.5
"""A cancel must be through within 2 s; two small reads a second and job are nothing."""

_RENEW = """
UPDATE dataops.jobs SET lease_expires_at = clock_timestamp() + make_interval(secs => %(lease)s)
WHERE id = %(id)s AND fence = %(fence)s AND lease_owner = %(owner)s AND state IN ('RUNNING', 'CANCEL_REQUESTED')
RETURNING state"""

_LOOK = "SELECT state FROM dataops.jobs WHERE id = %(id)s AND fence = %(fence)s AND lease_owner = %(owner)s"

log = structlog.get_logger(__name__)


class Heartbeat:
    """Context manager around one attempt. `stopping` is the process's own: set on SIGTERM."""

    def __init__(
        self,
        dsn: str,
        held: Held,
        *,
        lease_seconds: float,
        heartbeat_seconds: float,
        stopping: threading.Event,
        leased_at: float,
    ) -> None:
        self.interrupt: JobInterrupt | None = None
        self._dsn = libpq_dsn(dsn)
        self._lease = lease_seconds
        self._every = heartbeat_seconds
        self._parameters = {"id": held.job_id, "fence": held.fence, "owner": held.owner, "lease": lease_seconds}
        self._held = held
        self._stopping = stopping
        self._good_until = leased_at + lease_seconds
        self._renewed_at = leased_at
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._watched: set[psycopg.Connection[Any]] = set()
        self._control: psycopg.Connection[Any] | None = None
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def watch(self, connection: psycopg.Connection[Any]) -> None:
        """Cancel this connection's statements when the job is interrupted."""
        with self._lock:
            self._watched.add(connection)

    def unwatch(self, connection: psycopg.Connection[Any]) -> None:
        with self._lock:
            self._watched.discard(connection)

    def lease_is_good(self) -> bool:
        """Whether the lease, as far as we could renew it, has not run out by our own clock."""
        return time.monotonic() < self._good_until and not isinstance(self.interrupt, LeaseLost)

    def _beat(self) -> None:
        try:
            # The lease is fresh, so a job that is done before the first look costs no connection.
            while not self._done.wait(0.1 if self.interrupt else min(LOOK_SECONDS, self._every)):
                self._look()
                if self.interrupt is not None:
                    self._cancel_statements()
        finally:
            self._drop_control()

    def _look(self) -> None:
        now = time.monotonic()
        if self._stopping.is_set():
            self._raise(WorkerStopping())
        try:
            renew = now - self._renewed_at >= self._every
            row = self._connection().execute(_RENEW if renew else _LOOK, self._parameters).fetchone()
        except psycopg.Error as error:
            self._drop_control()
            log.warning("heartbeat_failed", job_id=str(self._held.job_id), error=type(error).__name__)
        else:
            if row is None:
                self._raise(LeaseLost())
                return
            if renew:
                self._renewed_at, self._good_until = now, now + self._lease
            if row[0] == JobState.CANCEL_REQUESTED:
                self._raise(JobCancelled())
        if time.monotonic() >= self._good_until:
            self._raise(LeaseLost())

    def _raise(self, interrupt: JobInterrupt) -> None:
        if self._done.is_set():
            return
        if self.interrupt is None or interrupt.rank > self.interrupt.rank:
            self.interrupt = interrupt
            log.info("job_interrupted", job_id=str(self._held.job_id), by=type(interrupt).__name__)

    def _cancel_statements(self) -> None:
        with self._lock:
            connections = list(self._watched)
        for connection in connections:
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=2.0)

    def _connection(self) -> psycopg.Connection[Any]:
        if self._control is None:
            self._control = psycopg.connect(
                self._dsn,
                autocommit=True,
                connect_timeout=3,
                application_name="dataops: heartbeat",
                # A beat that hangs is worth no more than one that fails: the next may get through.
                options="-c statement_timeout=3s -c timezone=UTC",
                tcp_user_timeout=5000,
                prepare_threshold=None,
            )
        return self._control

    def _drop_control(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
