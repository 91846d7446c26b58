"""Exports, between the wire and the engine."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from dataops.v1 import common_pb2, exports_pb2

from engine.db.models import ExportRow, PrincipalRow
from engine.errors import InvalidRequest, NotBuilt
from engine.exports.model import ExportFormat, ExportOptions, ExportRequest, ExportType
from server.convert.common import call_context, number_of, operation_error, timestamp, word_of
from server.convert.csv import csv_options


def export(row: ExportRow, principals: Mapping[uuid.UUID, PrincipalRow]) -> exports_pb2.Export:
    options = ExportOptions.from_record(row.options)
    done = row.status == "COMPLETED"
    return exports_pb2.Export(
        export_id=str(row.id),
        export_type=number_of(exports_pb2.ExportType, row.export_type),
        entity_types=row.entity_types,
        format=number_of(common_pb2.FileFormat, row.format),
        file_url=f"dataops://exports/{row.id}" if done else "",
        file_size_bytes=row.file_size_bytes,
        record_count=row.record_count,
        status=number_of(exports_pb2.ExportStatus, row.status),
        requested_by_admin_id=str(row.principal_id),
        completed_at=timestamp(row.completed_at) if row.sha256 else None,
        expires_at=timestamp(row.expires_at),
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
        snapshot_at=timestamp(row.snapshot_at),
        name=str(row.options.get("name") or row.file_name),
        file_name=row.file_name,
        sha256=row.sha256 or b"",
        columns=options.columns,
        options=exports_pb2.ExportOptions(
            csv=common_pb2.CsvOptions(delimiter=options.delimiter, quote='"', null_text="", encoding="utf-8"),
            formula_guard=options.formula_guard,
        ),
        job_id=str(row.job_id or ""),
        error=operation_error(row.error),
        context=call_context(row.principal_id, row.context, principals.get(row.principal_id)),
    )


def request_of(request: exports_pb2.CreateExportRequest) -> ExportRequest:
    """What is asked for.

    Raises:
        NotBuilt: NOT_BUILT for a part of the contract that this release does not do.
        InvalidRequest: FILTER_NEEDS_PARTIAL.
    """
    export_type = ExportType(word_of(exports_pb2.ExportType, request.export_type))
    if request.HasField("filter") and export_type is not ExportType.PARTIAL:
        raise InvalidRequest(f"filter: needs PARTIAL, found {export_type}", reason="FILTER_NEEDS_PARTIAL")
    word = word_of(common_pb2.FileFormat, request.format)
    if word not in tuple(ExportFormat):
        raise NotBuilt(f"format: found {word}, expected CSV in this release", reason="NOT_BUILT")
    csv = csv_options(request.options.csv)
    if csv.null_text:
        raise NotBuilt("null_text: an export writes NULL as a bare empty cell in this release", reason="NOT_BUILT")
    guard = request.options.formula_guard if request.options.HasField("formula_guard") else True
    return ExportRequest(
        export_type=export_type,
        entity_types=tuple(request.entity_types),
        format=ExportFormat(word),
        options=ExportOptions(delimiter=csv.delimiter, formula_guard=guard, columns=tuple(request.columns)),
        name=request.name,
    )
