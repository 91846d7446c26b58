"""The catalog of the moment, read from the platform and kept for a few seconds."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from engine.catalog.introspect import read_tables
from engine.catalog.model import Catalog
from engine.catalog.refine import read_catalog_file, refine
from engine.db.platform import Connection, Platform

KEEP_SECONDS = 5.0
"""How old a catalog may be for an answer. What changes rows reads it afresh, under its locks."""


class CatalogSource:
    """Reads catalogs; safe to call from many threads."""

    def __init__(self, platform: Platform, schemas: str, file: Path | None) -> None:
        self._platform = platform
        self._schemas = [name.strip() for name in schemas.split(",") if name.strip()]
        self._rules = read_catalog_file(file)
        self._lock = threading.Lock()
        self._kept: tuple[float, Catalog] | None = None

    def load(self) -> Catalog:
        """A catalog at most `KEEP_SECONDS` old."""
        with self._lock:
            now = time.monotonic()
            if self._kept and now - self._kept[0] < KEEP_SECONDS:
                return self._kept[1]
            with self._platform.connect("catalog", autocommit=True) as connection:
                catalog = self.read(connection)
            self._kept = (time.monotonic(), catalog)
            return catalog

    def read(self, connection: Connection) -> Catalog:
        """The catalog as `connection`'s transaction sees it."""
        found, other = read_tables(connection, self._schemas)
        entities, excluded = refine(found, self._rules)
        return Catalog(entities, [*other, *excluded])
