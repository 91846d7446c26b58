"""Exports, between the wire and the engine."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from dataops.v1 import common_pb2, exports_pb2

from engine.db.models import ExportRow, PrincipalRow
from engine.errors import InvalidRequest, NotBuilt
from engine.exports.model import (
    Compression,
    Condition,
    ExportFormat,
    ExportOptions,
    ExportRequest,
    ExportType,
    FilterOperator,
    Order,
    Selection,
    Span,
)
from engine.formats.encodings import encoding_of
from server.convert.common import call_context, moment, number_of, operation_error, timestamp, word_of
from server.convert.csv import csv_options
from server.convert.jobs import notice


def export(row: ExportRow, principals: Mapping[uuid.UUID, PrincipalRow]) -> exports_pb2.Export:
    options = ExportOptions.from_record(row.options)
    selection = Selection.from_record(row.options.get("selection") or {})
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
        filter=_filter(selection),
        options=exports_pb2.ExportOptions(
            csv=common_pb2.CsvOptions(delimiter=options.delimiter, quote='"', null_text="", encoding="utf-8"),
            formula_guard=options.formula_guard,
            compression=number_of(common_pb2.Compression, options.compression),
        ),
        job_id=str(row.job_id or ""),
        error=operation_error(row.error),
        context=call_context(row.principal_id, row.context, principals.get(row.principal_id)),
        notices=[notice(record) for record in row.options.get("notices", ())],
        order_by=[exports_pb2.FieldOrder(field=o.field, descending=o.descending) for o in selection.order_by],
        limit=selection.limit,
        entities=[
            exports_pb2.ExportedEntity(
                entity=found["entity"],
                file_name=found["file_name"],
                record_count=found["record_count"],
                sha256=bytes.fromhex(found["sha256"]),
            )
            for found in row.entities
        ],
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
        raise NotBuilt(f"format: found {word}, expected CSV, JSON, JSON_LINES or BUNDLE", reason="NOT_BUILT")
    csv = csv_options(request.options.csv)
    if csv.quote != '"' or encoding_of(csv.encoding) != "utf-8":
        raise InvalidRequest(
            f'csv: found the quote {csv.quote} and the encoding {csv.encoding!r}, expected " and utf-8',
            reason="OPTION_INVALID",
        )
    if csv.null_text:
        raise NotBuilt("null_text: an export writes NULL as a bare empty cell in this release", reason="NOT_BUILT")
    compression = word_of(common_pb2.Compression, request.options.compression)
    guard = request.options.formula_guard if request.options.HasField("formula_guard") else True
    return ExportRequest(
        export_type=export_type,
        entity_types=tuple(request.entity_types),
        format=ExportFormat(word),
        options=ExportOptions(
            delimiter=csv.delimiter,
            formula_guard=guard and word == ExportFormat.CSV,
            columns=tuple(request.columns),
            compression=Compression(compression or Compression.NONE),
        ),
        name=request.name,
        selection=_selection_of(request),
    )


def _selection_of(request: exports_pb2.CreateExportRequest) -> Selection:
    found = request.filter
    return Selection(
        created=(moment(found.created, "start"), moment(found.created, "end")),
        updated=(moment(found.updated, "start"), moment(found.updated, "end")),
        statuses=tuple(found.statuses),
        conditions=tuple(
            Condition(c.field, FilterOperator(word_of(exports_pb2.FilterOperator, c.operator)), tuple(c.values))
            for c in found.conditions
        ),
        order_by=tuple(Order(step.field, step.descending) for step in request.order_by),
        limit=request.limit,
    )


def _filter(selection: Selection) -> exports_pb2.ExportFilter | None:
    """As it was asked for; absent when nothing was."""
    if not selection.filters:
        return None
    return exports_pb2.ExportFilter(
        created=_time_range(selection.created),
        updated=_time_range(selection.updated),
        statuses=selection.statuses,
        conditions=[
            exports_pb2.FieldCondition(
                field=c.field, operator=number_of(exports_pb2.FilterOperator, c.operator), values=c.values
            )
            for c in selection.conditions
        ],
    )


def _time_range(span: Span) -> common_pb2.TimeRange | None:
    return common_pb2.TimeRange(start=timestamp(span[0]), end=timestamp(span[1])) if any(span) else None
