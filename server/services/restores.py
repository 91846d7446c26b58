"""RestoreService: the way back to a backup, planned, confirmed, run."""

from __future__ import annotations

from typing import Any

from dataops.v1 import restores_pb2, restores_pb2_grpc

from engine.clock import Clock
from engine.db.models import RestoreRow
from engine.ids import parse_id
from engine.restores.service import Restores
from server.caller import current_caller
from server.convert import restores as convert
from server.convert.common import body_sha256, page_of, paging_of, placed_page, word_of
from server.offload import Offload
from server.principals import Principals


class RestoreService(restores_pb2_grpc.RestoreServiceServicer):
    """One per server."""

    def __init__(self, restores: Restores, principals: Principals, offload: Offload, clock: Clock) -> None:
        self._restores, self._principals, self._offload, self._clock = restores, principals, offload, clock

    async def CreateRestore(
        self, request: restores_pb2.CreateRestoreRequest, context: Any
    ) -> restores_pb2.CreateRestoreResponse:
        caller, wanted = current_caller(context), convert.request_of(request)
        row = await self._offload.call(
            lambda: self._restores.create(caller, wanted, request.request_id, body_sha256(request))
        )
        return restores_pb2.CreateRestoreResponse(restore=await self._shown(row))

    async def GetRestore(
        self, request: restores_pb2.GetRestoreRequest, context: Any
    ) -> restores_pb2.GetRestoreResponse:
        restore_id = parse_id(request.restore_id, "restore_id")
        row = await self._offload.call(self._restores.get, current_caller(context), restore_id)
        return restores_pb2.GetRestoreResponse(restore=await self._shown(row))

    async def ListRestores(
        self, request: restores_pb2.ListRestoresRequest, context: Any
    ) -> restores_pb2.ListRestoresResponse:
        caller = current_caller(context)
        paging = paging_of(request, caller)
        statuses = [word_of(restores_pb2.RestoreStatus, number) for number in request.statuses]
        backup_id = parse_id(request.backup_id, "backup_id") if request.backup_id else None
        page = await self._offload.call(self._restores.list, caller, paging, statuses, backup_id)
        principals, now = await self._principals.of(row.principal_id for row in page.items), self._clock()
        restores, token = page_of(page, lambda row: convert.restore(row, principals, now))
        return restores_pb2.ListRestoresResponse(restores=restores, next_page_token=token)

    async def ListRestoreLosses(
        self, request: restores_pb2.ListRestoreLossesRequest, context: Any
    ) -> restores_pb2.ListRestoreLossesResponse:
        caller, restore_id = current_caller(context), parse_id(request.restore_id, "restore_id")
        paging = paging_of(request, caller)
        changes, token = await self._offload.call(self._restores.losses, caller, restore_id, paging, request.entity)
        losses, token = placed_page(changes, paging, token, convert.loss)
        return restores_pb2.ListRestoreLossesResponse(losses=losses, next_page_token=token)

    async def ConfirmRestore(
        self, request: restores_pb2.ConfirmRestoreRequest, context: Any
    ) -> restores_pb2.ConfirmRestoreResponse:
        caller, restore_id = current_caller(context), parse_id(request.restore_id, "restore_id")
        row = await self._offload.call(
            lambda: self._restores.confirm(
                caller,
                restore_id,
                request.plan_digest,
                request.confirmation_phrase,
                request.request_id,
                body_sha256(request),
                request.max_losses if request.HasField("max_losses") else None,
            )
        )
        return restores_pb2.ConfirmRestoreResponse(restore=await self._shown(row))

    async def ApproveRestore(
        self, request: restores_pb2.ApproveRestoreRequest, context: Any
    ) -> restores_pb2.ApproveRestoreResponse:
        restore_id = parse_id(request.restore_id, "restore_id")
        row = await self._offload.call(self._restores.approve, current_caller(context), restore_id, request.plan_digest)
        return restores_pb2.ApproveRestoreResponse(restore=await self._shown(row))

    async def CancelRestore(
        self, request: restores_pb2.CancelRestoreRequest, context: Any
    ) -> restores_pb2.CancelRestoreResponse:
        restore_id = parse_id(request.restore_id, "restore_id")
        row = await self._offload.call(self._restores.cancel, current_caller(context), restore_id)
        return restores_pb2.CancelRestoreResponse(restore=await self._shown(row))

    async def _shown(self, row: RestoreRow) -> restores_pb2.Restore:
        return convert.restore(row, await self._principals.of([row.principal_id]), self._clock())
