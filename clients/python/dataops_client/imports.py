"""Imports for a program: upload, plan, look, apply. Part of `DataOps`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dataops.v1 import common_pb2, imports_pb2, imports_pb2_grpc, uploads_pb2, uploads_pb2_grpc

from dataops_client.download import Downloaded, OnWaiting, download_file
from dataops_client.errors import JobFailed, typed_errors
from dataops_client.jobs import JobCalls, OnEvent, no_event
from dataops_client.paging import pages
from dataops_client.resume import UploadMemory, upload_remembered
from dataops_client.transfer import OnBytes, no_bytes
from dataops_client.upload import upload_file

REPORT_PATIENCE = 900.0
"""Seconds. The changes of a plan are written into a file only when they are first asked for; they may be millions."""


class ImportCalls(JobCalls):
    """The calls that are about uploads and imports."""

    imports: imports_pb2_grpc.ImportServiceStub
    uploads: uploads_pb2_grpc.UploadServiceStub

    def upload(
        self,
        path: Path,
        *,
        reason: str = "",
        memory: UploadMemory | None = None,
        fresh: bool = False,
        on_bytes: OnBytes = no_bytes,
        on_checked: OnBytes = no_bytes,
        on_resumed: Callable[[uploads_pb2.Upload], None] = lambda _upload: None,
    ) -> uploads_pb2.Upload:
        """Upload a file, resuming as often as needed; see `upload.upload_file`.

        With a `memory` an upload that an earlier process began goes on; see `resume.upload_remembered`.
        """
        if memory is None:
            return upload_file(self.uploads, path, reason=reason, on_bytes=on_bytes)
        return upload_remembered(
            self.uploads,
            path,
            memory,
            fresh=fresh,
            reason=reason,
            on_bytes=on_bytes,
            on_checked=on_checked,
            on_resumed=on_resumed,
        )

    def get_upload(self, upload_id: str) -> uploads_pb2.Upload:
        """One upload as it stands."""
        with typed_errors():
            return self.uploads.GetUpload(uploads_pb2.GetUploadRequest(upload_id=upload_id)).upload

    def list_uploads(
        self, *, states: Sequence[uploads_pb2.UploadState.ValueType] = (), limit: int = 50
    ) -> list[uploads_pb2.Upload]:
        """The newest uploads that the caller may see, at most `limit` and at most 1,000."""
        request = uploads_pb2.ListUploadsRequest(states=states, page_size=limit)
        with typed_errors():
            return list(self.uploads.ListUploads(request).uploads)

    def abort_upload(self, upload_id: str, reason: str = "") -> uploads_pb2.Upload:
        """End an upload and delete its bytes; UPLOAD_IN_USE while an import reads it."""
        request = uploads_pb2.AbortUploadRequest(upload_id=upload_id, reason=reason)
        with typed_errors():
            return self.uploads.AbortUpload(request).upload

    def create_import(self, request: imports_pb2.CreateImportRequest) -> imports_pb2.Import:
        """Record an import; a request id is made up if there is none, which also makes the call repeatable."""
        request.request_id = request.request_id or str(uuid.uuid4())
        with typed_errors():
            return self.imports.CreateImport(request).data_import

    def plan_import(
        self,
        path: Path,
        entity: str,
        *,
        import_type: imports_pb2.ImportType.ValueType = imports_pb2.IMPORT_TYPE_ADDITIVE,
        file_format: common_pb2.FileFormat.ValueType = common_pb2.FILE_FORMAT_UNSPECIFIED,
        mapping: Sequence[imports_pb2.FieldMapping] = (),
        key_fields: Sequence[str] = (),
        options: imports_pb2.ImportOptions | None = None,
        name: str = "",
        reason: str = "",
        memory: UploadMemory | None = None,
        on_bytes: OnBytes = no_bytes,
        on_event: OnEvent = no_event,
    ) -> imports_pb2.Import:
        """Upload a file and plan its import; the answer waits for `apply_import`, or is applied by `auto_apply`.

        `mapping` may come from `mapping.read_mapping`; `key_fields` are added to those of `options`.

        Raises:
            JobFailed: the file cannot be imported; the reason says why.
        """
        chosen = imports_pb2.ImportOptions()
        if options is not None:
            chosen.CopyFrom(options)
        chosen.key_fields.extend(key_fields)
        upload = self.upload(path, reason=reason, memory=memory, on_bytes=on_bytes)
        recorded = self.create_import(
            imports_pb2.CreateImportRequest(
                upload_id=upload.upload_id,
                import_type=import_type,
                entity_type=entity,
                format=file_format,
                mapping=mapping,
                options=chosen,
                name=name,
                reason=reason,
            )
        )
        return self.follow_import(recorded, on_event=on_event)

    def import_bundle(
        self,
        path: Path,
        *,
        import_type: imports_pb2.ImportType.ValueType = imports_pb2.IMPORT_TYPE_ADDITIVE,
        mapping: Sequence[imports_pb2.FieldMapping] = (),
        options: imports_pb2.ImportOptions | None = None,
        name: str = "",
        reason: str = "",
        memory: UploadMemory | None = None,
        on_bytes: OnBytes = no_bytes,
        on_event: OnEvent = no_event,
    ) -> imports_pb2.Import:
        """`plan_import` for a bundle: every entity in it, in one transaction once it is applied.

        Raises:
            JobFailed: the bundle cannot be imported; the reason says why.
        """
        return self.plan_import(
            path,
            "",
            import_type=import_type,
            file_format=common_pb2.FILE_FORMAT_BUNDLE,
            mapping=mapping,
            options=options,
            name=name,
            reason=reason,
            memory=memory,
            on_bytes=on_bytes,
            on_event=on_event,
        )

    def follow_import(self, recorded: imports_pb2.Import, *, on_event: OnEvent = no_event) -> imports_pb2.Import:
        """Wait for an import's jobs: its plan, and what goes on by itself with `auto_apply`; the import then.

        Raises:
            JobFailed: one of them ended badly; nothing was changed.
        """
        waited: set[str] = set()
        while True:
            begun = [job for job in (recorded.plan_job_id, recorded.apply_job_id) if job and job not in waited]
            if not begun:
                return recorded
            for job in begun:
                try:
                    self.wait(job, on_event=on_event)
                except JobFailed as error:
                    if error.reason != "PLAN_STALE" or self.get_import(recorded.import_id).plan_job_id in waited:
                        raise  # with on_drift=REPLAN a new plan has begun
                waited.add(job)
            recorded = self.get_import(recorded.import_id)

    def apply_import(
        self,
        planned: imports_pb2.Import,
        *,
        confirmed_deletes: int | None = None,
        reason: str = "",
        on_event: OnEvent = no_event,
    ) -> imports_pb2.Import:
        """Apply the plan that `planned` shows, and no other, and return the import with its report.

        Raises:
            JobFailed: nothing was changed; the reason says why.
        """
        request = imports_pb2.ApplyImportRequest(
            request_id=str(uuid.uuid4()),
            import_id=planned.import_id,
            plan_digest=planned.plan.plan_digest,
            confirmed_deletes=confirmed_deletes,
            reason=reason,
        )
        with typed_errors():
            applying = self.imports.ApplyImport(request).data_import
        self.wait(applying.apply_job_id, on_event=on_event)
        return self.get_import(planned.import_id)

    def approve_import(self, planned: imports_pb2.Import, *, reason: str = "") -> imports_pb2.Import:
        """Approve the plan that `planned` shows, and no other, for another person, who then applies it."""
        request = imports_pb2.ApproveImportRequest(
            import_id=planned.import_id, plan_digest=planned.plan.plan_digest, reason=reason
        )
        with typed_errors():
            return self.imports.ApproveImport(request).data_import

    def get_import(self, import_id: str) -> imports_pb2.Import:
        """One import as it stands."""
        with typed_errors():
            return self.imports.GetImport(imports_pb2.GetImportRequest(import_id=import_id)).data_import

    def list_imports(
        self,
        *,
        entity: str = "",
        statuses: Sequence[imports_pb2.ImportStatus.ValueType] = (),
        limit: int = 50,
    ) -> list[imports_pb2.Import]:
        """The newest imports, at most `limit` and at most 1,000."""
        request = imports_pb2.ListImportsRequest(entity_type=entity, statuses=statuses, page_size=limit)
        with typed_errors():
            return list(self.imports.ListImports(request).imports)

    def cancel_import(self, import_id: str, reason: str = "") -> imports_pb2.Import:
        """Ask an import to stop."""
        request = imports_pb2.CancelImportRequest(import_id=import_id, reason=reason)
        with typed_errors():
            return self.imports.CancelImport(request).data_import

    def import_changes(
        self,
        import_id: str,
        *,
        kind: imports_pb2.ChangeKind.ValueType = imports_pb2.CHANGE_KIND_UNSPECIFIED,
        entity: str = "",
        field: str = "",
        page_size: int = 1000,
    ) -> Iterator[imports_pb2.ImportChange]:
        """What the plan does to each row, page by page as it is read; `field`: updates that change it."""
        request = imports_pb2.ListImportChangesRequest(
            import_id=import_id, kind=kind, entity=entity, field=field, page_size=page_size
        )
        for page in pages(self.imports.ListImportChanges, request):
            yield from page.changes

    def import_errors(
        self,
        import_id: str,
        *,
        severity: imports_pb2.RowErrorSeverity.ValueType = imports_pb2.ROW_ERROR_SEVERITY_UNSPECIFIED,
        code: str = "",
        entity: str = "",
        page_size: int = 1000,
    ) -> Iterator[imports_pb2.ImportRowError]:
        """The rows that were not taken, by row number, page by page as they are read."""
        request = imports_pb2.ListImportErrorsRequest(
            import_id=import_id, severity=severity, code=code, entity=entity, page_size=page_size
        )
        for page in pages(self.imports.ListImportErrors, request):
            yield from page.errors

    def download_report(
        self,
        import_id: str,
        part: imports_pb2.ReportPart.ValueType,
        path: Path,
        *,
        on_bytes: OnBytes = no_bytes,
        on_waiting: OnWaiting = lambda _error: None,
        patience: float = REPORT_PATIENCE,
    ) -> Downloaded:
        """Download one part of an import's report; one that is being made is waited for, up to `patience` seconds."""
        return download_file(
            lambda offset: self.imports.DownloadImportReport(
                imports_pb2.DownloadImportReportRequest(import_id=import_id, part=part, offset=offset)
            ),
            path,
            source_id=f"{import_id}-{part}",
            on_bytes=on_bytes,
            on_waiting=on_waiting,
            patience=patience,
        )
