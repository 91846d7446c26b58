"""Access: roles, grants and callers on the wire."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime

from dataops.v1 import access_pb2, common_pb2, imports_pb2

from engine.access import Caller
from engine.access.permission import ANY, Permission
from engine.db.models import GrantRow, PrincipalRow, RoleRow
from engine.errors import InvalidRequest
from server.convert.common import number_of, principal, timestamp, word_of


def permission_to_pb(text: str) -> access_pb2.Permission:
    parsed = Permission.parse(text)
    return access_pb2.Permission(
        operation=parsed.operation,
        entity_types=[] if parsed.entity == ANY else [parsed.entity],
        import_types=[] if parsed.mode == ANY else [number_of(imports_pb2.ImportType, parsed.mode)],
    )


def role_to_pb(row: RoleRow) -> access_pb2.Role:
    return access_pb2.Role(
        name=row.name,
        description=row.description,
        permissions=[permission_to_pb(text) for text in row.permissions],
        shipped=row.built_in,
    )


def grant_to_pb(row: GrantRow, known: Mapping[uuid.UUID, PrincipalRow]) -> access_pb2.Grant:
    return access_pb2.Grant(
        grant_id=str(row.id),
        principal=principal(row.principal_id, known.get(row.principal_id)),
        role=row.role,
        granted_by=principal(row.granted_by, known.get(row.granted_by)) if row.granted_by else None,
        created_at=timestamp(row.granted_at),
        expires_at=timestamp(row.expires_at),
    )


def caller_to_pb(caller: Caller, token_expires_at: datetime | None) -> access_pb2.GetCallerResponse:
    return access_pb2.GetCallerResponse(
        principal=principal(caller.principal_id, caller),
        roles=caller.roles,
        permissions=[permission_to_pb(text) for text in caller.permissions],
        token_expires_at=timestamp(token_expires_at),
    )


def kind_from_pb(number: int) -> str:
    """USER or SERVICE; a person when not said.

    Raises:
        InvalidRequest: INVALID_REQUEST for SYSTEM, which is DataOps itself and holds no grants.
    """
    word = word_of(common_pb2.PrincipalKind, number) or "USER"
    if word == "SYSTEM":
        raise InvalidRequest("kind: expected USER or SERVICE, found SYSTEM", reason="INVALID_REQUEST")
    return word
