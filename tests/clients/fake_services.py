"""The services of the fake server, each over one World."""

from __future__ import annotations

import hashlib
import uuid
import zlib

import grpc
from dataops.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    common_pb2,
    exports_pb2,
    exports_pb2_grpc,
    imports_pb2,
    imports_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    uploads_pb2,
    uploads_pb2_grpc,
)

from tests.clients.fake_world import PART, Held, World, page, refuse


class Uploads(uploads_pb2_grpc.UploadServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def StartUpload(self, request, context):
        upload = uploads_pb2.Upload(
            upload_id=str(uuid.uuid4()), file_name=request.file_name, state=uploads_pb2.UPLOAD_STATE_OPEN
        )
        if request.HasField("size_bytes"):
            upload.declared_size = request.size_bytes
        upload.declared_sha256 = request.sha256
        self.world.uploads[upload.upload_id] = Held(upload)
        return uploads_pb2.StartUploadResponse(upload=upload)

    def WriteUpload(self, request_iterator, context):
        held = None
        for message in request_iterator:
            if held is None:
                held = self.world.uploads[message.upload_id]
                self.world.upload_streams.append(message.offset)
                offset = message.offset
                if offset > len(held.data):
                    committed = str(len(held.data))
                    refuse(
                        context,
                        grpc.StatusCode.OUT_OF_RANGE,
                        "OFFSET_MISMATCH",
                        f"offset {offset} found, {committed} expected",
                        metadata={"committed_size": committed},
                    )
            assert len(message.data) <= 1024 * 1024
            assert message.crc32 == zlib.crc32(message.data)
            held.data[message.offset :] = message.data
            if self.world.break_upload_at and len(held.data) > self.world.break_upload_at[0]:
                self.world.break_upload_at.pop(0)
                del held.data[len(held.data) // PART * PART :]
                held.upload.committed_size = len(held.data)
                refuse(context, grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", "going away", retry_after=0.01)
            if self.world.stall_upload_at is not None and len(held.data) >= self.world.stall_upload_at:
                self.world.stall_upload_at = None
                del held.data[len(held.data) // PART * PART :]
                held.upload.committed_size = len(held.data)
                self.world.stall(context)
                return None
            if message.finish:
                self._finish(held)
        assert held is not None
        held.upload.committed_size = len(held.data)
        if self.world.lose_finish_answer and held.upload.state == uploads_pb2.UPLOAD_STATE_FINISHED:
            refuse(context, grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", "going away", retry_after=0.01)
        return uploads_pb2.WriteUploadResponse(
            committed_size=len(held.data), sha256=held.upload.sha256, state=held.upload.state
        )

    def _finish(self, held: Held) -> None:
        if self.world.damage_upload:
            held.data[0] ^= 1
        held.upload.state = uploads_pb2.UPLOAD_STATE_FINISHED
        held.upload.sha256 = hashlib.sha256(held.data).digest()

    def GetUpload(self, request, context):
        if request.upload_id not in self.world.uploads:
            refuse(context, grpc.StatusCode.NOT_FOUND, "UPLOAD_UNKNOWN", "no such upload")
        return uploads_pb2.GetUploadResponse(upload=self.world.uploads[request.upload_id].upload)

    def ListUploads(self, request, context):
        self.world.asked.append(request)
        found = [
            h.upload for h in self.world.uploads.values() if not request.states or h.upload.state in request.states
        ]
        return uploads_pb2.ListUploadsResponse(uploads=found)

    def AbortUpload(self, request, context):
        held = self.world.uploads[request.upload_id]
        held.upload.state = uploads_pb2.UPLOAD_STATE_ABORTED
        return uploads_pb2.AbortUploadResponse(upload=held.upload)


class Exports(exports_pb2_grpc.ExportServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def CreateExport(self, request, context):
        self.world.created_exports.append(request)
        return exports_pb2.CreateExportResponse(export=self._export())

    def GetExport(self, request, context):
        return exports_pb2.GetExportResponse(export=self._export())

    def ListExports(self, request, context):
        self.world.asked.append(request)
        return exports_pb2.ListExportsResponse(exports=[self._export()])

    def CancelExport(self, request, context):
        return exports_pb2.CancelExportResponse(export=self._export())

    def DeleteExport(self, request, context):
        return exports_pb2.DeleteExportResponse(export=self._export())

    def _export(self) -> exports_pb2.Export:
        return exports_pb2.Export(
            export_id=self.world.job.resource.removeprefix("exports/"),
            job_id=self.world.job.job_id,
            entity_types=["users"],
            record_count=3,
            file_size_bytes=len(self.world.export),
            status=self.world.export_status,
        )

    def DownloadExport(self, request, context):
        self.world.export_offsets.append(request.offset)
        offset, data = request.offset, self.world.export
        if self.world.export_fails:
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "EXPORT_STATE", "found it FAILED")
        if offset > len(data):
            refuse(context, grpc.StatusCode.OUT_OF_RANGE, "OFFSET_MISMATCH", "beyond the end")
        while offset < len(data):
            if self.world.break_export_at and offset >= self.world.break_export_at[0]:
                self.world.break_export_at.pop(0)
                self.world.export = self.world.next_export or self.world.export
                if self.world.tells_restart:
                    refuse(context, grpc.StatusCode.ABORTED, "EXPORT_RESTARTED", "begun anew")
                refuse(context, grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", "going away", retry_after=0.01)
            if self.world.stall_export_at is not None and offset >= self.world.stall_export_at:
                self.world.stall_export_at = None
                self.world.stall(context)
                return
            piece = data[offset : offset + 100_000]
            yield exports_pb2.DownloadExportResponse(offset=offset, data=piece)
            offset += len(piece)
        if self.world.end_export_without_footer:
            self.world.end_export_without_footer = False
            return
        digest = self.world.export_digest or hashlib.sha256(data).digest()
        yield exports_pb2.DownloadExportResponse(
            offset=offset, footer=common_pb2.DownloadFooter(size_bytes=len(data), sha256=digest)
        )


class Jobs(jobs_pb2_grpc.JobServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def WatchJob(self, request, context):
        self.world.watches.append(request.after_sequence)
        if request.job_id != self.world.job.job_id:
            refuse(context, grpc.StatusCode.NOT_FOUND, "JOB_UNKNOWN", "no such job")
        yield self._heartbeat(request.after_sequence)
        if self.world.silent_watches:
            self.world.silent_watches -= 1
            self.world.stall(context)
            return
        for event in self.world.events:
            if event.sequence <= request.after_sequence:
                continue
            yield jobs_pb2.WatchJobResponse(event=event)
            if self.world.stall_watch:
                self.world.stall(context)
                return
            if self.world.break_watch_after and event.sequence >= self.world.break_watch_after[0]:
                self.world.break_watch_after.pop(0)
                refuse(context, grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", "going away", retry_after=0.01)

    def _heartbeat(self, sequence: int) -> jobs_pb2.WatchJobResponse:
        beat = jobs_pb2.JobHeartbeat(last_sequence=sequence)
        return jobs_pb2.WatchJobResponse(event=jobs_pb2.JobEvent(heartbeat=beat))

    def GetJob(self, request, context):
        if request.job_id in self.world.other_jobs:
            return jobs_pb2.GetJobResponse(job=self.world.other_jobs[request.job_id])
        if request.job_id != self.world.job.job_id:
            refuse(context, grpc.StatusCode.NOT_FOUND, "JOB_UNKNOWN", "no such job")
        return jobs_pb2.GetJobResponse(job=self.world.job)

    def ListJobs(self, request, context):
        if self.world.unavailable_calls:
            self.world.unavailable_calls -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        self.world.asked.append(request)
        return jobs_pb2.ListJobsResponse(jobs=[self.world.job])

    def CancelJob(self, request, context):
        if self.world.job.state == jobs_pb2.JOB_STATE_PENDING:
            self.world.job.state = jobs_pb2.JOB_STATE_CANCELLED
        elif self.world.job.state == jobs_pb2.JOB_STATE_RUNNING:
            self.world.job.state = jobs_pb2.JOB_STATE_CANCEL_REQUESTED
        return jobs_pb2.CancelJobResponse(job=self.world.job)

    def RetryJob(self, request, context):
        if not self.world.job.error.retryable:
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "JOB_NOT_RETRYABLE", "its error cannot pass")
        self.world.job.state = jobs_pb2.JOB_STATE_PENDING
        return jobs_pb2.RetryJobResponse(job=self.world.job)


class Imports(imports_pb2_grpc.ImportServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def CreateImport(self, request, context):
        if not request.upload_id:
            refuse(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                "INVALID_REQUEST",
                "1 field of the request is wrong",
                violations={"upload_id": "is required"},
            )
        self.world.created_imports.append(request)
        return imports_pb2.CreateImportResponse(data_import=self.world.imported)

    def ListImports(self, request, context):
        self.world.asked.append(request)
        return imports_pb2.ListImportsResponse(imports=[self.world.imported])

    def GetImport(self, request, context):
        return imports_pb2.GetImportResponse(data_import=self.world.imported)

    def ApplyImport(self, request, context):
        self.world.applied_with.append(request)
        if request.plan_digest != self.world.imported.plan.plan_digest:
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "PLAN_CHANGED", "another plan stands")
        self.world.imported.status = imports_pb2.IMPORT_STATUS_COMPLETED
        self.world.imported.apply_job_id = self.world.job.job_id
        return imports_pb2.ApplyImportResponse(data_import=self.world.imported)

    def ApproveImport(self, request, context):
        self.world.asked.append(request)
        self.world.imported.approved_by_admin_id = "0197a000-0000-7000-8000-0000000000ad"
        return imports_pb2.ApproveImportResponse(data_import=self.world.imported)

    def CancelImport(self, request, context):
        if self.world.imported.status == imports_pb2.IMPORT_STATUS_AWAITING_APPROVAL:
            self.world.imported.status = imports_pb2.IMPORT_STATUS_CANCELLED
        return imports_pb2.CancelImportResponse(data_import=self.world.imported)

    def ListImportErrors(self, request, context):
        self.world.asked.append(request)
        found = [
            error
            for error in self.world.row_errors
            if request.severity in (0, error.severity)
            and request.code in ("", error.code)
            and request.entity in ("", error.entity)
        ]
        errors, token = page(found, request.page_size, request.page_token)
        return imports_pb2.ListImportErrorsResponse(
            errors=errors, next_page_token=token, total_errors=len(self.world.row_errors)
        )

    def ListImportChanges(self, request, context):
        self.world.asked.append(request)
        found = [
            change
            for change in self.world.changes
            if request.kind in (0, change.kind)
            and request.entity in ("", change.entity)
            and (not request.field or request.field in [f.name for f in change.fields])
        ]
        changes, token = page(found, request.page_size, request.page_token)
        return imports_pb2.ListImportChangesResponse(changes=changes, next_page_token=token)

    def DownloadImportReport(self, request, context):
        if self.world.being_made:
            self.world.being_made -= 1
            after = 0.01 if self.world.being_made_says_when else None
            refuse(context, self.world.being_made_as, "REPORT_PART_BEING_MADE", "ask again", retry_after=after)
        if request.part not in self.world.parts:
            refuse(context, grpc.StatusCode.NOT_FOUND, "REPORT_PART_MISSING", "no such file")
        data = self.world.parts[request.part]
        yield imports_pb2.DownloadImportReportResponse(offset=request.offset, data=data[request.offset :])
        footer = common_pb2.DownloadFooter(size_bytes=len(data), sha256=hashlib.sha256(data).digest())
        yield imports_pb2.DownloadImportReportResponse(offset=len(data), footer=footer)


class Catalog(catalog_pb2_grpc.CatalogServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def ListEntities(self, request, context):
        self.world.user_agents |= {str(v) for k, v in context.invocation_metadata() if k == "user-agent"}
        names = ["users", "tokens"] if not request.page_token else ["points_rules"]
        return catalog_pb2.ListEntitiesResponse(
            entities=[catalog_pb2.Entity(name=n, estimated_rows=5, key_fields=["id"]) for n in names],
            next_page_token="" if request.page_token else "2",
        )

    def GetEntity(self, request, context):
        if request.entity not in self.world.entities:
            refuse(context, grpc.StatusCode.NOT_FOUND, "ENTITY_UNKNOWN", f"no entity {request.entity}")
        return catalog_pb2.GetEntityResponse(entity=self.world.entities[request.entity])
