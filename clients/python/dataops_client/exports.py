"""Exports for a program: whole entities, a filtered part, everything. Part of `DataOps`."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from dataops.v1 import common_pb2, exports_pb2, exports_pb2_grpc

from dataops_client.download import Downloaded, download_file
from dataops_client.errors import FailedPrecondition, typed_errors
from dataops_client.jobs import JobCalls, OnEvent, no_event
from dataops_client.names import compression_of, format_of
from dataops_client.transfer import OnBytes, no_bytes


class ExportCalls(JobCalls):
    """The calls that are about exports."""

    exports: exports_pb2_grpc.ExportServiceStub

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
        file_format: common_pb2.FileFormat.ValueType = common_pb2.FILE_FORMAT_UNSPECIFIED,
        columns: Sequence[str] = (),
        filter: exports_pb2.ExportFilter | None = None,  # noqa: A002 -- the contract's word
        order_by: Sequence[exports_pb2.FieldOrder] = (),
        limit: int = 0,
        compression: common_pb2.Compression.ValueType = common_pb2.COMPRESSION_UNSPECIFIED,
        options: exports_pb2.ExportOptions | None = None,
        reason: str = "",
        on_bytes: OnBytes = no_bytes,
        on_event: OnEvent = no_event,
    ) -> exports_pb2.Export:
        """Export rows of the entities into a file, which is received while it is still being written.

        All rows, or a PARTIAL export as soon as there is a filter, an order or a limit. A condition may come from
        `conditions.parse_condition`. Several entities need a bundle. Format and compression go by the file's name
        (`.csv`, `.json`, `.jsonl`, `.zip`, with `.gz` or `.zst` behind) where they are not given here or in `options`.

        Raises:
            ValueError: the name has another ending, and no format is given; nothing was started.
            JobFailed: the export ended without a file.
        """
        request = exports_pb2.CreateExportRequest(
            export_type=exports_pb2.EXPORT_TYPE_ENTITY,
            entity_types=entities,
            format=file_format or format_of(path),
            columns=columns,
            filter=filter,
            order_by=order_by,
            limit=limit,
            options=options,
            reason=reason,
        )
        compression = compression or request.options.compression or compression_of(path)
        if compression:
            request.options.compression = compression
        if limit or order_by or (filter is not None and filter.ByteSize()):
            request.export_type = exports_pb2.EXPORT_TYPE_PARTIAL
        return self.receive_export(self.create_export(request), path, on_bytes=on_bytes, on_event=on_event)

    def export_all(
        self,
        path: Path,
        *,
        options: exports_pb2.ExportOptions | None = None,
        reason: str = "",
        on_bytes: OnBytes = no_bytes,
        on_event: OnEvent = no_event,
    ) -> exports_pb2.Export:
        """Export every entity of one moment into a bundle, which `import_bundle` takes back.

        Raises:
            JobFailed: the export ended without a file.
        """
        request = exports_pb2.CreateExportRequest(
            export_type=exports_pb2.EXPORT_TYPE_FULL,
            format=common_pb2.FILE_FORMAT_BUNDLE,
            options=options,
            reason=reason,
        )
        return self.receive_export(self.create_export(request), path, on_bytes=on_bytes, on_event=on_event)

    def receive_export(
        self,
        export: exports_pb2.Export,
        path: Path,
        *,
        on_bytes: OnBytes = no_bytes,
        on_event: OnEvent = no_event,
    ) -> exports_pb2.Export:
        """Download an export's file while it is being written, and return the export as it ended.

        `on_event` is told what happens until its job has begun: whether it waits, and for what.

        Raises:
            JobFailed: the export ended without a file.
        """
        if on_event is not no_event:
            self.wait_until_begun(export.job_id, on_event=on_event)
        try:
            self.download_export(export.export_id, path, follow=True, on_bytes=on_bytes)
        except FailedPrecondition as error:
            if error.reason == "EXPORT_STATE":  # its job knows why there is no file
                self.wait(export.job_id)
            raise
        return self.get_export(export.export_id)  # its footer came after its job had ended

    def download_export(
        self, export_id: str, path: Path, *, follow: bool = False, on_bytes: OnBytes = no_bytes
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

    def list_exports(
        self,
        *,
        entity: str = "",
        statuses: Sequence[exports_pb2.ExportStatus.ValueType] = (),
        limit: int = 50,
    ) -> list[exports_pb2.Export]:
        """The newest exports, at most `limit` and at most 1,000."""
        request = exports_pb2.ListExportsRequest(entity_type=entity, statuses=statuses, page_size=limit)
        with typed_errors():
            return list(self.exports.ListExports(request).exports)

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
