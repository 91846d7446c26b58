"""BackupService: backups made, shown, listed, proven, held, released, deleted, and what is refused at the call."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import grpc
import psycopg
import pytest
from dataops.v1 import backups_pb2, common_pb2, imports_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import select

from engine.db.models import BackupDiffRow, BackupRow, BackupVerificationRow, JobRow
from examples.platform import generate
from tests.server.rpc import Edge
from tests.server.services.kit import HEADER, by, refusal, row

UNKNOWN = str(uuid.uuid4())
NOT_FOUND = grpc.StatusCode.NOT_FOUND, "BACKUP_UNKNOWN"


async def shown(client, backup_id: str, subject: str = "admin") -> backups_pb2.Backup:
    request = backups_pb2.GetBackupRequest(backup_id=backup_id)
    return (await client.backups.GetBackup(request, metadata=by(subject))).backup


def change(edge: Edge, backup_id: str, **values: Any) -> None:
    """Puts the record into a state that other work would bring it to."""
    with edge.db.transaction() as session:
        row = session.get_one(BackupRow, uuid.UUID(backup_id))
        for name, value in values.items():
            setattr(row, name, value)


def key(number: int) -> backups_pb2.RowKey:
    return backups_pb2.RowKey(values=[common_pb2.FieldValue(name="id", value=str(uuid.UUID(int=number)))])


async def test_a_backup_is_made_and_shown_with_what_it_holds(client, platform_dsn):
    await asyncio.to_thread(generate.load, platform_dsn, users=50)
    with psycopg.connect(platform_dsn, autocommit=True) as connection:
        connection.execute("CREATE VIEW public.seen AS SELECT 1")
    made = await client.backup("users", "carrier_profiles", name="before the weekend", hold=True)
    assert (made.status, made.file_url, made.checksum) == (backups_pb2.BACKUP_STATUS_PENDING, "", "")
    assert [(e.entity, e.rows) for e in made.entities] == [("users", 0), ("carrier_profiles", 0)]
    assert (made.freeable_size_bytes, made.HasField("completed_at")) == (0, False)
    await client.run_jobs()
    done = await shown(client, made.backup_id)

    assert (done.status, done.name, done.held) == (backups_pb2.BACKUP_STATUS_COMPLETED, "before the weekend", True)
    assert (done.backup_type, done.trigger_type) == (backups_pb2.BACKUP_TYPE_FULL, backups_pb2.TRIGGER_TYPE_MANUAL)
    assert done.file_url == f"dataops://backups/{made.backup_id}"
    assert len(bytes.fromhex(done.checksum)) == 32
    assert done.file_size_bytes == done.freeable_size_bytes > sum(e.size_bytes for e in done.entities) > 0
    assert [(e.entity, e.rows) for e in done.entities][:1] == [("users", 50)]
    assert ("public.seen", "NOT_COVERED") in [(n.metadata["name"], n.code) for n in done.not_covered]
    assert (done.chain_backup_id, done.parent_backup_id) == (made.backup_id, "")
    assert done.created_at.seconds <= done.snapshot_at.seconds <= done.completed_at.seconds < done.expires_at.seconds
    assert done.context.principal.subject == "admin"
    assert done.created_by_admin_id == done.context.principal.principal_id
    assert done.job_id
    assert not done.HasField("restored_at")


async def test_a_record_of_the_release_before_has_the_size_of_a_full_backup(client, edge):
    made = await client.backup("users")
    change(edge, made.backup_id, file_size_bytes=7, total_size_bytes=0)
    assert (await shown(client, made.backup_id)).total_size_bytes == 7


async def test_the_newest_proof_of_each_level_is_shown(client, edge):
    made = await client.backup("users")
    damaged = {"reason": "BACKUP_DAMAGED", "message": "a segment is another", "metadata": {}, "violations": []}
    proofs = {
        "RESTORED": {"verified_at": "2026-11-26T03:00:00+00:00", "good": False, "error": damaged},
        "PRESENT": {"verified_at": "2026-11-25T03:00:00+00:00", "good": True, "error": None},
    }
    change(edge, made.backup_id, verifications=proofs)
    present, restored = (await shown(client, made.backup_id)).verifications

    assert (present.level, present.good) == (backups_pb2.VERIFY_LEVEL_PRESENT, True)
    assert not present.HasField("error")
    assert present.verified_at.ToJsonString() == "2026-11-25T03:00:00Z"
    assert (restored.level, restored.good) == (backups_pb2.VERIFY_LEVEL_RESTORED, False)
    assert restored.error.reason == "BACKUP_DAMAGED"


async def test_the_same_request_makes_one_backup(client):
    request_id = str(uuid.uuid4())
    made = await client.backup("users", request_id=request_id)
    again = await client.backup("users", request_id=request_id)

    assert again.backup_id == made.backup_id
    other = client.backup("tokens", request_id=request_id)
    assert await refusal(other) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_backups_are_listed_newest_first_by_pages_and_filters(client, edge):
    made = [(await client.backup(name)).backup_id for name in ("users", "tokens", "users", "tokens", "users")]
    change(edge, made[0], status="FAILED", error={"reason": "DISK_FULL"})
    change(edge, made[2], trigger_type="PRE_IMPORT")

    async def listed(**fields: Any) -> list[str]:
        answer = await client.backups.ListBackups(backups_pb2.ListBackupsRequest(**fields))
        return [backup.backup_id for backup in answer.backups]

    pages, token = [], ""
    while True:
        page = await client.backups.ListBackups(backups_pb2.ListBackupsRequest(page_size=2, page_token=token))
        pages.append([backup.backup_id for backup in page.backups])
        if not (token := page.next_page_token):
            break
    assert pages == [[made[4], made[3]], [made[2], made[1]], [made[0]]]
    assert await listed(entity_type="tokens") == [made[3], made[1]]
    assert await listed(statuses=[backups_pb2.BACKUP_STATUS_FAILED]) == [made[0]]
    assert await listed(trigger_types=[backups_pb2.TRIGGER_TYPE_PRE_IMPORT]) == [made[2]]
    assert await listed(created=common_pb2.TimeRange(end=Timestamp(seconds=1))) == []

    first = await client.backups.ListBackups(backups_pb2.ListBackupsRequest(page_size=2))
    token = first.next_page_token
    other_filter = backups_pb2.ListBackupsRequest(page_size=2, page_token=token, entity_type="users")
    assert (await refusal(client.backups.ListBackups(other_filter)))[1] == "PAGE_TOKEN_INVALID"
    edge.grant("alice", "backups.read")
    other_caller = backups_pb2.ListBackupsRequest(page_size=2, page_token=token)
    assert (await refusal(client.backups.ListBackups(other_caller, metadata=by("alice"))))[1] == "PAGE_TOKEN_INVALID"


async def test_a_backup_of_what_one_may_not_read_is_unknown(client, edge, platform_dsn):
    edge.grant("carol", "backups.*:users")
    hidden, mixed = await client.backup("tokens"), await client.backup("users", "tokens")
    own = await client.backup("users", as_="carol")

    page = await client.backups.ListBackups(backups_pb2.ListBackupsRequest(), metadata=by("carol"))
    assert [backup.backup_id for backup in page.backups] == [own.backup_id]
    for backup_id in (hidden.backup_id, mixed.backup_id, UNKNOWN):
        one: dict[str, Any] = {"backup_id": backup_id}
        work = one | {"request_id": str(uuid.uuid4())}
        for call in (
            client.backups.GetBackup(backups_pb2.GetBackupRequest(**one), metadata=by("carol")),
            client.backups.VerifyBackup(backups_pb2.VerifyBackupRequest(**work), metadata=by("carol")),
            client.backups.DiffBackup(backups_pb2.DiffBackupRequest(**work), metadata=by("carol")),
            client.backups.HoldBackup(backups_pb2.HoldBackupRequest(**one), metadata=by("carol")),
            client.backups.ReleaseBackup(backups_pb2.ReleaseBackupRequest(**one), metadata=by("carol")),
            client.backups.DeleteBackup(backups_pb2.DeleteBackupRequest(**one), metadata=by("carol")),
        ):
            assert await refusal(call) == NOT_FOUND


async def test_what_a_role_does_not_permit_is_refused(client, edge):
    edge.grant("dave", "backups.read")
    made = await client.backup("users")
    one, request_id = {"backup_id": made.backup_id}, str(uuid.uuid4())
    denied = grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"

    assert (await shown(client, made.backup_id, "dave")).backup_id == made.backup_id
    for call in (
        client.backup("users", as_="dave"),
        client.backups.VerifyBackup(backups_pb2.VerifyBackupRequest(request_id=request_id, **one), metadata=by("dave")),
        client.backups.DiffBackup(backups_pb2.DiffBackupRequest(request_id=request_id, **one), metadata=by("dave")),
        client.backups.HoldBackup(backups_pb2.HoldBackupRequest(**one), metadata=by("dave")),
        client.backups.DeleteBackup(backups_pb2.DeleteBackupRequest(**one), metadata=by("dave")),
        client.backups.GetBackup(backups_pb2.GetBackupRequest(**one), metadata=by("nobody")),
    ):
        assert await refusal(call) == denied
    edge.grant("erin", "backups.create:users", "backups.read")
    assert await refusal(client.backup("users", "tokens", as_="erin")) == denied
    assert await refusal(client.backup(as_="erin")) == denied, "everything takes the right to everything"


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"entity_types": ["nonsense"]}, grpc.StatusCode.NOT_FOUND, "ENTITY_UNKNOWN"),
        ({"request_id": ""}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    ],
)
async def test_a_backup_that_cannot_be_is_refused_at_once(client, edge, fields, code, reason):
    assert await refusal(client.backup(**{"entity_types": ["users"]} | fields)) == (code, reason)
    with edge.db.transaction() as session:
        assert session.scalars(select(BackupRow)).all() == []


async def test_a_backup_is_proven_once_for_one_request(client, edge):
    made = await client.backed_up("users")
    request = backups_pb2.VerifyBackupRequest(request_id=str(uuid.uuid4()), backup_id=made.backup_id)
    first = (await client.backups.VerifyBackup(request)).job_id

    assert (await client.backups.VerifyBackup(request)).job_id == first
    await client.run_jobs()
    proofs = (await shown(client, made.backup_id)).verifications
    levels = [backups_pb2.VERIFY_LEVEL_PRESENT, backups_pb2.VERIFY_LEVEL_DECODED]
    assert [(proof.level, proof.good) for proof in proofs] == [(level, True) for level in levels]
    assert all(proof.HasField("verified_at") for proof in proofs)
    with edge.db.transaction() as session:
        (row,) = session.scalars(select(BackupVerificationRow))
        assert (str(row.job_id), row.level) == (first, "DECODED"), "the level that is meant where none is said"
        job = session.get_one(JobRow, row.job_id)
        assert (job.kind, job.resource_type, str(job.resource_id)) == ("BACKUP_VERIFY", "backups", made.backup_id)
    request.level = backups_pb2.VERIFY_LEVEL_PRESENT
    assert (await refusal(client.backups.VerifyBackup(request)))[1] == "REQUEST_ID_REUSED"


async def test_what_is_not_complete_cannot_be_proven_or_compared(client):
    made = await client.backup("users")
    work = {"request_id": str(uuid.uuid4()), "backup_id": made.backup_id}
    refused = grpc.StatusCode.FAILED_PRECONDITION, "BACKUP_STATE"

    assert await refusal(client.backups.VerifyBackup(backups_pb2.VerifyBackupRequest(**work))) == refused
    assert await refusal(client.backups.DiffBackup(backups_pb2.DiffBackupRequest(**work))) == refused


async def test_a_comparison_is_put_into_the_queue_for_the_entities_named(client, edge):
    made = await client.backed_up("users", "tokens")
    wanted = {"backup_id": made.backup_id, "entity_types": ["tokens"]}
    request = backups_pb2.DiffBackupRequest(request_id=str(uuid.uuid4()), **wanted)
    job_id = (await client.backups.DiffBackup(request)).job_id

    with edge.db.transaction() as session:
        row = session.get_one(BackupDiffRow, uuid.UUID(job_id))
        assert (str(row.backup_id), row.entity_types) == (made.backup_id, ["tokens"])
    other = backups_pb2.DiffBackupRequest(
        request_id=str(uuid.uuid4()), backup_id=made.backup_id, entity_types=["points"]
    )
    assert await refusal(client.backups.DiffBackup(other)) == (grpc.StatusCode.NOT_FOUND, "ENTITY_UNKNOWN")


async def compared(client, backup_id: str, *entities: str) -> str:
    """The job of a comparison that is done."""
    request = backups_pb2.DiffBackupRequest(request_id=str(uuid.uuid4()), backup_id=backup_id, entity_types=entities)
    job_id = (await client.backups.DiffBackup(request)).job_id
    await client.run_jobs()
    return job_id


async def test_differences_come_as_pages_with_counts_on_the_first(client, edge, platform_dsn):
    planned = await client.planned((HEADER + "".join(row(number) for number in range(1, 6))).encode())
    apply = imports_pb2.ApplyImportRequest(import_id=planned.import_id, plan_digest=planned.plan.plan_digest)
    await client.imports.ApplyImport(apply)
    await client.run_jobs()
    made = await client.backed_up("users")
    with psycopg.connect(platform_dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM users WHERE email = 'u1@example.org'")
        connection.execute("UPDATE users SET name = 'Live', password_hash = 'x' WHERE email = 'u2@example.org'")
        connection.execute("UPDATE users SET country = 'DE' WHERE email = 'u3@example.org'")
    job_id = await compared(client, made.backup_id)

    found, token, pages = [], "", 0
    while True:
        request = backups_pb2.ListBackupDifferencesRequest(job_id=job_id, page_size=2, page_token=token)
        page = await client.backups.ListBackupDifferences(request)
        counts = [(e.entity, e.only_in_backup, e.only_live, e.different, e.equal) for e in page.entities]
        assert counts == ([] if token else [("users", 1, 0, 2, 2)])
        found += page.differences
        pages += 1
        if not (token := page.next_page_token):
            break
    assert pages == 2
    kinds = [(d.key[0].value, d.kind) for d in found]
    assert sorted(kinds) == [
        (str(uuid.UUID(int=1)), imports_pb2.CHANGE_KIND_INSERT),
        (str(uuid.UUID(int=2)), imports_pb2.CHANGE_KIND_UPDATE),
        (str(uuid.UUID(int=3)), imports_pb2.CHANGE_KIND_UPDATE),
    ]
    fields = {f.name: f for d in found if d.key[0].value.endswith("2") for f in d.fields}
    assert (fields["name"].old, fields["name"].new) == ("Live", "User 2"), "live before, in the backup after"
    secret = fields["password_hash"]
    assert (secret.masked, secret.HasField("old"), secret.HasField("new")) == (True, False, False)

    only: dict[str, Any] = {"job_id": job_id, "entity": "users", "kind": imports_pb2.CHANGE_KIND_INSERT}
    inserts = await client.backups.ListBackupDifferences(backups_pb2.ListBackupDifferencesRequest(**only))
    assert [d.kind for d in inserts.differences] == [imports_pb2.CHANGE_KIND_INSERT]
    first = backups_pb2.ListBackupDifferencesRequest(job_id=job_id, page_size=2)
    token = (await client.backups.ListBackupDifferences(first)).next_page_token
    other = backups_pb2.ListBackupDifferencesRequest(page_token=token, page_size=2, **only)
    assert (await refusal(client.backups.ListBackupDifferences(other)))[1] == "PAGE_TOKEN_INVALID"


async def test_differences_are_of_an_ended_job_and_of_who_may_see_the_backup(client, edge):
    made = await client.backed_up("users")
    request = backups_pb2.DiffBackupRequest(request_id=str(uuid.uuid4()), backup_id=made.backup_id)
    job_id = (await client.backups.DiffBackup(request)).job_id
    listing = backups_pb2.ListBackupDifferencesRequest(job_id=job_id)
    edge.grant("carol", "backups.*:tokens")
    edge.grant("dave", "backups.read", "backups.compare:tokens")

    early = client.backups.ListBackupDifferences(listing)
    assert await refusal(early) == (grpc.StatusCode.FAILED_PRECONDITION, "DIFF_NOT_READY")
    hidden = client.backups.ListBackupDifferences(listing, metadata=by("carol"))
    assert await refusal(hidden) == (grpc.StatusCode.NOT_FOUND, "DIFF_UNKNOWN")
    denied = client.backups.ListBackupDifferences(listing, metadata=by("dave"))
    assert await refusal(denied) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
    unknown = client.backups.ListBackupDifferences(backups_pb2.ListBackupDifferencesRequest(job_id=made.job_id))
    assert (await refusal(unknown))[1] == "DIFF_UNKNOWN"


async def test_rows_taken_out_are_an_import_that_brings_them_back(client, platform_dsn):
    planned = await client.planned((HEADER + "".join(row(number) for number in range(1, 4))).encode())
    apply = imports_pb2.ApplyImportRequest(import_id=planned.import_id, plan_digest=planned.plan.plan_digest)
    await client.imports.ApplyImport(apply)
    await client.run_jobs()
    made = await client.backed_up("users")
    with psycopg.connect(platform_dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM users WHERE email = 'u1@example.org'")
        connection.execute("UPDATE users SET name = 'Live' WHERE email <> 'u1@example.org'")

    request = backups_pb2.ExtractBackupRowsRequest(
        request_id=str(uuid.uuid4()), backup_id=made.backup_id, entity="users", keys=[key(1), key(2), key(9)]
    )
    begun = (await client.backups.ExtractBackupRows(request)).data_import
    assert (begun.import_type, begun.entity_type) == (imports_pb2.IMPORT_TYPE_UPSERT, "users")
    assert (await client.backups.ExtractBackupRows(request)).data_import.import_id == begun.import_id
    await client.run_jobs()
    found = await client.get(begun.import_id)

    assert found.status == imports_pb2.IMPORT_STATUS_AWAITING_APPROVAL
    counts = found.plan.counts
    assert (counts.inserts, counts.updates, counts.deletes) == (1, 1, 0)
    assert [notice.code for notice in found.plan.notices] == ["ROWS_NOT_IN_BACKUP"]


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"entity": "tokens"}, grpc.StatusCode.NOT_FOUND, "ENTITY_UNKNOWN"),
        ({"keys": []}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        ({"keys": [backups_pb2.RowKey()]}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        ({"backup_id": UNKNOWN}, *NOT_FOUND),
    ],
)
async def test_rows_that_cannot_be_taken_out_are_refused_at_once(client, fields, code, reason):
    made = await client.backed_up("users")
    wanted = {"request_id": str(uuid.uuid4()), "backup_id": made.backup_id, "entity": "users", "keys": [key(1)]}
    request = backups_pb2.ExtractBackupRowsRequest(**wanted | fields)

    assert await refusal(client.backups.ExtractBackupRows(request)) == (code, reason)


async def test_a_key_without_a_value_is_none(client):
    made = await client.backed_up("users")
    null = backups_pb2.RowKey(values=[common_pb2.FieldValue(name="id")])
    request = backups_pb2.ExtractBackupRowsRequest(
        request_id=str(uuid.uuid4()), backup_id=made.backup_id, entity="users", keys=[null]
    )

    assert (await refusal(client.backups.ExtractBackupRows(request)))[1] == "KEY_INVALID"


async def test_a_hold_keeps_a_backup_and_a_release_lets_it_go(client, edge):
    made = await client.backed_up("users")
    one = {"backup_id": made.backup_id}
    for _ in range(2):
        held = (await client.backups.HoldBackup(backups_pb2.HoldBackupRequest(**one))).backup
        assert held.held
    delete = backups_pb2.DeleteBackupRequest(**one, reason="no longer needed")
    refused = grpc.StatusCode.FAILED_PRECONDITION, "BACKUP_IN_USE"
    assert await refusal(client.backups.DeleteBackup(delete)) == refused
    released = (await client.backups.ReleaseBackup(backups_pb2.ReleaseBackupRequest(**one))).backup
    assert not released.held

    for _ in range(2):
        gone = (await client.backups.DeleteBackup(delete)).backup
        assert (gone.status, gone.file_url) == (backups_pb2.BACKUP_STATUS_DELETED, "")
        assert gone.freeable_size_bytes == 0
    gone = await shown(client, made.backup_id)
    assert (gone.freeable_size_bytes, gone.checksum) == (0, made.checksum)
    verify = backups_pb2.VerifyBackupRequest(request_id=str(uuid.uuid4()), **one)
    assert (await refusal(client.backups.VerifyBackup(verify)))[1] == "BACKUP_STATE"
    hold = backups_pb2.HoldBackupRequest(**one)
    assert (await refusal(client.backups.HoldBackup(hold)))[1] == "BACKUP_STATE"
    assert edge.resources.repository.exists(_artifact_of(edge, made.backup_id) or uuid.uuid4()) is False


async def test_a_backup_that_is_being_made_is_not_deleted(client):
    made = await client.backup("users")
    delete = backups_pb2.DeleteBackupRequest(backup_id=made.backup_id)

    assert (await refusal(client.backups.DeleteBackup(delete)))[1] == "BACKUP_IN_USE"


def _artifact_of(edge: Edge, backup_id: str) -> uuid.UUID | None:
    with edge.db.transaction() as session:
        return session.get_one(BackupRow, uuid.UUID(backup_id)).artifact_id
