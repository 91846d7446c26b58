"""What a request gets that is malformed, too large, unknown, wrong in its fields, or meets a defect of ours."""

from __future__ import annotations

import io
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import grpc
import psycopg
import pytest
from dataops.v1 import (
    access_pb2,
    backups_pb2,
    exports_pb2,
    imports_pb2,
    options_pb2,
    restores_pb2,
    uploads_pb2,
)
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from engine import telemetry
from engine.backups.service import Backups
from engine.db.models import AuditEventRow, BackupRow, JobRow, RestoreRow
from server.contract import RPCS, SERVICES
from server.interceptors.base import MAX_MESSAGE_BYTES
from server.not_built import NOT_BUILT
from tests.server.edge import Edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENTITIES = "/dataops.v1.CatalogService/ListEntities"
ROLES = "/dataops.v1.AccessService/ListRoles"
WRITE = "/dataops.v1.UploadService/WriteUpload"
MALFORMED = b"\xff\xff\xff\xff"


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What the server logs, as it would stand in its log; logging is put back afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    telemetry.configure("json", stream=stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


async def test_malformed_bytes_are_the_callers_fault_and_say_nothing_of_our_insides(shared_edge: Edge) -> None:
    refusal = await shared_edge.error(ROLES, MALFORMED)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    assert "rror" not in refusal.message


async def test_malformed_bytes_in_a_stream_get_the_same_answer(shared_edge: Edge) -> None:
    async def messages() -> AsyncIterator[bytes]:
        yield MALFORMED

    call = shared_edge.channel.stream_unary(WRITE)(messages(), metadata=shared_edge.bearer(), timeout=30)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_malformed_bytes_of_a_stranger_are_not_even_parsed(shared_edge: Edge) -> None:
    assert (await shared_edge.error(ROLES, MALFORMED, metadata=())).reason == "TOKEN_MISSING"


async def test_a_message_over_four_mebibytes_is_refused_with_the_limit(shared_edge: Edge) -> None:
    refusal = await shared_edge.error(ROLES, bytes(MAX_MESSAGE_BYTES + 1))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert refusal.metadata["max_bytes"] == str(4 << 20)


async def test_a_message_that_grpc_itself_refuses_has_the_same_code(shared_edge: Edge) -> None:
    refusal = await shared_edge.error(ROLES, bytes(2 * MAX_MESSAGE_BYTES + 1))
    assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_rpc_that_does_not_exist_is_unimplemented_with_a_reason(shared_edge: Edge) -> None:
    for method in ("/dataops.v1.CatalogService/Nothing", "/other.Service/Get"):
        refusal = await shared_edge.error(method)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNIMPLEMENTED, "RPC_UNKNOWN")


async def test_what_breaks_inside_tells_the_caller_an_id_and_the_log_the_rest(
    shared_edge: Edge, monkeypatch: pytest.MonkeyPatch, logged: io.StringIO
) -> None:
    def broken(*_args: Any) -> None:
        raise RuntimeError("connection to postgresql://dataops:hunter2@db.internal:5432/x failed for select_42")

    monkeypatch.setattr(type(shared_edge.resources.catalogs), "load", broken)
    refusal = await shared_edge.error(ENTITIES)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    told = refusal.details + refusal.message.encode()
    assert not any(word in told for word in (b"hunter2", b"db.internal", b"RuntimeError", b"postgresql", b"select_42"))
    error_id = refusal.metadata["error_id"]
    line = next(line for line in logged.getvalue().splitlines() if error_id in line)
    assert "select_42" in line
    assert "hunter2" not in logged.getvalue()  # a password stands in no log either


async def test_a_drivers_text_stands_neither_in_the_answer_nor_in_the_log(
    shared_edge: Edge, monkeypatch: pytest.MonkeyPatch, logged: io.StringIO
) -> None:
    def refused(*_args: Any) -> None:
        with psycopg.connect(shared_edge.resources.platform.dsn) as connection:
            connection.execute("SELECT 'hunter2'::int")

    monkeypatch.setattr(type(shared_edge.resources.catalogs), "load", refused)
    refusal = await shared_edge.error(ENTITIES)
    error_id = refusal.metadata["error_id"]
    line = next(line for line in logged.getvalue().splitlines() if error_id in line)
    assert "sqlstate=22P02" in line
    assert "hunter2" not in logged.getvalue() + refusal.message


async def test_a_control_database_that_is_away_is_unavailable_with_a_time_to_come_back(
    shared_edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_args: Any) -> None:
        raise OperationalError("SELECT secret", {}, Exception("host db.internal refused"))

    monkeypatch.setattr(type(shared_edge.resources.catalogs), "load", away)
    refusal = await shared_edge.error(ENTITIES)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "CONTROL_UNREACHABLE")
    assert refusal.part(error_details_pb2.RetryInfo).retry_delay.seconds == 1
    assert b"db.internal" not in refusal.details + refusal.message.encode()


async def test_every_field_that_breaks_a_rule_is_named(shared_edge: Edge) -> None:
    request = access_pb2.GrantRoleRequest(request_id="not a uuid", issuer="x" * 501, kind=99)  # type: ignore[arg-type]
    refusal = await shared_edge.error("/dataops.v1.AccessService/GrantRole", request.SerializeToString())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    named = {v.field for v in refusal.part(error_details_pb2.BadRequest).field_violations}
    assert named == {"request_id", "issuer", "subject", "role", "kind"}


async def test_many_violations_are_cut_to_what_a_status_can_carry_and_counted(shared_edge: Edge) -> None:
    request = exports_pb2.CreateExportRequest()
    for _ in range(100):  # each lacks its field and its operator
        request.filter.conditions.add()
    refusal = await shared_edge.error("/dataops.v1.ExportService/CreateExport", request.SerializeToString())
    assert refusal.reason == "INVALID_REQUEST"
    assert 0 < len(refusal.part(error_details_pb2.BadRequest).field_violations) <= 20
    assert int(refusal.metadata["violations_total"]) > 150
    assert len(refusal.details) < 4_096


async def _refusal_of(edge: Edge, method: MethodDescriptor, path: str) -> str:
    """The reason an empty request gets; empty when it is answered."""

    async def one() -> AsyncIterator[bytes]:
        yield b""

    many = "stream" if method.client_streaming else "unary"
    stub = getattr(edge.channel, f"{many}_{'stream' if method.server_streaming else 'unary'}")(path)
    call = stub(one() if method.client_streaming else b"", metadata=edge.bearer(), timeout=30)
    try:
        if method.server_streaming:
            async for _ in call:
                break
            call.cancel()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name} {error.details()}"
    return ""


async def test_every_rpc_of_the_contract_is_served_or_not_built(shared_edge: Edge) -> None:
    for method in (m for service in SERVICES for m in service.methods):
        path = f"/{method.containing_service.full_name}/{method.name}"
        told = await _refusal_of(shared_edge, method, path)
        assert told.startswith("UNIMPLEMENTED") == (path in NOT_BUILT), (path, told)
        assert not told.startswith(("INTERNAL", "UNKNOWN")), (path, told)


async def test_not_built_has_its_own_reason(shared_edge: Edge) -> None:
    refusal = await shared_edge.error(min(NOT_BUILT))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_BUILT")


def _waiting_restore(edge: Edge, phrase: str) -> str:
    """A restore whose plan waits for its phrase."""
    now, backup_id, restore_id = edge.resources.clock(), uuid.uuid4(), uuid.uuid4()
    common = {"principal_id": uuid.uuid4(), "created_at": now, "updated_at": now, "entity_types": ["users"]}
    with edge.resources.db.transaction() as session:
        session.add(BackupRow(id=backup_id, backup_type="FULL", trigger_type="MANUAL", name="b", **common))
        session.flush()
        session.add(
            RestoreRow(
                id=restore_id,
                backup_id=backup_id,
                status="AWAITING_CONFIRMATION",
                plan={"entities": [], "disk_bytes": 0, "wal_bytes": 0, "outage_seconds": 0, "notices": []}
                | {"approval_needed": False},
                plan_digest=bytes(32),
                plan_expires_at=now + timedelta(minutes=15),
                confirmation_phrase=phrase,
                **common,
            )
        )
    return str(restore_id)


async def test_the_phrase_of_a_restore_is_in_no_log_line_and_no_row_but_its_own(
    shared_edge: Edge, logged: io.StringIO
) -> None:
    method, phrase = "/dataops.v1.RestoreService/ConfirmRestore", "restore 17 rows of users"
    restore_id = _waiting_restore(shared_edge, phrase)

    def asked(typed: str, **fields: Any) -> bytes:
        known = {"restore_id": restore_id, "plan_digest": bytes(32), "reason": "because", "confirmation_phrase": typed}
        return restores_pb2.ConfirmRestoreRequest(**known | fields).SerializeToString()

    refusals = [
        await shared_edge.error(method, asked(phrase), metadata=shared_edge.bearer("nora")),
        await shared_edge.error(method, asked("restore 18 rows")),
        await shared_edge.error(method, asked(phrase * 20)),
        await shared_edge.error(method, asked(phrase, plan_digest=bytes(31))),
    ]
    await shared_edge.raw(method, asked(phrase))

    reasons = ["PERMISSION_MISSING", "PHRASE_WRONG", "INVALID_REQUEST", "INVALID_REQUEST"]
    assert [refusal.reason for refusal in refusals] == reasons
    kept = logged.getvalue() + "".join(refusal.message + str(refusal.status) for refusal in refusals)
    with shared_edge.resources.db.transaction() as session:
        for model in (AuditEventRow, JobRow, RestoreRow):
            for found in session.scalars(select(model)):
                kept += repr([getattr(found, column.key) for column in model.__table__.columns])
    assert method in kept
    assert "PHRASE_WRONG" in kept
    assert "restore 17" not in kept
    assert "restore 18" not in kept


async def test_a_read_of_what_a_job_found_is_kept_with_the_job(shared_edge: Edge, monkeypatch: Any) -> None:
    monkeypatch.setattr(Backups, "differences", lambda *_arguments: ([], "", []))
    job_id = str(uuid.uuid4())
    request = backups_pb2.ListBackupDifferencesRequest(job_id=job_id).SerializeToString()
    await shared_edge.raw("/dataops.v1.BackupService/ListBackupDifferences", request)

    with shared_edge.resources.db.transaction() as session:
        (event,) = session.scalars(select(AuditEventRow).where(AuditEventRow.operation == "backups.compare"))
        assert (event.kind, event.resource_type, event.details) == ("ACCESS", "backups", {"job_id": job_id})


async def test_every_rpc_says_its_permission_and_audit_kind_where_the_server_reads_them() -> None:
    for rpc in RPCS.values():
        assert rpc.permission, rpc.method
        assert rpc.audit != options_pb2.AUDIT_KIND_UNSPECIFIED, rpc.method


async def test_an_upload_message_is_no_larger_than_a_message_may_be() -> None:
    data = uploads_pb2.WriteUploadRequest.DESCRIPTOR.fields_by_name["data"]
    assert data.GetOptions().Extensions[options_pb2.rules].max_len < MAX_MESSAGE_BYTES


async def test_a_hostile_field_does_not_fill_the_log(shared_edge: Edge, logged: io.StringIO) -> None:
    request = imports_pb2.ApplyImportRequest(import_id="i" * 100_000, request_id="r" * 100_000)
    method = "/dataops.v1.ImportService/ApplyImport"

    assert (await shared_edge.error(method, request.SerializeToString())).reason == "INVALID_REQUEST"

    lines = logged.getvalue().splitlines()
    assert any(method in line for line in lines)
    assert max(map(len, lines)) < 1_000
