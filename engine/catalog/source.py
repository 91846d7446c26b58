"""The catalog of the moment, read from the platform and kept for a few seconds."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psycopg

from engine.catalog.introspect import read_tables
from engine.catalog.model import Catalog
from engine.catalog.refine import read_catalog_file, refine
from engine.db.platform import Connection, Platform
from engine.errors import DataOpsError, Unavailable

KEEP_SECONDS = 5.0
"""How old a catalog may be for an answer. What changes rows reads it afresh, under its locks."""

STALE_SECONDS = 60.0
"""How old it may become while another thread reads a new one, or the platform does not answer."""

FAILED_SECONDS = 2.0
"""How long a failure is remembered: a platform that drops packets costs each attempt 10 s."""


class CatalogSource:
    """Reads catalogs; safe to call from many threads, of which one at a time goes to the platform."""

    def __init__(self, platform: Platform, schemas: str, file: Path | None) -> None:
        self._platform = platform
        self._schemas = [name.strip() for name in schemas.split(",") if name.strip()]
        self._rules = read_catalog_file(file)
        self._reading = threading.Lock()
        self._kept: tuple[float, Catalog] | None = None
        self._failed: tuple[float, DataOpsError] | None = None

    def load(self) -> Catalog:
        """A catalog at most `KEEP_SECONDS` old; up to `STALE_SECONDS` where a fresh one cannot be had at once.

        Raises:
            Unavailable: PLATFORM_UNREACHABLE, LOCK_TIMEOUT; FailedPrecondition: PLATFORM_TOO_OLD, POOLER_REFUSED.
        """
        if (found := self._younger_than(KEEP_SECONDS)) is not None:
            return found
        if not self._reading.acquire(blocking=False):
            if (found := self._younger_than(STALE_SECONDS)) is not None:
                return found
            self._reading.acquire()
        try:
            return self._younger_than(KEEP_SECONDS) or self._refresh()
        finally:
            self._reading.release()

    def forget(self) -> None:
        """The next `load` goes to the platform: for who has just changed its tables."""
        self._kept = None

    def read(self, connection: Connection) -> Catalog:
        """The catalog as `connection`'s transaction sees it."""
        found, other = read_tables(connection, self._schemas)
        entities, excluded = refine(found, self._rules)
        return Catalog(entities, [*other, *excluded])

    def _refresh(self) -> Catalog:
        if self._failed is not None and time.monotonic() - self._failed[0] < FAILED_SECONDS:
            raise self._failed[1]
        try:
            catalog = self._read_now()
        except DataOpsError as error:
            self._failed = (time.monotonic(), error)
            if (found := self._younger_than(STALE_SECONDS)) is not None:
                return found
            raise
        self._kept, self._failed = (time.monotonic(), catalog), None
        return catalog

    def _read_now(self) -> Catalog:
        try:
            with self._platform.connect("catalog", autocommit=True) as connection:
                return self.read(connection)
        except psycopg.errors.LockNotAvailable:  # sizes and definitions are read under a lock of their table
            raise Unavailable(
                "catalog: another session holds a lock on the definition of a table",
                reason="LOCK_TIMEOUT",
                retry_after=3.0,
            ) from None

    def _younger_than(self, seconds: float) -> Catalog | None:
        kept = self._kept
        return kept[1] if kept is not None and time.monotonic() - kept[0] < seconds else None
