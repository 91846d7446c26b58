"""What the commands of `dataops-admin` work with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine import telemetry
from engine.config import Settings, load_settings
from engine.db.database import Database
from engine.db.revision import require_revision


def admin_settings() -> Settings:
    """The settings of this environment; logging is as they say."""
    settings = load_settings()
    telemetry.configure(settings.log_format)
    return settings


@contextmanager
def control_database(settings: Settings) -> Iterator[Database]:
    """Raises:
    FailedPrecondition: SCHEMA_REVISION.
    """
    db = Database(settings.control_dsn, pool_size=1, application_name="dataops: admin")
    try:
        require_revision(db.engine)
        yield db
    finally:
        db.close()
