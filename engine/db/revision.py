"""Refusing to work on a control schema that we do not know."""

from __future__ import annotations

import functools
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from engine.db.base import SCHEMA
from engine.errors import FailedPrecondition, Unavailable

MIN_REVISION = "0004"
"""The oldest revision this code works on."""

MIGRATIONS = Path(__file__).parent / "migrations"


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


@functools.cache
def known_revisions() -> list[str]:
    """The revisions of this release, oldest first: what the names of the migrations' files begin with."""
    return sorted(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def _current(connection: Connection) -> str | None:
    try:
        found = connection.execute(text(f"SELECT version_num FROM {SCHEMA}.alembic_version")).scalar()
    except ProgrammingError:
        connection.rollback()
        return None
    return None if found is None else str(found)
