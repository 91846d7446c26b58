"""The whole of DataOps for a program: one object over one channel.

    with DataOps.connect("dataops.example:8443", ca_file=Path("ca.pem"), token=TokenFile(path)) as dataops:
        planned = dataops.plan_import(Path("users.csv"), "users")
        done = dataops.apply_import(planned)
        dataops.export_to(Path("copy.csv"), ["users"])

Every call raises `dataops_client.errors`; the stubs stand beside it as attributes for what has no method here.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from dataops.v1 import (
    access_pb2_grpc,
    audit_pb2_grpc,
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

from dataops_client.channel import Token, open_channel
from dataops_client.download import Downloaded, download_file
from dataops_client.errors import typed_errors
from dataops_client.transfer import OnBytes
from dataops_client.upload import upload_file
from dataops_client.watch import wait_for_job, watch_job

OnEvent = Callable[[jobs_pb2.JobEvent], None]
"""Told each event of a job as it happens."""


def _no_bytes(_done: int, _size: int | None) -> None:
    """Progress that nobody looks at."""


def _no_event(_event: jobs_pb2.JobEvent) -> None:
    """Events that nobody looks at."""


class DataOps:
    """A connection to one server. Safe for many threads; close it when done."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.access = access_pb2_grpc.AccessServiceStub(channel)
        self.audit = audit_pb2_grpc.AuditServiceStub(channel)
        self.catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
        self.exports = exports_pb2_grpc.ExportServiceStub(channel)
        self.imports = imports_pb2_grpc.ImportServiceStub(channel)
        self.jobs = jobs_pb2_grpc.JobServiceStub(channel)
        self.uploads = uploads_pb2_grpc.UploadServiceStub(channel)

    @classmethod
    def connect(
        cls,
        address: str,
        *,
        ca_file: Path | None = None,
        token: Token | None = None,
        server_name: str | None = None,
        client_name: str = "",
    ) -> Self:
        """Open a channel; see `open_channel`. Nothing is sent before the first call."""
        ca = ca_file.read_bytes() if ca_file else None
        channel = open_channel(address, ca=ca, token=token, server_name=server_name, client_name=client_name)
        return cls(channel)

    def close(self) -> None:
        """End the connection and every call on it."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # catalog

    def entities(self, group: str = "") -> Iterator[catalog_pb2.Entity]:
        """Every entity the caller may see, by name, without fields."""
        request = catalog_pb2.ListEntitiesRequest(group=group, page_size=1000)
        while True:
            with typed_errors():
                page = self.catalog.ListEntities(request)
            yield from page.entities
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def entity(self, name: str) -> catalog_pb2.Entity:
        """One entity with its fields."""
        with typed_errors():
            return self.catalog.GetEntity(catalog_pb2.GetEntityRequest(entity=name)).entity

    # imports

    def upload(self, path: Path, *, reason: str = "", on_bytes: OnBytes = _no_bytes) -> uploads_pb2.Upload:
        """Upload a file, resuming as often as needed; see `upload.upload_file`."""
        return upload_file(self.uploads, path, reason=reason, on_bytes=on_bytes)

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
        options: imports_pb2.ImportOptions | None = None,
        reason: str = "",
        on_bytes: OnBytes = _no_bytes,
        on_event: OnEvent = _no_event,
    ) -> imports_pb2.Import:
        """Upload a file and plan its import; the answer waits for `apply_import`, or is applied by `auto_apply`.

        Raises:
            JobFailed: the file cannot be imported; the reason says why.
        """
        upload = self.upload(path, reason=reason, on_bytes=on_bytes)
        recorded = self.create_import(
            imports_pb2.CreateImportRequest(
                upload_id=upload.upload_id,
                import_type=import_type,
                entity_type=entity,
                options=options,
                reason=reason,
            )
        )
        self.wait(recorded.plan_job_id, on_event=on_event)
        planned = self.get_import(recorded.import_id)
        if planned.apply_job_id:
            self.wait(planned.apply_job_id, on_event=on_event)
            return self.get_import(recorded.import_id)
        return planned

    def apply_import(
        self,
        planned: imports_pb2.Import,
        *,
        confirmed_deletes: int | None = None,
        reason: str = "",
        on_event: OnEvent = _no_event,
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

    def get_import(self, import_id: str) -> imports_pb2.Import:
        """One import as it stands."""
        with typed_errors():
            return self.imports.GetImport(imports_pb2.GetImportRequest(import_id=import_id)).data_import

    def list_imports(self, *, limit: int = 50) -> list[imports_pb2.Import]:
        """The newest imports, at most `limit` and at most 1,000."""
        with typed_errors():
            return list(self.imports.ListImports(imports_pb2.ListImportsRequest(page_size=limit)).imports)

    def cancel_import(self, import_id: str, reason: str = "") -> imports_pb2.Import:
        """Ask an import to stop."""
        request = imports_pb2.CancelImportRequest(import_id=import_id, reason=reason)
        with typed_errors():
            return self.imports.CancelImport(request).data_import

    def import_errors(self, import_id: str, *, page_size: int = 1000) -> Iterator[imports_pb2.ImportRowError]:
        """The rows that were not taken, by row number, page by page as they are read."""
        request = imports_pb2.ListImportErrorsRequest(import_id=import_id, page_size=page_size)
        while True:
            with typed_errors():
                page = self.imports.ListImportErrors(request)
            yield from page.errors
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def download_report(
        self,
        import_id: str,
        part: imports_pb2.ReportPart.ValueType,
        path: Path,
        *,
        on_bytes: OnBytes = _no_bytes,
    ) -> Downloaded:
        """Download one part of an import's report."""
        return download_file(
            lambda offset: self.imports.DownloadImportReport(
                imports_pb2.DownloadImportReportRequest(import_id=import_id, part=part, offset=offset)
            ),
            path,
            source_id=f"{import_id}-{part}",
            on_bytes=on_bytes,
        )

    # exports

    def create_export(self, request: exports_pb2.CreateExportRequest) -> exports_pb2.Export:
        """Record an export and start it; a request id is made up if there is none."""
        request.request_id = request.request_id or str(uuid.uuid4())
        with typed_errors():
            return self.exports.CreateExport(request).export

    def export_to(
        self,
        path: Path,
        entities: Sequence[str],
        *,
        file_format: common_pb2.FileFormat.ValueType = common_pb2.FILE_FORMAT_CSV,
        columns: Sequence[str] = (),
        options: exports_pb2.ExportOptions | None = None,
        reason: str = "",
        on_bytes: OnBytes = _no_bytes,
    ) -> exports_pb2.Export:
        """Export all rows of the entities into a file, which is received while it is still being written.

        Raises:
            JobFailed: the export ended without a file.
        """
        export = self.create_export(
            exports_pb2.CreateExportRequest(
                export_type=exports_pb2.EXPORT_TYPE_ENTITY,
                entity_types=entities,
                format=file_format,
                columns=columns,
                options=options,
                reason=reason,
            )
        )
        self.download_export(export.export_id, path, follow=True, on_bytes=on_bytes)
        self.wait(export.job_id)
        return self.get_export(export.export_id)

    def download_export(
        self, export_id: str, path: Path, *, follow: bool = False, on_bytes: OnBytes = _no_bytes
    ) -> Downloaded:
        """Download an export's file; `follow` waits for one that is being written."""
        return download_file(
            lambda offset: self.exports.DownloadExport(
                exports_pb2.DownloadExportRequest(export_id=export_id, offset=offset, follow=follow)
            ),
            path,
            source_id=export_id,
            on_bytes=on_bytes,
        )

    def get_export(self, export_id: str) -> exports_pb2.Export:
        """One export as it stands."""
        with typed_errors():
            return self.exports.GetExport(exports_pb2.GetExportRequest(export_id=export_id)).export

    def list_exports(self, *, limit: int = 50) -> list[exports_pb2.Export]:
        """The newest exports, at most `limit` and at most 1,000."""
        with typed_errors():
            return list(self.exports.ListExports(exports_pb2.ListExportsRequest(page_size=limit)).exports)

    def cancel_export(self, export_id: str, reason: str = "") -> exports_pb2.Export:
        """Ask an export to stop."""
        request = exports_pb2.CancelExportRequest(export_id=export_id, reason=reason)
        with typed_errors():
            return self.exports.CancelExport(request).export

    def delete_export(self, export_id: str, reason: str = "") -> exports_pb2.Export:
        """Delete an export's file."""
        request = exports_pb2.DeleteExportRequest(export_id=export_id, reason=reason)
        with typed_errors():
            return self.exports.DeleteExport(request).export

    # jobs

    def get_job(self, job_id: str) -> jobs_pb2.Job:
        """One job as it stands."""
        with typed_errors():
            return self.jobs.GetJob(jobs_pb2.GetJobRequest(job_id=job_id)).job

    def retry_job(self, job_id: str, reason: str = "") -> jobs_pb2.Job:
        """Put a failed job back to PENDING."""
        request = jobs_pb2.RetryJobRequest(request_id=str(uuid.uuid4()), job_id=job_id, reason=reason)
        with typed_errors():
            return self.jobs.RetryJob(request).job

    def watch(self, job_id: str, after_sequence: int = 0) -> Iterator[jobs_pb2.JobEvent]:
        """A job's events as they happen, over any number of broken connections; see `watch.watch_job`."""
        return watch_job(self.jobs, job_id, after_sequence)

    def wait(self, job_id: str, *, on_event: OnEvent = _no_event) -> jobs_pb2.Job:
        """Wait until a job is COMPLETED; JobFailed if it ends otherwise."""
        return wait_for_job(self.jobs, job_id, on_event)

    def cancel_job(self, job_id: str, reason: str = "") -> jobs_pb2.Job:
        """Ask a job to stop."""
        with typed_errors():
            return self.jobs.CancelJob(jobs_pb2.CancelJobRequest(job_id=job_id, reason=reason)).job

    def list_jobs(self, *, states: Sequence[jobs_pb2.JobState.ValueType] = (), limit: int = 50) -> list[jobs_pb2.Job]:
        """The newest jobs, at most `limit` and at most 1,000."""
        request = jobs_pb2.ListJobsRequest(states=states, page_size=limit)
        with typed_errors():
            return list(self.jobs.ListJobs(request).jobs)
