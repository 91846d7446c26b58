"""ExportService: rows on their way out."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from dataops.v1 import exports_pb2, exports_pb2_grpc

from engine.access import Caller
from engine.db.models import ExportRow
from engine.errors import Aborted, FailedPrecondition
from engine.exports.service import Exports
from engine.ids import parse_id
from server.caller import current_caller
from server.convert import exports as convert
from server.convert.common import body_sha256, moment, page_of, paging_of, word_of
from server.convert.download import piece
from server.download import FOLLOW_SECONDS, Downloads, Source
from server.drain import Drain
from server.offload import Offload
from server.principals import Principals

Sent = exports_pb2.DownloadExportResponse


class ExportService(exports_pb2_grpc.ExportServiceServicer):
    """One per server."""

    def __init__(
        self, exports: Exports, downloads: Downloads, principals: Principals, offload: Offload, drain: Drain
    ) -> None:
        self._exports, self._downloads, self._principals = exports, downloads, principals
        self._offload, self._drain = offload, drain

    async def CreateExport(
        self, request: exports_pb2.CreateExportRequest, context: Any
    ) -> exports_pb2.CreateExportResponse:
        caller, wanted = current_caller(context), convert.request_of(request)
        row = await self._offload.call(
            lambda: self._exports.create(caller, wanted, request.request_id, body_sha256(request))
        )
        return exports_pb2.CreateExportResponse(export=await self._shown(row))

    async def GetExport(self, request: exports_pb2.GetExportRequest, context: Any) -> exports_pb2.GetExportResponse:
        export_id = parse_id(request.export_id, "export_id")
        row = await self._offload.call(self._exports.get, current_caller(context), export_id)
        return exports_pb2.GetExportResponse(export=await self._shown(row))

    async def ListExports(
        self, request: exports_pb2.ListExportsRequest, context: Any
    ) -> exports_pb2.ListExportsResponse:
        caller = current_caller(context)
        statuses = [word_of(exports_pb2.ExportStatus, number) for number in request.statuses]
        created = moment(request.created, "start"), moment(request.created, "end")
        paging = paging_of(request, caller)
        page = await self._offload.call(self._exports.list, caller, paging, request.entity_type, statuses, created)
        principals = await self._principals.of(row.principal_id for row in page.items)
        exports, token = page_of(page, lambda row: convert.export(row, principals))
        return exports_pb2.ListExportsResponse(exports=exports, next_page_token=token)

    async def CancelExport(
        self, request: exports_pb2.CancelExportRequest, context: Any
    ) -> exports_pb2.CancelExportResponse:
        export_id = parse_id(request.export_id, "export_id")
        row = await self._offload.call(self._exports.cancel, current_caller(context), export_id)
        return exports_pb2.CancelExportResponse(export=await self._shown(row))

    async def DeleteExport(
        self, request: exports_pb2.DeleteExportRequest, context: Any
    ) -> exports_pb2.DeleteExportResponse:
        export_id = parse_id(request.export_id, "export_id")
        row = await self._offload.call(self._exports.delete, current_caller(context), export_id)
        return exports_pb2.DeleteExportResponse(export=await self._shown(row))

    async def DownloadExport(
        self, request: exports_pb2.DownloadExportRequest, context: Any
    ) -> AsyncGenerator[Sent, None]:
        caller, export_id = current_caller(context), parse_id(request.export_id, "export_id")
        source = await self._source(caller, export_id, follow=request.follow)
        stream = self._downloads.stream(caller, "exports.download", source, request.offset, request.limit)
        async with aclosing(stream) as pieces:
            async for sent in pieces:
                yield piece(Sent, sent)

    async def _source(self, caller: Caller, export_id: uuid.UUID, *, follow: bool) -> Source:
        """What to send. A follower of an export that has not begun waits for it; it holds no thread meanwhile."""
        while True:
            try:
                return await self._offload.call(self._file, caller, export_id, follow)
            except FailedPrecondition as error:
                if not follow or error.reason != "EXPORT_NOT_READY":
                    raise
            self._drain.check()
            await asyncio.sleep(FOLLOW_SECONDS)

    def _file(self, caller: Caller, export_id: uuid.UUID, follow: bool) -> Source:
        """On a thread."""
        file = self._exports.download(caller, export_id)
        if follow:
            return Source(
                file.artifact_id, "exports", export_id, lambda: self._grows(caller, export_id, file.artifact_id)
            )
        if file.still_writing():
            raise FailedPrecondition(
                "export: found it being written, expected a complete one, or follow", reason="EXPORT_NOT_READY"
            )
        return Source(file.artifact_id, "exports", export_id)

    def _grows(self, caller: Caller, export_id: uuid.UUID, artifact_id: uuid.UUID) -> bool:
        """On a thread: whether the file a follower reads is still being written."""
        row = self._exports.get(caller, export_id)
        if row.status not in ("PENDING", "PROCESSING", "COMPLETED"):
            raise FailedPrecondition(
                f"export: found it {row.status} while it was followed",
                reason="EXPORT_STATE",
                metadata={"status": row.status, "error": str((row.error or {}).get("reason", ""))},
            )
        if row.artifact_id != artifact_id:
            raise Aborted("export: it was begun anew, follow it again from its start", reason="EXPORT_RESTARTED")
        return row.status != "COMPLETED"

    async def _shown(self, row: ExportRow) -> exports_pb2.Export:
        return convert.export(row, await self._principals.of([row.principal_id]))
