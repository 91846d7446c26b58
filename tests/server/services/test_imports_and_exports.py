"""ImportService and ExportService over a real channel, with real jobs run between the calls."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import psycopg
import pytest
from dataops.v1 import common_pb2, exports_pb2, exports_pb2_grpc, imports_pb2, imports_pb2_grpc
from sqlalchemy import select

from engine.clock import utc_now
from engine.db.models import AuditEventRow, ExportRow
from engine.exports.service import Exports
from engine.imports.service import Imports
from engine.jobs.registry import handlers
from engine.jobs.runner import Runner
from examples.platform import generate
from server.download import Downloads
from server.principals import Principals
from server.services.exports import ExportService
from server.services.imports import ImportService
from tests.server.rpc import Edge, error_info

HEADER = "id,email,name,role,created_at\n"
MIB = 1 << 20


def row(number: int, role: str = "DRIVER") -> str:
    return f"{uuid.UUID(int=number)},u{number}@example.org,User {number},{role},2026-01-02 03:04:05+00\n"


GOOD_AND_BAD = (HEADER + row(1) + row(2) + row(3, "PILOT") + row(1)).encode()


@dataclass
class Client:
    edge: Edge
    imports: imports_pb2_grpc.ImportServiceAsyncStub
    exports: exports_pb2_grpc.ExportServiceAsyncStub
    runner: Runner
    made: dict[str, str] = field(default_factory=dict)

    async def upload(self, content: bytes, name: str = "users.csv") -> str:
        def finished() -> uuid.UUID:
            uploads, caller = self.edge.uploads, self.edge.caller()
            upload = uploads.start(caller, name, None, None, str(uuid.uuid4()), b"")
            stream = uploads.open_stream(caller, upload.id)
            for at in range(0, len(content), MIB):
                stream.write(at, content[at : at + MIB])
            stream.finish()
            stream.close()
            return upload.id

        return str(await asyncio.to_thread(finished))

    async def create(self, content: bytes = GOOD_AND_BAD, **fields: Any) -> imports_pb2.Import:
        request: dict[str, Any] = {
            "request_id": str(uuid.uuid4()),
            "upload_id": fields.pop("upload_id", None) or await self.upload(content),
            "import_type": imports_pb2.IMPORT_TYPE_ADDITIVE,
            "entity_type": "users",
        }
        return (await self.imports.CreateImport(imports_pb2.CreateImportRequest(**request | fields))).data_import

    async def planned(self, content: bytes = GOOD_AND_BAD, **fields: Any) -> imports_pb2.Import:
        made = await self.create(content, **fields)
        await self.run_jobs()
        return await self.get(made.import_id)

    async def get(self, import_id: str) -> imports_pb2.Import:
        return (await self.imports.GetImport(imports_pb2.GetImportRequest(import_id=import_id))).data_import

    async def export(self, **fields: Any) -> exports_pb2.Export:
        request: dict[str, Any] = {
            "request_id": str(uuid.uuid4()),
            "export_type": exports_pb2.EXPORT_TYPE_ENTITY,
            "entity_types": ["users"],
            "format": common_pb2.FILE_FORMAT_CSV,
        }
        return (await self.exports.CreateExport(exports_pb2.CreateExportRequest(**request | fields))).export

    async def run_jobs(self) -> None:
        def run() -> None:
            while self.runner.run_next():
                pass

        await asyncio.to_thread(run)


@pytest.fixture
def edge(control_dsn: str, platform_dsn: str, tmp_path) -> Iterator[Edge]:
    edge = Edge(control_dsn, tmp_path, platform_dsn=platform_dsn, catalog_file=generate.CATALOG)
    yield edge
    edge.close()


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[Client]:
    resources, offload = edge.resources, edge.offload
    downloads = Downloads(edge.db, edge.store, utc_now, offload, edge.drain)
    principals = Principals(edge.db, offload)
    imports = ImportService(Imports(resources), edge.uploads, downloads, principals, offload)  # type: ignore[abstract]
    exports = ExportService(Exports(resources), downloads, principals, offload, edge.drain)
    async with (
        edge.serving(
            (imports_pb2_grpc.add_ImportServiceServicer_to_server, imports),
            (exports_pb2_grpc.add_ExportServiceServicer_to_server, exports),
        ) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        runner = Runner(resources, handlers(), "test")
        stubs = imports_pb2_grpc.ImportServiceStub(channel), exports_pb2_grpc.ExportServiceStub(channel)
        yield Client(edge, *stubs, runner)


async def refusal(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), error_info(caught.value).reason


async def taken(call) -> tuple[bytes, common_pb2.DownloadFooter]:
    """A download's bytes and footer, which must be its last message."""
    *pieces, last = [message async for message in call]
    return b"".join(piece.data for piece in pieces), last.footer


async def test_an_import_goes_from_plan_to_report(client, platform_dsn):
    planned = await client.planned(options=imports_pb2.ImportOptions(error_budget=5), name="new users")

    assert planned.status == imports_pb2.IMPORT_STATUS_AWAITING_APPROVAL
    assert (planned.name, planned.format) == ("new users", common_pb2.FILE_FORMAT_CSV)
    assert (planned.options.error_budget, planned.options.csv.delimiter) == (5, ",")
    counts = planned.plan.counts
    assert (counts.inserts, counts.skips + counts.failed) == (2, 2)
    assert planned.plan.entities[0].lock_mode != imports_pb2.LOCK_MODE_UNSPECIFIED
    assert [notice.code for notice in planned.plan.notices] == ["NOT_BACKED_UP"]
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
    assert done.pre_import_backup_id == ""
    with psycopg.connect(platform_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (2,)


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
        ({"import_type": imports_pb2.IMPORT_TYPE_UPSERT}, "NOT_BUILT"),
        ({"format": common_pb2.FILE_FORMAT_XLSX}, "NOT_BUILT"),
        ({"options": imports_pb2.ImportOptions(on_drift=imports_pb2.ON_DRIFT_REPLAN)}, "NOT_BUILT"),
        ({"options": imports_pb2.ImportOptions(csv=common_pb2.CsvOptions(encoding="cp1252"))}, "NOT_BUILT"),
        ({"options": imports_pb2.ImportOptions(csv=common_pb2.CsvOptions(delimiter="x"))}, "INVALID_REQUEST"),
        ({"mapping": [imports_pb2.FieldMapping(field="name", constant="x")]}, "NOT_BUILT"),
        ({"mapping": [imports_pb2.FieldMapping(field="name")]}, "MAPPING_INVALID"),
    ],
)
async def test_an_import_that_cannot_be_is_refused_at_once(client, fields, reason):
    assert (await refusal(client.create(**fields)))[1] == reason


async def test_another_files_format_is_told_by_its_name(client):
    upload_id = await client.upload(GOOD_AND_BAD, name="users.xlsx")

    assert (await refusal(client.create(upload_id=upload_id)))[1] == "NOT_BUILT"


async def test_a_plan_other_than_the_one_seen_is_not_applied(client):
    planned = await client.planned()
    request = imports_pb2.ApplyImportRequest(import_id=planned.import_id, plan_digest=b"\1" * 32)

    assert (await refusal(client.imports.ApplyImport(request)))[0] == grpc.StatusCode.ABORTED


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


async def test_an_export_is_written_downloaded_deleted(client, edge, platform_dsn):
    await asyncio.to_thread(generate.load, platform_dsn, users=50)
    made = await client.export(name="all users", columns=["id", "email"])
    assert (made.status, made.file_url) == (exports_pb2.EXPORT_STATUS_PENDING, "")
    request = exports_pb2.DownloadExportRequest(export_id=made.export_id)
    assert (await refusal(client.exports.DownloadExport(request).read()))[1] == "EXPORT_NOT_READY"
    await client.run_jobs()
    done = (await client.exports.GetExport(exports_pb2.GetExportRequest(export_id=made.export_id))).export

    assert (done.status, done.record_count, done.name) == (exports_pb2.EXPORT_STATUS_COMPLETED, 50, "all users")
    assert done.file_url == f"dataops://exports/{made.export_id}"
    content, footer = await taken(client.exports.DownloadExport(request))
    assert content.splitlines()[0] == b"id,email"
    assert (footer.size_bytes, footer.sha256) == (done.file_size_bytes, done.sha256)
    assert hashlib.sha256(content).digest() == done.sha256
    part, _ = await taken(client.exports.DownloadExport(exports_pb2.DownloadExportRequest(**_part(made, 3, 10))))
    assert part == content[3:13]
    beyond = exports_pb2.DownloadExportRequest(**_part(made, len(content) + 1, 0))
    assert await refusal(client.exports.DownloadExport(beyond).read()) == (
        grpc.StatusCode.OUT_OF_RANGE,
        "OFFSET_MISMATCH",
    )

    delete = exports_pb2.DeleteExportRequest(export_id=made.export_id)
    for _ in range(2):
        gone = (await client.exports.DeleteExport(delete)).export
        assert gone.status == exports_pb2.EXPORT_STATUS_DELETED
    assert (await refusal(client.exports.DownloadExport(request).read()))[0] == grpc.StatusCode.FAILED_PRECONDITION
    assert await asyncio.to_thread(_downloads_audited, edge) == [
        ("INTENT", ""),
        ("OUTCOME", "COMPLETED"),
        ("INTENT", ""),
        ("OUTCOME", "COMPLETED"),
        ("INTENT", ""),
        ("OUTCOME", "FAILED"),
    ]


async def test_an_export_is_followed_from_before_it_begins(client, platform_dsn):
    await asyncio.to_thread(generate.load, platform_dsn, users=200)
    made = await client.export()
    request = exports_pb2.DownloadExportRequest(export_id=made.export_id, follow=True)
    following = asyncio.create_task(taken(client.exports.DownloadExport(request)))
    await asyncio.sleep(0.3)
    await client.run_jobs()

    content, footer = await asyncio.wait_for(following, 30)
    assert content.count(b"\n") == 201
    assert footer.sha256 == hashlib.sha256(content).digest()


async def test_a_follower_of_an_export_that_fails_gets_an_error(client, edge, platform_dsn):
    made = await client.export()
    request = exports_pb2.DownloadExportRequest(export_id=made.export_id, follow=True)
    following = asyncio.create_task(taken(client.exports.DownloadExport(request)))
    await asyncio.sleep(0.3)
    with psycopg.connect(platform_dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE users RENAME TO users_no_more")
    await client.run_jobs()

    code, reason = await refusal(asyncio.wait_for(following, 30))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "EXPORT_STATE")
    with edge.db.transaction() as session:
        assert session.get_one(ExportRow, uuid.UUID(made.export_id)).status == "FAILED"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"entity_types": ["nonsense"]}, "ENTITY_UNKNOWN"),
        ({"format": common_pb2.FILE_FORMAT_PARQUET}, "NOT_BUILT"),
        ({"export_type": exports_pb2.EXPORT_TYPE_FULL, "entity_types": []}, "NOT_BUILT"),
        ({"columns": ["password_hash"]}, "FIELD_SECRET"),
        ({"filter": exports_pb2.ExportFilter(statuses=["ACTIVE"])}, "FILTER_NEEDS_PARTIAL"),
    ],
)
async def test_an_export_that_cannot_be_is_refused_at_once(client, fields, reason):
    assert (await refusal(client.export(**fields)))[1] == reason


def _part(made: exports_pb2.Export, offset: int, limit: int) -> dict[str, Any]:
    return {"export_id": made.export_id, "offset": offset, "limit": limit}


def _downloads_audited(edge: Edge) -> list[tuple[str, str]]:
    with edge.db.transaction() as session:
        found = select(AuditEventRow).where(AuditEventRow.operation == "exports.download")
        return [(row.kind, row.outcome) for row in session.scalars(found.order_by(AuditEventRow.sequence))]
