"""Who may: principals, roles, grants; and the request ids that make starting work idempotent."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from engine.db.base import Model


class PrincipalRow(Model):
    """A user or a service, known by who vouches for it and what that issuer calls it."""

    __tablename__ = "principals"
    __table_args__ = (
        UniqueConstraint("issuer", "subject"),
        CheckConstraint("kind IN ('USER', 'SERVICE')", name="kind"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    issuer: Mapped[str]
    subject: Mapped[str]
    kind: Mapped[str] = mapped_column(default="USER")
    display_name: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime | None]


class RoleRow(Model):
    """A named set of permissions (`imports.create:users:ADDITIVE`; parts may be `*`). Built-in ones never change."""

    __tablename__ = "roles"

    name: Mapped[str] = mapped_column(primary_key=True)
    description: Mapped[str] = mapped_column(default="")
    permissions: Mapped[list[str]]
    built_in: Mapped[bool] = mapped_column(default=False)
    updated_at: Mapped[datetime]


class GrantRow(Model):
    """A role in a principal's hands. `granted_by` is empty for what the installation itself granted."""

    __tablename__ = "grants"
    __table_args__ = (UniqueConstraint("principal_id", "role"), Index("ix_grants_granted", "granted_at", "id"))

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    principal_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("dataops.principals.id"))
    role: Mapped[str] = mapped_column(ForeignKey("dataops.roles.name"))
    granted_by: Mapped[uuid.UUID | None]
    granted_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]


class RequestIdRow(Model):
    """What a request id has started: the same id and body give the same resource, another body is refused."""

    __tablename__ = "request_ids"
    __table_args__ = (Index("ix_request_ids_created_at", "created_at"),)

    principal_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    rpc: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    body_sha256: Mapped[bytes]
    resource_id: Mapped[uuid.UUID]
    created_at: Mapped[datetime]
