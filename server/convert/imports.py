"""Imports, between the wire and the engine: what is asked for, and the import's own message."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from dataops.v1 import common_pb2, imports_pb2

from engine.db.models import ImportRow, PrincipalRow
from engine.errors import InvalidRequest, NotBuilt
from engine.ids import parse_id
from engine.imports.model import (
    ColumnMapping,
    CsvOptions,
    ImportOptions,
    ImportRequest,
    ImportType,
    OnDrift,
    OnRefused,
)
from server.convert.common import call_context, number_of, operation_error, timestamp, word_of
from server.convert.csv import csv_options
from server.convert.plans import plan_summary, report

_BY_ENDING = {"json": "JSON", "xlsx": "XLSX", "parquet": "PARQUET", "xml": "XML", "zip": "BUNDLE"}


def data_import(row: ImportRow, principals: Mapping[uuid.UUID, PrincipalRow]) -> imports_pb2.Import:
    options = ImportOptions.from_record(row.options)
    mapping = [imports_pb2.FieldMapping(field=m["field"], column=m["column"]) for m in row.options.get("mapping", ())]
    return imports_pb2.Import(
        import_id=str(row.id),
        import_type=number_of(imports_pb2.ImportType, row.import_type),
        entity_type=row.entity_type,
        total_records=row.total_records,
        successful_records=row.successful_records,
        failed_records=row.failed_records,
        status=number_of(imports_pb2.ImportStatus, row.status),
        pre_import_backup_id=str(row.pre_import_backup_id or ""),
        requested_by_admin_id=str(row.principal_id),
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
        entity_types=[row.entity_type],
        upload_id=str(row.upload_id),
        name=str(row.options.get("name", "")),
        format=number_of(common_pb2.FileFormat, options.format),
        mapping=mapping,
        options=_options(options),
        plan=plan_summary(row),
        report=report(row),
        plan_job_id=str(row.plan_job_id or ""),
        apply_job_id=str(row.apply_job_id or ""),
        error=operation_error(row.error),
        context=call_context(row.principal_id, row.context, principals.get(row.principal_id)),
        completed_at=timestamp(row.completed_at),
    )


def request_of(request: imports_pb2.CreateImportRequest, file_name: str) -> ImportRequest:
    """What is asked for; `file_name` tells the format where the request does not.

    Raises:
        NotBuilt: NOT_BUILT for a part of the contract that this release does not do.
        InvalidRequest: MAPPING_INVALID.
    """
    return ImportRequest(
        upload_id=parse_id(request.upload_id, "upload_id"),
        entity_type=request.entity_type,
        import_type=ImportType(word_of(imports_pb2.ImportType, request.import_type)),
        options=_options_of(request.options, _format(request.format, file_name)),
        mapping=tuple(_mapping_of(item) for item in request.mapping),
        name=request.name,
    )


def _format(number: int, file_name: str) -> str:
    if number:
        return word_of(common_pb2.FileFormat, number)
    return _BY_ENDING.get(file_name.rpartition(".")[2].lower(), "CSV")


def _options(options: ImportOptions) -> imports_pb2.ImportOptions:
    csv = options.csv
    return imports_pb2.ImportOptions(
        csv=common_pb2.CsvOptions(delimiter=csv.delimiter, quote='"', null_text=csv.null_text, encoding="utf-8"),
        undo_formula_guard=csv.undo_formula_guard,
        error_budget=options.error_budget,
        on_drift=number_of(imports_pb2.OnDrift, options.on_drift),
        on_refused=number_of(imports_pb2.OnRefused, options.on_refused),
        auto_apply=options.auto_apply,
    )


def _options_of(options: imports_pb2.ImportOptions, file_format: str) -> ImportOptions:
    on_drift = word_of(imports_pb2.OnDrift, options.on_drift) or OnDrift.ABORT
    if on_drift not in tuple(OnDrift) or options.allow_cascade or options.HasField("max_deletes"):
        raise NotBuilt(
            "on_drift REPLAN, allow_cascade, max_deletes: expected none of them in this release", reason="NOT_BUILT"
        )
    csv = csv_options(options.csv)
    return ImportOptions(
        format=file_format,
        csv=CsvOptions(csv.delimiter, csv.null_text, options.undo_formula_guard),
        auto_apply=options.auto_apply,
        error_budget=options.error_budget if options.HasField("error_budget") else None,
        on_drift=OnDrift(on_drift),
        on_refused=OnRefused(word_of(imports_pb2.OnRefused, options.on_refused) or OnRefused.ABORT),
    )


def _mapping_of(item: imports_pb2.FieldMapping) -> ColumnMapping:
    if item.WhichOneof("source") is None:
        raise InvalidRequest(f"mapping of {item.field}: expected a column or a constant", reason="MAPPING_INVALID")
    if item.HasField("constant") or item.entity:
        raise NotBuilt("mapping: expected columns of one entity in this release", reason="NOT_BUILT")
    return ColumnMapping(item.column, item.field)
