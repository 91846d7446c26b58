"""Bringing the control schema to a revision: a one-shot step of a deployment.

Servers and workers only ask for it (`revision`), without Alembic, which is 8 MB of a process. Releases N and N-1 run
together, so a migration must leave the tables usable by the code of the release before.
"""

from __future__ import annotations

from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, text

import engine.db.models  # noqa: F401  fills the metadata
from engine.db.base import SCHEMA, metadata
from engine.db.database import sqlalchemy_url
from engine.db.revision import MIGRATIONS

UPGRADE_LOCK = 0x64617461_6F7073
"""Advisory lock key ("dataops"): two upgrades at once wait for one another."""


def upgrade(dsn: str, revision: str = "head") -> None:
    """Bring the control schema of `dsn` to `revision`; safe to call again and from two places at once."""
    db = create_engine(sqlalchemy_url(dsn))
    try:
        with db.connect() as connection:
            # A migration waits at most 4 s for a lock: behind a longer wait every other query would queue.
            connection.execute(text("SET lock_timeout = '4s'"))
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": UPGRADE_LOCK})
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            connection.commit()
            command.upgrade(_config(connection), revision)
            connection.commit()
    finally:
        db.dispose()


def differences(db: Engine) -> list[Any]:
    """What Alembic would change to make the tables equal to the models; empty when they agree."""
    with db.connect() as connection:
        options = {
            "include_schemas": True,
            "compare_type": True,
            "include_name": lambda name, kind, _parents: kind != "schema" or name == SCHEMA,
            "include_object": lambda obj, name, kind, *_rest: name != "alembic_version",
        }
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config
