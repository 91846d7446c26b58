"""ExportService: files written, followed and downloaded, and what is refused at the call."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import uuid
from typing import Any

import grpc
import psycopg
import pytest
from dataops.v1 import common_pb2, exports_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import select

from engine.db.models import AuditEventRow, ExportRow
from examples.platform import generate
from tests.server.rpc import Edge
from tests.server.services.kit import refusal, taken


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
        ({"export_type": exports_pb2.EXPORT_TYPE_FULL, "entity_types": []}, "OPTION_INVALID"),
        ({"entity_types": ["users", "tokens"]}, "OPTION_INVALID"),
        ({"limit": 1}, "OPTION_INVALID"),
        ({"columns": ["password_hash"]}, "FIELD_SECRET"),
        ({"filter": exports_pb2.ExportFilter(statuses=["ACTIVE"])}, "FILTER_NEEDS_PARTIAL"),
    ],
)
async def test_an_export_that_cannot_be_is_refused_at_once(client, fields, reason):
    assert (await refusal(client.export(**fields)))[1] == reason


async def test_a_partial_export_shows_what_was_asked_for(client, platform_dsn):
    await asyncio.to_thread(generate.load, platform_dsn, users=50)
    wanted = exports_pb2.ExportFilter(
        created=common_pb2.TimeRange(start=Timestamp(seconds=1)),
        statuses=["ACTIVE", "INVITED"],
        conditions=[
            exports_pb2.FieldCondition(field="email", operator=exports_pb2.FILTER_OPERATOR_PREFIX, values=["%"]),
            exports_pb2.FieldCondition(field="country", operator=exports_pb2.FILTER_OPERATOR_IS_NULL),
        ],
    )
    asked = {
        "export_type": exports_pb2.EXPORT_TYPE_PARTIAL,
        "format": common_pb2.FILE_FORMAT_JSON,
        "filter": wanted,
        "order_by": [exports_pb2.FieldOrder(field="email", descending=True)],
        "limit": 3,
        "options": exports_pb2.ExportOptions(compression=common_pb2.COMPRESSION_GZIP),
    }
    made = await client.export(**asked)
    await client.run_jobs()

    done = (await client.exports.GetExport(exports_pb2.GetExportRequest(export_id=made.export_id))).export
    content, _ = await taken(client.exports.DownloadExport(exports_pb2.DownloadExportRequest(export_id=made.export_id)))
    assert gzip.decompress(content) == b"[]\n"
    assert (done.filter, list(done.order_by), done.limit) == (wanted, asked["order_by"], 3)
    assert (done.options.compression, done.options.formula_guard) == (common_pb2.COMPRESSION_GZIP, False)
    assert [(e.entity, e.record_count, e.file_name, e.sha256) for e in done.entities] == [("users", 0, "", b"")]
    assert done.file_name.endswith(".json.gz")


async def test_a_value_that_is_none_of_its_field_is_refused_at_the_call(client):
    condition = exports_pb2.FieldCondition(field="role", operator=exports_pb2.FILTER_OPERATOR_IN, values=["'; DROP"])
    wanted = exports_pb2.ExportFilter(conditions=[condition])

    refused = client.export(export_type=exports_pb2.EXPORT_TYPE_PARTIAL, filter=wanted)
    assert await refusal(refused) == (grpc.StatusCode.INVALID_ARGUMENT, "FILTER_VALUE_INVALID")


async def test_a_full_export_is_a_bundle_with_notices(client, platform_dsn):
    await asyncio.to_thread(generate.load, platform_dsn, users=50)
    with psycopg.connect(platform_dsn, autocommit=True) as connection:
        connection.execute("CREATE VIEW public.seen AS SELECT 1")
    bundle = {"entity_types": [], "format": common_pb2.FILE_FORMAT_BUNDLE}
    made = await client.export(export_type=exports_pb2.EXPORT_TYPE_FULL, **bundle)
    await client.run_jobs()

    done = (await client.exports.GetExport(exports_pb2.GetExportRequest(export_id=made.export_id))).export
    assert [(n.code, n.metadata["entity"]) for n in done.notices] == [("NOT_COVERED", "public.seen")]
    assert {e.entity for e in done.entities} == set(made.entity_types) == set(done.entity_types)
    assert sum(e.record_count for e in done.entities) == done.record_count
    assert all(len(e.sha256) == 32 and e.file_name for e in done.entities)


def _part(made: exports_pb2.Export, offset: int, limit: int) -> dict[str, Any]:
    return {"export_id": made.export_id, "offset": offset, "limit": limit}


def _downloads_audited(edge: Edge) -> list[tuple[str, str]]:
    with edge.db.transaction() as session:
        found = select(AuditEventRow).where(AuditEventRow.operation == "exports.download")
        return [(row.kind, row.outcome) for row in session.scalars(found.order_by(AuditEventRow.sequence))]
