"""ImportService: files on their way into an entity."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from dataops.v1 import imports_pb2, imports_pb2_grpc

from engine.db.models import ImportRow
from engine.ids import parse_id
from engine.imports.model import ChangeKind, ReportPart, Severity
from engine.imports.service import Imports
from engine.uploads import Uploads
from server.caller import current_caller
from server.convert import imports as convert
from server.convert.common import body_sha256, moment, page_of, paging_of, placed_page, word_of
from server.convert.download import piece
from server.convert.plans import row_change, row_error
from server.download import Downloads, Source
from server.offload import Offload
from server.principals import Principals

Sent = imports_pb2.DownloadImportReportResponse


class ImportService(imports_pb2_grpc.ImportServiceServicer):
    """One per server. Revert is not built."""

    def __init__(
        self, imports: Imports, uploads: Uploads, downloads: Downloads, principals: Principals, offload: Offload
    ) -> None:
        self._imports, self._uploads, self._downloads = imports, uploads, downloads
        self._principals, self._offload = principals, offload

    async def CreateImport(
        self, request: imports_pb2.CreateImportRequest, context: Any
    ) -> imports_pb2.CreateImportResponse:
        caller = current_caller(context)

        def create() -> ImportRow:
            upload = self._uploads.get(caller, parse_id(request.upload_id, "upload_id"))
            wanted = convert.request_of(request, upload.name)
            return self._imports.create(caller, wanted, request.request_id, body_sha256(request))

        return imports_pb2.CreateImportResponse(data_import=await self._shown(await self._offload.call(create)))

    async def GetImport(self, request: imports_pb2.GetImportRequest, context: Any) -> imports_pb2.GetImportResponse:
        import_id = parse_id(request.import_id, "import_id")
        row = await self._offload.call(self._imports.get, current_caller(context), import_id)
        return imports_pb2.GetImportResponse(data_import=await self._shown(row))

    async def ListImports(
        self, request: imports_pb2.ListImportsRequest, context: Any
    ) -> imports_pb2.ListImportsResponse:
        caller = current_caller(context)
        statuses = [word_of(imports_pb2.ImportStatus, number) for number in request.statuses]
        created = moment(request.created, "start"), moment(request.created, "end")
        paging = paging_of(request, caller)
        page = await self._offload.call(self._imports.list, caller, paging, request.entity_type, statuses, created)
        principals = await self._principals.of(row.principal_id for row in page.items)
        imports, token = page_of(page, lambda row: convert.data_import(row, principals))
        return imports_pb2.ListImportsResponse(imports=imports, next_page_token=token)

    async def ListImportChanges(
        self, request: imports_pb2.ListImportChangesRequest, context: Any
    ) -> imports_pb2.ListImportChangesResponse:
        caller, import_id = current_caller(context), parse_id(request.import_id, "import_id")
        word = word_of(imports_pb2.ChangeKind, request.kind)
        paging = paging_of(request, caller)
        kinds = (ChangeKind(word),) if word else ()
        changes, token = await self._offload.call(
            self._imports.changes, caller, import_id, paging, kinds, request.entity, request.field
        )
        shown, token = placed_page(changes, paging, token, row_change)
        return imports_pb2.ListImportChangesResponse(changes=shown, next_page_token=token)

    async def ListImportErrors(
        self, request: imports_pb2.ListImportErrorsRequest, context: Any
    ) -> imports_pb2.ListImportErrorsResponse:
        caller, import_id = current_caller(context), parse_id(request.import_id, "import_id")
        word = word_of(imports_pb2.RowErrorSeverity, request.severity)
        errors, token, total = await self._offload.call(
            self._imports.errors,
            caller,
            import_id,
            paging_of(request, caller),
            (Severity(word),) if word else (),
            request.code,
            request.entity,
        )
        shown = [row_error(error) for error in errors]
        return imports_pb2.ListImportErrorsResponse(errors=shown, next_page_token=token, total_errors=total)

    async def ApplyImport(
        self, request: imports_pb2.ApplyImportRequest, context: Any
    ) -> imports_pb2.ApplyImportResponse:
        caller, import_id = current_caller(context), parse_id(request.import_id, "import_id")
        row = await self._offload.call(
            lambda: self._imports.apply(
                caller,
                import_id,
                request.plan_digest,
                request.request_id,
                body_sha256(request),
                request.confirmed_deletes if request.HasField("confirmed_deletes") else None,
            )
        )
        return imports_pb2.ApplyImportResponse(data_import=await self._shown(row))

    async def ApproveImport(
        self, request: imports_pb2.ApproveImportRequest, context: Any
    ) -> imports_pb2.ApproveImportResponse:
        import_id = parse_id(request.import_id, "import_id")
        row = await self._offload.call(self._imports.approve, current_caller(context), import_id, request.plan_digest)
        return imports_pb2.ApproveImportResponse(data_import=await self._shown(row))

    async def CancelImport(
        self, request: imports_pb2.CancelImportRequest, context: Any
    ) -> imports_pb2.CancelImportResponse:
        import_id = parse_id(request.import_id, "import_id")
        row = await self._offload.call(self._imports.cancel, current_caller(context), import_id)
        return imports_pb2.CancelImportResponse(data_import=await self._shown(row))

    async def DownloadImportReport(
        self, request: imports_pb2.DownloadImportReportRequest, context: Any
    ) -> AsyncGenerator[Sent, None]:
        caller, import_id = current_caller(context), parse_id(request.import_id, "import_id")
        part = ReportPart(word_of(imports_pb2.ReportPart, request.part))
        file = await self._offload.call(self._imports.report_part, caller, import_id, part)
        source = Source(file.artifact_id, "imports", import_id)
        stream = self._downloads.stream(caller, "imports.read", source, request.offset, request.limit)
        async with aclosing(stream) as pieces:
            async for sent in pieces:
                yield piece(Sent, sent)

    async def _shown(self, row: ImportRow) -> imports_pb2.Import:
        return convert.data_import(row, await self._principals.of([row.principal_id]))
