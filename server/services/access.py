"""AccessService: who may do what."""

from __future__ import annotations

import uuid
from typing import Any

from dataops.v1 import access_pb2_grpc
from dataops.v1.access_pb2 import (
    GetCallerRequest,
    GetCallerResponse,
    GrantRoleRequest,
    GrantRoleResponse,
    ListGrantsRequest,
    ListGrantsResponse,
    ListRolesRequest,
    ListRolesResponse,
    RevokeRoleRequest,
    RevokeRoleResponse,
)
from sqlalchemy.orm import Session

from engine.access import Caller, principals
from engine.access.grants import grant_role, list_grants, list_roles, revoke_role
from engine.db.models import GrantRow, PrincipalRow, RoleRow
from engine.ids import parse_id
from engine.paging import Page
from engine.resources import Resources
from server.caller import current_call, current_caller
from server.convert.access import caller_to_pb, grant_to_pb, kind_from_pb, role_to_pb
from server.convert.common import body_sha256, moment, page_of, paging_of
from server.offload import Offload

Principals = dict[uuid.UUID, PrincipalRow]


class AccessService(access_pb2_grpc.AccessServiceServicer):
    """PutRole and DeleteRole are not built: the interceptors answer for them."""

    def __init__(self, resources: Resources, offload: Offload) -> None:
        self._resources = resources
        self._offload = offload

    async def GetCaller(self, request: GetCallerRequest, context: Any) -> GetCallerResponse:
        return caller_to_pb(current_caller(context), current_call(context).token_expires_at)

    async def ListRoles(self, request: ListRolesRequest, context: Any) -> ListRolesResponse:
        page = await self._offload.call(self._roles, request, current_caller(context))
        roles, token = page_of(page, role_to_pb)
        return ListRolesResponse(roles=roles, next_page_token=token)

    async def ListGrants(self, request: ListGrantsRequest, context: Any) -> ListGrantsResponse:
        page, known = await self._offload.call(self._grants, request, current_caller(context))
        grants, token = page_of(page, lambda row: grant_to_pb(row, known))
        return ListGrantsResponse(grants=grants, next_page_token=token)

    async def GrantRole(self, request: GrantRoleRequest, context: Any) -> GrantRoleResponse:
        row, known = await self._offload.call(self._grant, request, current_caller(context))
        return GrantRoleResponse(grant=grant_to_pb(row, known))

    async def RevokeRole(self, request: RevokeRoleRequest, context: Any) -> RevokeRoleResponse:
        await self._offload.call(self._revoke, request, current_caller(context))
        return RevokeRoleResponse()

    def _roles(self, request: ListRolesRequest, caller: Caller) -> Page[RoleRow]:
        with self._resources.db.transaction() as session:
            return list_roles(session, paging_of(request, caller))

    def _grants(self, request: ListGrantsRequest, caller: Caller) -> tuple[Page[GrantRow], Principals]:
        principal_id = parse_id(request.principal_id, "principal_id") if request.principal_id else None
        with self._resources.db.transaction() as session:
            page = list_grants(session, paging_of(request, caller), role=request.role, principal_id=principal_id)
            return page, _concerned(session, page.items)

    def _grant(self, request: GrantRoleRequest, caller: Caller) -> tuple[GrantRow, Principals]:
        with self._resources.db.transaction() as session:
            row = grant_role(
                session,
                caller,
                issuer=request.issuer,
                subject=request.subject,
                kind=kind_from_pb(request.kind),
                role=request.role,
                expires_at=moment(request, "expires_at"),
                request_id=request.request_id,
                body_sha256=body_sha256(request),
                now=self._resources.clock(),
            )
            return row, _concerned(session, [row])

    def _revoke(self, request: RevokeRoleRequest, caller: Caller) -> None:
        with self._resources.db.transaction() as session:
            revoke_role(session, caller, parse_id(request.grant_id, "grant_id"), self._resources.clock())


def _concerned(session: Session, grants: list[GrantRow]) -> Principals:
    return principals(session, [i for row in grants for i in (row.principal_id, row.granted_by) if i is not None])
