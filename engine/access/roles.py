"""The roles that come with DataOps. They are written at every start, so a release may sharpen them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from engine.db.models import RoleRow

SUPER_ADMIN = "super_admin"
ADMIN = "admin"


@dataclass(frozen=True)
class BuiltInRole:
    name: str
    description: str
    permissions: tuple[str, ...]


BUILT_IN = (
    BuiltInRole(SUPER_ADMIN, "everything, restores and access changes included", ("*",)),
    BuiltInRole(
        ADMIN,
        "every operation on data but restores, secret fields and changes of access",
        (
            "access.read",
            "audit.*",
            "backups.*",
            "catalog.*",
            "exports.*",
            "imports.*",
            "jobs.*",
            "overview.*",
            "schedules.*",
            "uploads.*",
            "webhooks.*",
        ),
    ),
)


def seed_roles(session: Session, now: datetime) -> None:
    """Write the built-in roles as this release has them; two processes may do it at once."""
    for role in BUILT_IN:
        values = {"description": role.description, "permissions": list(role.permissions), "built_in": True}
        statement = insert(RoleRow).values(name=role.name, updated_at=now, **values)
        changed = RoleRow.permissions.is_distinct_from(statement.excluded.permissions) | RoleRow.built_in.is_(False)
        session.execute(
            statement.on_conflict_do_update(index_elements=["name"], set_=values | {"updated_at": now}, where=changed)
        )
