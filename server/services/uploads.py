"""UploadService: files on their way in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from dataops.v1 import uploads_pb2, uploads_pb2_grpc

from engine.db.models import UploadRow
from engine.ids import parse_id
from engine.uploads import Uploads
from server.caller import current_caller
from server.convert import uploads as convert
from server.convert.common import body_sha256, page_of, paging_of, word_of
from server.offload import Offload
from server.principals import Principals
from server.upload_stream import UploadStreams


class UploadService(uploads_pb2_grpc.UploadServiceServicer):
    """One per server."""

    def __init__(self, uploads: Uploads, streams: UploadStreams, principals: Principals, offload: Offload) -> None:
        self._uploads, self._streams, self._principals, self._offload = uploads, streams, principals, offload

    async def StartUpload(
        self, request: uploads_pb2.StartUploadRequest, context: Any
    ) -> uploads_pb2.StartUploadResponse:
        caller, size = current_caller(context), request.size_bytes if request.HasField("size_bytes") else None

        def start() -> UploadRow:
            digest = body_sha256(request)
            return self._uploads.start(
                caller, request.file_name, size, request.sha256 or None, request.request_id, digest
            )

        row = await self._offload.call(start)
        return uploads_pb2.StartUploadResponse(upload=await self._shown(row))

    async def WriteUpload(
        self, request_iterator: AsyncIterator[uploads_pb2.WriteUploadRequest], context: Any
    ) -> uploads_pb2.WriteUploadResponse:
        return convert.written(await self._streams.receive(current_caller(context), request_iterator))

    async def GetUpload(self, request: uploads_pb2.GetUploadRequest, context: Any) -> uploads_pb2.GetUploadResponse:
        upload_id = parse_id(request.upload_id, "upload_id")
        row = await self._offload.call(self._uploads.get, current_caller(context), upload_id)
        return uploads_pb2.GetUploadResponse(upload=await self._shown(row))

    async def ListUploads(
        self, request: uploads_pb2.ListUploadsRequest, context: Any
    ) -> uploads_pb2.ListUploadsResponse:
        caller = current_caller(context)
        states = [word_of(uploads_pb2.UploadState, number) for number in request.states]
        page = await self._offload.call(self._uploads.list, caller, paging_of(request, caller), states)
        owners = await self._principals.of(row.principal_id for row in page.items)
        uploads, token = page_of(page, lambda row: convert.upload(row, owners))
        return uploads_pb2.ListUploadsResponse(uploads=uploads, next_page_token=token)

    async def AbortUpload(
        self, request: uploads_pb2.AbortUploadRequest, context: Any
    ) -> uploads_pb2.AbortUploadResponse:
        upload_id = parse_id(request.upload_id, "upload_id")
        row = await self._offload.call(self._uploads.abort, current_caller(context), upload_id)
        return uploads_pb2.AbortUploadResponse(upload=await self._shown(row))

    async def _shown(self, row: UploadRow) -> uploads_pb2.Upload:
        return convert.upload(row, await self._principals.of([row.principal_id]))
