"""Imports, between the wire and the engine: what is asked for, and the import's own message."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping

from dataops.v1 import common_pb2, imports_pb2

from engine.db.models import ImportRow, PrincipalRow
from engine.errors import InvalidRequest
from engine.formats.encodings import encoding_of
from engine.ids import parse_id
from engine.imports.model import (
    CsvOptions,
    FieldMapping,
    ImportOptions,
    ImportRequest,
    ImportType,
    JsonOptions,
    LetterCase,
    OnDrift,
    OnRefused,
    effective_error_budget,
    effective_on_refused,
)
from server.convert.common import call_context, number_of, operation_error, timestamp, word_of
from server.convert.csv import csv_options
from server.convert.plans import plan_summary, report

_BY_ENDING = {
    "json": "JSON",
    "jsonl": "JSON_LINES",
    "ndjson": "JSON_LINES",
    "xlsx": "XLSX",
    "parquet": "PARQUET",
    "xml": "XML",
    "zip": "BUNDLE",
}
_COMPRESSED = (".gz", ".zst")
"""Endings around a format's own; the compression itself is found from the first bytes."""


def data_import(row: ImportRow, principals: Mapping[uuid.UUID, PrincipalRow]) -> imports_pb2.Import:
    options = ImportOptions.from_record(row.options)
    mapping = [_mapping(FieldMapping.from_record(record)) for record in row.options.get("mapping", ())]
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
        approved_by_admin_id=str(row.approved_by or ""),
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
        entity_types=row.entity_types,
        upload_id=str(row.upload_id),
        name=str(row.options.get("name", "")),
        format=number_of(common_pb2.FileFormat, options.format),
        mapping=mapping,
        options=_options(options, row),
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
        InvalidRequest: MAPPING_INVALID, OPTION_INVALID.
    """
    return ImportRequest(
        upload_id=parse_id(request.upload_id, "upload_id"),
        entity_type=request.entity_type,
        import_type=ImportType(word_of(imports_pb2.ImportType, request.import_type)),
        options=_options_of(request.options, _format(request.format, file_name)),
        mapping=tuple(_mapping_of(item, request.entity_type) for item in request.mapping),
        name=request.name,
    )


def _format(number: int, file_name: str) -> str:
    if number:
        return word_of(common_pb2.FileFormat, number)
    name = file_name.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return _BY_ENDING.get(name.rpartition(".")[2], "CSV")


def _options(options: ImportOptions, row: ImportRow) -> imports_pb2.ImportOptions:
    """With every default filled in that does not depend on the table's rows."""
    csv = options.csv
    mode = ImportType(row.import_type)
    return imports_pb2.ImportOptions(
        csv=common_pb2.CsvOptions(
            delimiter=csv.delimiter, quote=csv.quote, null_text=csv.null_text, encoding=csv.encoding
        ),
        json=imports_pb2.JsonOptions(absent_is_null=options.json.absent_is_null),
        undo_formula_guard=csv.undo_formula_guard,
        error_budget=effective_error_budget(options, mode),
        on_drift=number_of(imports_pb2.OnDrift, options.on_drift),
        on_refused=number_of(imports_pb2.OnRefused, effective_on_refused(options, mode)),
        auto_apply=options.auto_apply,
        allow_cascade=options.allow_cascade,
        max_deletes=options.max_deletes,
        key_fields=options.key_fields,
    )


def _options_of(options: imports_pb2.ImportOptions, file_format: str) -> ImportOptions:
    on_drift = OnDrift(word_of(imports_pb2.OnDrift, options.on_drift) or OnDrift.ABORT)
    on_refused = word_of(imports_pb2.OnRefused, options.on_refused)
    csv = csv_options(options.csv)
    return ImportOptions(
        format=file_format,
        csv=CsvOptions(csv.delimiter, csv.null_text, options.undo_formula_guard, csv.quote, encoding_of(csv.encoding)),
        json=JsonOptions(options.json.absent_is_null),
        auto_apply=options.auto_apply,
        error_budget=options.error_budget if options.HasField("error_budget") else None,
        on_drift=on_drift,
        on_refused=OnRefused(on_refused) if on_refused else None,
        allow_cascade=tuple(options.allow_cascade),
        max_deletes=options.max_deletes if options.HasField("max_deletes") else None,
        key_fields=tuple(options.key_fields),
    )


def _mapping(mapping: FieldMapping) -> imports_pb2.FieldMapping:
    made = imports_pb2.FieldMapping(
        field=mapping.field,
        entity=mapping.entity,
        trim=mapping.trim,
        empty_is_null=mapping.empty_is_null,
        letter_case=number_of(imports_pb2.LetterCase, mapping.letter_case or ""),
        values=[imports_pb2.ValueMapping(text=text, becomes=becomes) for text, becomes in mapping.values],
        only_listed_values=mapping.only_listed_values,
        default=mapping.default,
        lookup=mapping.lookup,
    )
    if mapping.column is not None:
        made.column = mapping.column
    elif mapping.constant is not None:
        made.constant = mapping.constant
    if mapping.date_pattern:
        made.date_format.pattern = mapping.date_pattern
        made.date_format.time_zone = mapping.time_zone
    return made


def _mapping_of(item: imports_pb2.FieldMapping, entity_type: str) -> FieldMapping:
    """One record of a mapping, as far as it can be judged without the file and the catalog; the plan does the rest."""
    if item.WhichOneof("source") is None:
        raise _invalid(item, "found neither a column nor a constant, expected one of them")
    if item.HasField("constant") and not item.field:
        raise _invalid(item, "found a constant for no field, expected the field that it fills")
    if entity_type and item.entity not in ("", entity_type):
        raise _invalid(item, f"found the entity {item.entity[:80]!r}, expected {entity_type!r} or none")
    if not entity_type and not item.entity:
        raise _invalid(item, "found no entity, expected the one of the bundle that the field belongs to")
    repeated = [text for text, times in Counter(v.text for v in item.values).items() if times > 1]
    if repeated:
        raise _invalid(item, f"found {repeated[0][:80]!r} twice in its values, expected each text once")
    case = word_of(imports_pb2.LetterCase, item.letter_case)
    return FieldMapping(
        field=item.field,
        column=item.column if item.HasField("column") else None,
        constant=item.constant if item.HasField("constant") else None,
        entity=item.entity,
        trim=item.trim,
        empty_is_null=item.empty_is_null,
        letter_case=LetterCase(case) if case else None,
        values=tuple((value.text, value.becomes) for value in item.values),
        only_listed_values=item.only_listed_values,
        date_pattern=item.date_format.pattern,
        time_zone=item.date_format.time_zone,
        default=item.default if item.HasField("default") else None,
        lookup=item.lookup,
    )


def _invalid(item: imports_pb2.FieldMapping, wrong: str) -> InvalidRequest:
    return InvalidRequest(f"mapping of {item.field[:80]!r}: {wrong}", reason="MAPPING_INVALID")
