"""ImportService: from a plan to its report, what is listed and shown, and what is refused at the call."""

from __future__ import annotations

import gzip
import hashlib
import json
import uuid

import grpc
import psycopg
import pytest
from dataops.v1 import backups_pb2, common_pb2, exports_pb2, imports_pb2

from engine.db.models import ImportRow
from server.convert.imports import data_import
from tests.server.services.kit import GOOD_AND_BAD, HEADER, by, refusal, row, taken

TWICE = [imports_pb2.ValueMapping(text="a", becomes="b"), imports_pb2.ValueMapping(text="a", becomes="c")]


async def test_an_import_goes_from_plan_to_report(client, platform_dsn):
    planned = await client.planned(options=imports_pb2.ImportOptions(error_budget=5), name="new users")

    assert planned.status == imports_pb2.IMPORT_STATUS_AWAITING_APPROVAL
    assert (planned.name, planned.format) == ("new users", common_pb2.FILE_FORMAT_CSV)
    assert (planned.options.error_budget, planned.options.csv.delimiter) == (5, ",")
    counts = planned.plan.counts
    assert (counts.inserts, counts.skips + counts.failed) == (2, 2)
    assert planned.plan.entities[0].lock_mode != imports_pb2.LOCK_MODE_UNSPECIFIED
    assert [notice.code for notice in planned.plan.notices] == []
    assert planned.context.principal.subject == "admin"

    request = imports_pb2.ApplyImportRequest(import_id=planned.import_id, plan_digest=planned.plan.plan_digest)
    applying = (await client.imports.ApplyImport(request)).data_import
    assert applying.status == imports_pb2.IMPORT_STATUS_PROCESSING
    await client.run_jobs()
    assert (await client.imports.ApplyImport(request)).data_import.apply_job_id == applying.apply_job_id
    done = await client.get(planned.import_id)
    report = done.report
    assert done.status == imports_pb2.IMPORT_STATUS_COMPLETED
    assert (report.total_records, report.inserted, report.skipped + report.failed) == (4, 2, 2)
    assert report.entities[0].rows_after == report.entities[0].rows_before + 2
    assert (await _backup_of(client, done)).trigger_type == backups_pb2.TRIGGER_TYPE_PRE_IMPORT
    with psycopg.connect(platform_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (2,)


async def _backup_of(client, done: imports_pb2.Import) -> backups_pb2.Backup:
    request = backups_pb2.GetBackupRequest(backup_id=done.pre_import_backup_id)
    return (await client.backups.GetBackup(request)).backup


async def test_errors_and_changes_are_listed_by_pages(client):
    bad = "".join(row(number, "PILOT") for number in range(10, 15))
    planned = await client.planned((HEADER + row(1) + row(2) + row(3) + bad).encode())
    errors, token = [], ""
    while True:
        page = await client.imports.ListImportErrors(
            imports_pb2.ListImportErrorsRequest(import_id=planned.import_id, page_size=2, page_token=token)
        )
        assert page.total_errors == 5
        errors += page.errors
        if not (token := page.next_page_token):
            break
    assert [error.row for error in errors] == [5, 6, 7, 8, 9]
    assert {(e.field, e.severity, e.value, e.entity) for e in errors} == {
        ("role", imports_pb2.ROW_ERROR_SEVERITY_FAILED, "PILOT", "users")
    }

    request = imports_pb2.ListImportChangesRequest(import_id=planned.import_id, page_size=2)
    first = await client.imports.ListImportChanges(request)
    request.page_token = first.next_page_token
    second = await client.imports.ListImportChanges(request)
    assert [len(first.changes), len(second.changes), second.next_page_token] == [2, 1, ""]
    change = first.changes[0]
    assert change.kind == imports_pb2.CHANGE_KIND_INSERT
    assert {field.name for field in change.fields} >= {"id", "email", "name", "role"}
    assert not any(field.HasField("old") for field in change.fields)
    none = imports_pb2.ListImportChangesRequest(import_id=planned.import_id, kind=imports_pb2.CHANGE_KIND_DELETE)
    assert not (await client.imports.ListImportChanges(none)).changes


async def test_the_reject_file_is_downloaded_with_its_footer(client, edge):
    planned = await client.planned()
    request = imports_pb2.DownloadImportReportRequest(import_id=planned.import_id, part=imports_pb2.REPORT_PART_REJECTS)
    content, footer = await taken(client.imports.DownloadImportReport(request))

    assert b"_row,_code,_field,_message" in content
    assert b"PILOT" in content
    assert (footer.size_bytes, footer.sha256) == (len(content), hashlib.sha256(content).digest())
    request.part = imports_pb2.REPORT_PART_REPORT
    missing = await refusal(client.imports.DownloadImportReport(request).read())
    assert missing[0] in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)


async def test_the_same_request_makes_one_import(client):
    fields = {"request_id": str(uuid.uuid4()), "upload_id": await client.upload(GOOD_AND_BAD)}
    first = await client.create(**fields)

    assert (await client.create(**fields)).import_id == first.import_id
    other = client.create(**fields, name="other")
    assert await refusal(other) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"entity_type": "nonsense"}, "ENTITY_UNKNOWN"),
        ({"upload_id": str(uuid.uuid4())}, "UPLOAD_UNKNOWN"),
        ({"upload_id": "no uuid"}, "INVALID_REQUEST"),
        ({"import_type": imports_pb2.IMPORT_TYPE_UNSPECIFIED}, "INVALID_REQUEST"),
        ({"format": common_pb2.FILE_FORMAT_XLSX}, "NOT_BUILT"),
        ({"options": imports_pb2.ImportOptions(on_drift=imports_pb2.ON_DRIFT_REPLAN)}, "OPTION_INVALID"),
        ({"options": imports_pb2.ImportOptions(csv=common_pb2.CsvOptions(encoding="klingon"))}, "OPTION_INVALID"),
        ({"options": imports_pb2.ImportOptions(csv=common_pb2.CsvOptions(delimiter="x"))}, "INVALID_REQUEST"),
        ({"mapping": [imports_pb2.FieldMapping(field="name")]}, "MAPPING_INVALID"),
        ({"mapping": [imports_pb2.FieldMapping(constant="x")]}, "MAPPING_INVALID"),
        ({"mapping": [imports_pb2.FieldMapping(field="name", column="n", entity="tokens")]}, "MAPPING_INVALID"),
        ({"mapping": [imports_pb2.FieldMapping(field="name", column="n", values=TWICE)]}, "MAPPING_INVALID"),
    ],
)
async def test_an_import_that_cannot_be_is_refused_at_once(client, fields, reason):
    assert (await refusal(client.create(**fields)))[1] == reason


async def test_a_mapping_and_every_option_come_back_as_they_were_given(client):
    pb = imports_pb2
    mapping = [
        pb.FieldMapping(
            field="name",
            column="who",
            entity="users",
            trim=True,
            empty_is_null=True,
            letter_case=pb.LETTER_CASE_UPPER,
            values=[imports_pb2.ValueMapping(text="A", becomes="B"), imports_pb2.ValueMapping(becomes="none")],
            only_listed_values=True,
            default="",
        ),
        pb.FieldMapping(
            field="created_at", column="at", date_format=pb.DateFormat(pattern="%d.%m.%Y", time_zone="Europe/Berlin")
        ),
        pb.FieldMapping(field="role", constant="DRIVER"),
        pb.FieldMapping(column="left out"),
        pb.FieldMapping(field="id", column="id"),
    ]
    options = pb.ImportOptions(
        error_budget=0,
        on_drift=pb.ON_DRIFT_ABORT,
        on_refused=pb.ON_REFUSED_ABORT,
        auto_apply=True,
        allow_cascade=["tokens"],
        max_deletes=0,
        json=pb.JsonOptions(absent_is_null=True),
    )

    shown = await client.get((await client.create(mapping=mapping, options=options)).import_id)

    assert list(shown.mapping) == mapping
    options.csv.CopyFrom(shown.options.csv)
    assert shown.options == options


async def test_options_come_with_their_defaults_filled_in(client):
    shown = (await client.create()).options

    assert shown.on_drift == imports_pb2.ON_DRIFT_ABORT
    assert shown.on_refused == imports_pb2.ON_REFUSED_SKIP
    assert not shown.HasField("error_budget")
    assert not shown.HasField("max_deletes")


@pytest.mark.parametrize(
    ("import_type", "entity_type", "budget", "on_refused"),
    [
        ("ADDITIVE", "users", None, "ON_REFUSED_SKIP"),
        ("UPSERT", "users", None, "ON_REFUSED_SKIP"),
        ("REPLACE", "users", 0, "ON_REFUSED_ABORT"),
        ("ADDITIVE", "", None, "ON_REFUSED_ABORT"),
    ],
)
def test_what_an_unset_option_means_goes_by_the_mode(import_type, entity_type, budget, on_refused):
    row = ImportRow(
        id=uuid.uuid4(),
        import_type=import_type,
        entity_type=entity_type,
        status="PENDING",
        context={},
        options={"format": "CSV" if entity_type else "BUNDLE"},
    )
    shown = data_import(row, {}).options

    assert (shown.error_budget if shown.HasField("error_budget") else None) == budget
    assert imports_pb2.OnRefused.Name(shown.on_refused) == on_refused


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("users.csv", "CSV"),
        ("users", "CSV"),
        ("Users.JSON", "JSON"),
        ("users.jsonl", "JSON_LINES"),
        ("users.ndjson.gz", "JSON_LINES"),
        ("users.json.zst", "JSON"),
        ("users.csv.gz", "CSV"),
    ],
)
async def test_a_format_is_told_by_the_name_under_its_compression(client, name, expected):
    made = await client.create(upload_id=await client.upload(GOOD_AND_BAD, name=name))

    assert common_pb2.FileFormat.Name(made.format) == f"FILE_FORMAT_{expected}"


async def test_compressed_json_lines_are_planned_and_the_options_shown(client):
    record = {"id": str(uuid.uuid4()), "email": "a@example.org", "name": "A", "role": "DRIVER"}
    data = gzip.compress("\n".join(json.dumps(r) for r in (record, record | {"id": "x"})).encode())
    upload_id = await client.upload(data, name="users.jsonl.gz")
    options = imports_pb2.ImportOptions(
        csv=common_pb2.CsvOptions(quote="'", encoding="Windows-1252"), json=imports_pb2.JsonOptions(absent_is_null=True)
    )

    planned = await client.planned(upload_id=upload_id, options=options)

    assert (planned.plan.counts.inserts, planned.plan.counts.failed) == (1, 1)
    assert planned.options.json.absent_is_null
    assert (planned.options.csv.quote, planned.options.csv.encoding) == ("'", "cp1252")


async def test_another_files_format_is_told_by_its_name(client):
    upload_id = await client.upload(GOOD_AND_BAD, name="users.xlsx")

    assert (await refusal(client.create(upload_id=upload_id)))[1] == "NOT_BUILT"


async def test_a_plan_other_than_the_one_seen_is_not_applied(client):
    planned = await client.planned()
    request = imports_pb2.ApplyImportRequest(import_id=planned.import_id, plan_digest=b"\1" * 32)

    assert (await refusal(client.imports.ApplyImport(request)))[0] == grpc.StatusCode.ABORTED


async def test_a_plan_that_deletes_much_waits_for_another_person(client, edge, monkeypatch):
    monkeypatch.setitem(vars(edge.resources.settings), "approval_deletes", 0)
    edge.grant("alice", "imports.approve:users", "imports.read:users")
    await client.planned((HEADER + row(1) + row(2)).encode(), options=imports_pb2.ImportOptions(auto_apply=True))
    options = imports_pb2.ImportOptions(auto_apply=True, max_deletes=5)
    made = await client.planned(
        (HEADER + row(1)).encode(), import_type=imports_pb2.IMPORT_TYPE_REPLACE, options=options
    )
    assert (made.status, made.plan.approval_needed) == (imports_pb2.IMPORT_STATUS_AWAITING_APPROVAL, True)
    fields = {"import_id": made.import_id, "plan_digest": made.plan.plan_digest}
    apply, approve = imports_pb2.ApplyImportRequest(**fields), imports_pb2.ApproveImportRequest(**fields)

    needed = await refusal(client.imports.ApplyImport(apply))
    assert needed == (grpc.StatusCode.FAILED_PRECONDITION, "APPROVAL_NEEDED")
    own = await refusal(client.imports.ApproveImport(approve))
    assert own == (grpc.StatusCode.PERMISSION_DENIED, "APPROVAL_BY_ANOTHER")
    approved = (await client.imports.ApproveImport(approve, metadata=by("alice"))).data_import
    assert approved.approved_by_admin_id == str(edge.caller("alice").principal_id)
    assert approved.apply_job_id == ""
    await client.imports.ApplyImport(apply)
    await client.run_jobs()
    assert (await client.get(made.import_id)).report.deleted == 1


async def test_an_import_is_cancelled_once_and_stays_so(client):
    planned = await client.planned()
    request = imports_pb2.CancelImportRequest(import_id=planned.import_id)

    for _ in range(2):
        cancelled = (await client.imports.CancelImport(request)).data_import
        assert cancelled.status == imports_pb2.IMPORT_STATUS_CANCELLED


async def test_imports_and_exports_are_listed_by_filter_and_time(client):
    first, second = await client.create(), await client.create()
    listed = await client.imports.ListImports(imports_pb2.ListImportsRequest(entity_type="users"))
    assert [shown.import_id for shown in listed.imports] == [second.import_id, first.import_id]
    early = imports_pb2.ListImportsRequest(created=common_pb2.TimeRange(end=second.created_at))
    assert [shown.import_id for shown in (await client.imports.ListImports(early)).imports] == [first.import_id]

    export = await client.export()
    late = exports_pb2.ListExportsRequest(created=common_pb2.TimeRange(start=export.created_at))
    assert [shown.export_id for shown in (await client.exports.ListExports(late)).exports] == [export.export_id]
    late.created.end.CopyFrom(export.created_at)
    assert not (await client.exports.ListExports(late)).exports
