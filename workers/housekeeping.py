"""What has to be done now and then by one process of all: sweeps and expiry, and, at a pace of its own, schedules.

Who holds the lease row does it. A lease can run out during a long duty, so every duty must bear being done by two at
once; the row only keeps ten workers from doing everything ten times.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import text

from engine.db.database import Database
from engine.health.pulse import Pulse

if TYPE_CHECKING:
    from engine.resources import Resources

LEASE = "housekeeping"
SCHEDULER = "scheduler"

DUTY_SECONDS = 900.0
"""What one duty may take before its thread is said to hang: a sweep of a large store takes minutes."""

_TAKE = """
INSERT INTO dataops.leases AS l (name, owner, expires_at, fence)
VALUES (:name, :owner, clock_timestamp() + make_interval(secs => :seconds), 1)
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at,
    fence = l.fence + CASE WHEN l.owner = excluded.owner THEN 0 ELSE 1 END
WHERE l.owner = excluded.owner OR l.expires_at < clock_timestamp()
RETURNING 1"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Duty:
    """Something to be done every round, by nobody or by two at once without harm."""

    name: str
    act: Callable[[datetime], object]


def take_lease(db: Database, name: str, owner: str, seconds: float) -> bool:
    """Take or renew a named lease; False while somebody else's is good."""
    with db.transaction() as session:
        parameters = {"name": name, "owner": owner, "seconds": seconds}
        return session.execute(text(_TAKE), parameters).scalar() is not None


def give_lease(db: Database, name: str, owner: str) -> None:
    """Let the next one take it at once."""
    with db.transaction() as session:
        session.execute(
            text("UPDATE dataops.leases SET expires_at = clock_timestamp() WHERE name = :name AND owner = :owner"),
            {"name": name, "owner": owner},
        )


class Housekeeping:
    """A thread that, while it holds the lease of this name, does every duty once a round."""

    def __init__(
        self,
        resources: Resources,
        duties: Sequence[Duty],
        owner: str,
        *,
        lease: str = LEASE,
        every: float | None = None,
    ) -> None:
        self._db = resources.db
        self._clock = resources.clock
        self._every = resources.settings.sweep_seconds if every is None else every
        self._duties = duties
        self._owner = owner
        self._lease = lease
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._rounds, name=lease, daemon=True)
        self.pulse = Pulse(lease, self._thread, self._every + DUTY_SECONDS)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Give the lease up after the duty at hand, waiting for it at most `seconds`."""
        self._stopping.set()
        self._thread.join(seconds)

    def round(self) -> bool:
        """One round, if the lease can be had; returns whether it could."""
        if not take_lease(self._db, self._lease, self._owner, self._every * 2 + 10):
            return False
        for duty in self._duties:
            if self._stopping.is_set():
                break
            self.pulse.beat()
            try:
                result = duty.act(self._clock())
            except Exception:
                log.exception("duty_failed", duty=duty.name)
            else:
                log.debug("duty_done", duty=duty.name, result=str(result))
        return True

    def _rounds(self) -> None:
        held = False
        while not self._stopping.is_set():
            self.pulse.beat()
            try:
                held = self.round()
            except Exception as error:
                log.warning("housekeeping_failed", lease=self._lease, error=type(error).__name__)
            self._stopping.wait(self._every)
        if held:
            try:
                give_lease(self._db, self._lease, self._owner)
            except Exception as error:
                log.warning("housekeeping_failed", lease=self._lease, error=type(error).__name__)
