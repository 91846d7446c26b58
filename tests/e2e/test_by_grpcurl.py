"""The whole service by a tool that knows nothing of it but reflection: upload, plan, apply, watch, export."""

from __future__ import annotations

import base64
import hashlib
import uuid
from typing import Any

import psycopg
import pytest

from examples.stack.stack import Stack
from tests.e2e.grpcurl import Grpcurl

HEADER = "id,email,name,role,status,phone,country,rating,created_at\n"
PIECE = 100_000


def row(number: int, role: str = "DRIVER") -> str:
    return (
        f"{uuid.UUID(int=number + (1 << 100))},u{number}@grpcurl.example.org,User {number},{role},ACTIVE,,FR,4.75,"
        "2026-01-02 03:04:05+00\n"
    )


@pytest.fixture(scope="module")
def grpcurl(stack: Stack) -> Grpcurl:
    return Grpcurl(stack)


def uploaded(grpcurl: Grpcurl, content: bytes) -> str:
    """Upload in pieces by JSON messages on standard input."""
    start = grpcurl.one("UploadService/StartUpload", request_id=str(uuid.uuid4()), file_name="users.csv")
    upload_id = str(start["upload"]["upload_id"])
    messages = [
        {"upload_id": upload_id, "offset": at, "data": base64.b64encode(content[at : at + PIECE]).decode()}
        for at in range(0, len(content), PIECE)
    ]
    messages[-1]["finish"] = True
    (answer,) = grpcurl.call("UploadService/WriteUpload", *messages)
    assert answer["state"] == "UPLOAD_STATE_FINISHED"
    assert int(answer["committed_size"]) == len(content)
    assert base64.b64decode(answer["sha256"]) == hashlib.sha256(content).digest()
    return upload_id


def watched(grpcurl: Grpcurl, job_id: str) -> list[dict[str, Any]]:
    """The job's events to its end; their sequences have no hole."""
    events = [answer["event"] for answer in grpcurl.call("JobService/WatchJob", {"job_id": job_id})]
    kept = [event for event in events if "heartbeat" not in event]
    assert [int(event["sequence"]) for event in kept] == list(range(1, len(kept) + 1))
    assert kept[-1]["state_change"]["new_state"] == "JOB_STATE_COMPLETED"
    return kept


def test_reflection_lists_our_services_to_a_known_caller_only(stack: Stack, grpcurl: Grpcurl):
    listed = grpcurl.run(stack.address, "list").stdout.split()

    assert {"dataops.v1.ImportService", "dataops.v1.JobService", "grpc.health.v1.Health"} <= set(listed)
    assert Grpcurl(stack, role=None).run(stack.address, "list").returncode != 0


def test_a_file_goes_in_by_plan_and_apply_and_out_again(stack: Stack, grpcurl: Grpcurl):
    rows = [row(number) for number in range(3_000)]
    content = (HEADER + "".join(rows) + row(9_999, "PILOT")).encode()
    created = grpcurl.one(
        "ImportService/CreateImport",
        request_id=str(uuid.uuid4()),
        upload_id=uploaded(grpcurl, content),
        import_type="IMPORT_TYPE_ADDITIVE",
        entity_type="users",
    )["data_import"]
    stages = [e["stage_change"]["new_stage"] for e in watched(grpcurl, created["plan_job_id"]) if "stage_change" in e]
    assert stages

    planned = grpcurl.one("ImportService/GetImport", import_id=created["import_id"])["data_import"]
    assert planned["status"] == "IMPORT_STATUS_AWAITING_APPROVAL"
    assert (planned["plan"]["counts"]["inserts"], planned["plan"]["counts"]["failed"]) == ("3000", "1")
    errors = grpcurl.one("ImportService/ListImportErrors", import_id=created["import_id"])
    assert (errors["total_errors"], errors["errors"][0]["field"]) == ("1", "role")
    changes = grpcurl.one("ImportService/ListImportChanges", import_id=created["import_id"], page_size=3)
    assert [change["kind"] for change in changes["changes"]] == ["CHANGE_KIND_INSERT"] * 3

    applying = grpcurl.one(
        "ImportService/ApplyImport", import_id=created["import_id"], plan_digest=planned["plan"]["plan_digest"]
    )["data_import"]
    watched(grpcurl, applying["apply_job_id"])
    done = grpcurl.one("ImportService/GetImport", import_id=created["import_id"])["data_import"]
    assert (done["status"], done["report"]["inserted"]) == ("IMPORT_STATUS_COMPLETED", "3000")
    with psycopg.connect(stack.platform_dsn) as connection:
        found = connection.execute("SELECT count(*) FROM users WHERE email LIKE '%@grpcurl.example.org'").fetchone()
    assert found == (3000,)
    rejects = download(
        grpcurl, "ImportService/DownloadImportReport", import_id=created["import_id"], part="REPORT_PART_REJECTS"
    )
    assert b"u9999@grpcurl.example.org" in rejects

    export = grpcurl.one(
        "ExportService/CreateExport",
        request_id=str(uuid.uuid4()),
        export_type="EXPORT_TYPE_ENTITY",
        entity_types=["users"],
        format="FILE_FORMAT_CSV",
    )["export"]
    followed = download(grpcurl, "ExportService/DownloadExport", export_id=export["export_id"], follow=True)
    shown = grpcurl.one("ExportService/GetExport", export_id=export["export_id"])["export"]
    assert (shown["status"], int(shown["record_count"])) == ("EXPORT_STATUS_COMPLETED", followed.count(b"\n") - 1)
    assert followed.count(b"@grpcurl.example.org") == 3000
    assert b"password_hash" not in followed


def download(grpcurl: Grpcurl, method: str, **fields: object) -> bytes:
    """The file; its footer must prove it."""
    *pieces, last = grpcurl.call(method, dict(fields))
    content = b"".join(base64.b64decode(piece["data"]) for piece in pieces)
    assert int(last["footer"]["size_bytes"]) == len(content)
    assert base64.b64decode(last["footer"]["sha256"]) == hashlib.sha256(content).digest()
    return content


def test_errors_carry_their_reason_where_grpcurl_shows_it(stack: Stack, grpcurl: Grpcurl):
    message = '{"upload_id": "' + str(uuid.uuid4()) + '", "data": ""}'
    ran = grpcurl.run("-d", message, stack.address, "dataops.v1.UploadService/WriteUpload")

    assert ran.returncode != 0
    assert "NotFound" in ran.stderr
    assert "UPLOAD_UNKNOWN" in ran.stderr


def test_what_is_not_built_says_so(stack: Stack, grpcurl: Grpcurl):
    message = '{"request_id": "' + str(uuid.uuid4()) + '", "import_id": "' + str(uuid.uuid4()) + '"}'
    ran = grpcurl.run("-d", message, stack.address, "dataops.v1.ImportService/RevertImport")

    assert "Unimplemented" in ran.stderr
    assert "NOT_BUILT" in ran.stderr
