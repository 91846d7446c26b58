"""Bringing the control schema to a revision, and refusing to work on one we do not know.

`upgrade` is a one-shot step of a deployment; servers and workers only call `require_revision`. Releases N and N-1 run
together, so a migration must leave the tables usable by the code of the release before.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

import engine.db.models  # noqa: F401  fills the metadata
from engine.db.base import SCHEMA, metadata
from engine.db.database import sqlalchemy_url
from engine.errors import FailedPrecondition, Unavailable

MIN_REVISION = "0004"
"""The oldest revision this code works on."""

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


def require_revision(db: Engine) -> str:
    """The schema's revision, when it lies in [MIN_REVISION, head].

    Raises:
        FailedPrecondition: SCHEMA_REVISION when there is none, or one outside that range.
        Unavailable: CONTROL_UNREACHABLE.
    """
    known = known_revisions()
    try:
        with db.connect() as connection:
            found = _current(connection)
    except OperationalError:
        raise Unavailable("control database: cannot be reached", reason="CONTROL_UNREACHABLE") from None
    if found is None:
        raise FailedPrecondition(
            "control schema: found none; run `dataops-admin upgrade` first", reason="SCHEMA_REVISION"
        )
    supported = known[known.index(MIN_REVISION) :]
    if found not in supported:
        raise FailedPrecondition(
            f"control schema: found revision {found}, expected {supported[0]} to {supported[-1]}",
            reason="SCHEMA_REVISION",
        )
    return found


def known_revisions() -> list[str]:
    """The revisions of this release, oldest first."""
    return [script.revision for script in reversed(list(_scripts().walk_revisions()))]


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


def _current(connection: Connection) -> str | None:
    try:
        found = connection.execute(text(f"SELECT version_num FROM {SCHEMA}.alembic_version")).scalar()
    except ProgrammingError:
        connection.rollback()
        return None
    return None if found is None else str(found)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


@functools.cache  # it runs every migration's file to find out which revision it is
def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(Path(__file__).parent / "migrations"))
