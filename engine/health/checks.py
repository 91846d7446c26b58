"""What a process needs to do its work, looked at when somebody asks. Texts are ours: no DSN, no driver's words."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psycopg
import structlog

from engine.db.base import SCHEMA
from engine.db.database import libpq_dsn
from engine.db.revision import MIN_REVISION, known_revisions
from engine.errors import DataOpsError
from engine.resources import Resources

GOOD_SECONDS = {"control_database": 1.0, "platform_database": 5.0, "storage": 30.0, "redis": 5.0}
"""How long a good finding is believed: however many ask, so much of it costs something. Bad ones are looked at again
after BAD_SECONDS, so that what has come back is seen at once."""
BAD_SECONDS = 1.0

CONNECT_SECONDS = 3
PROBE = b"readiness"

log = structlog.get_logger(__name__)


class NotReady(Exception):
    """What is found instead of what is needed."""


@dataclass
class Check:
    """One thing that is needed; one that is not `required` is only told."""

    name: str
    act: Callable[[], str]
    """Says what it found. Raises: NotReady, DataOpsError."""
    required: bool = True
    _seen: tuple[float, bool, str] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> tuple[bool, str]:
        """Whether it is as it should be, and what was found. Those who ask while one looks wait for its finding."""
        with self._lock:
            now = time.monotonic()
            if self._seen is not None:
                at, good, found = self._seen
                if now - at < (GOOD_SECONDS.get(self.name, 0.0) if good else BAD_SECONDS):
                    return good, found
            good, found = self._look()
            self._seen = (time.monotonic(), good, found)
            return good, found

    def _look(self) -> tuple[bool, str]:
        try:
            return True, self.act()
        except NotReady as found:
            return False, str(found)
        except DataOpsError as error:
            return False, error.reason
        except Exception as error:
            log.warning("check_failed", check=self.name, error=error)
            return False, type(error).__name__


@dataclass(frozen=True)
class Readiness:
    """All checks of a process. `draining` says that it takes nothing new."""

    checks: Sequence[Check]
    draining: Callable[[], bool]

    def look(self) -> tuple[bool, Mapping[str, Mapping[str, object]]]:
        """Whether the process can do its work, and what each check found."""
        if self.draining():  # what is behind it does not matter any more, and may be closed already
            return False, {"draining": {"ok": False, "required": True, "found": "it is stopping"}}
        told, ready = {}, True
        for check in self.checks:
            good, found = check.look()
            told[check.name] = {"ok": good, "required": check.required, "found": found}
            ready = ready and (good or not check.required)
        return ready, told


def checks_of(resources: Resources) -> list[Check]:
    """What server and worker both need."""
    known = known_revisions()
    return [
        Check("control_database", lambda: _control(resources, known)),
        Check("platform_database", lambda: _platform(resources)),
        Check("storage", lambda: _storage(resources)),
        Check("redis", lambda: _redis(resources), required=False),
    ]


def _control(resources: Resources, known: Sequence[str]) -> str:
    """By a connection of its own: a pool whose connections are all at work has nothing wrong with it.

    A revision that this release does not know is a newer one, put in place under our feet by a deployment whose new
    processes are about to start: releases N and N-1 run together, so it is as good as ours.
    """
    try:
        with psycopg.connect(
            libpq_dsn(resources.db.dsn),
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            application_name="dataops: readiness",
            options=f"-c statement_timeout={CONNECT_SECONDS}s",
            prepare_threshold=None,
        ) as connection:
            row = connection.execute(f"SELECT version_num FROM {SCHEMA}.alembic_version".encode()).fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    except psycopg.OperationalError:
        raise NotReady("cannot be reached") from None
    if row is None:
        raise NotReady("found no control schema")
    revision = str(row[0])
    if revision in known and known.index(revision) < known.index(MIN_REVISION):
        raise NotReady(f"found revision {revision}, expected {MIN_REVISION} or newer")
    return f"revision {revision}" + ("" if revision in known else ", newer than this process")


def _platform(resources: Resources) -> str:
    with resources.platform.connect("readiness", autocommit=True) as connection:
        version = connection.info.server_version
    return f"PostgreSQL {version // 10_000}"


def _storage(resources: Resources) -> str:
    """What a crash leaves of the probe belongs to nothing, and is swept."""
    storage, name = resources.artifacts.vault.storage, f"readiness-{secrets.token_hex(8)}"
    try:
        storage.put(name, PROBE)
    finally:
        storage.delete(name)
    return "an object was written and removed"


def _redis(resources: Resources) -> str:
    answers = resources.bell.answers()
    if answers is None:
        return "none is configured"
    if not answers:
        raise NotReady("no answer; no job is lost, workers look by themselves")
    return "it answers"
