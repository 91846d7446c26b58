"""RestoreService: what is planned, shown, confirmed, approved and cancelled, and by whom.

The jobs are the engine's business: here their results are written onto the record as the jobs write them.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import grpc
import pytest
from dataops.v1 import imports_pb2, restores_pb2

from engine.clock import utc_now
from engine.db.models import ImportRow, JobRow, RestoreRow
from tests.server.rpc import Edge
from tests.server.services.kit import HEADER, by, refusal, row

DIGEST = bytes(range(32))
PHRASE = "restore 3 rows of users"
UNKNOWN = str(uuid.uuid4())
DENIED = grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"
PLAN: dict[str, Any] = {
    "entities": [
        {
            "entity": "users",
            "table": "users",
            "rows_now": 53,
            "rows_in_backup": 50,
            "rows_lost": 3,
            "rows_changed": 2,
            "schema_differences": [
                {"code": "COLUMN_ADDED", "message": "nick is new", "severity": "INFO", "metadata": {"column": "nick"}}
            ],
        }
    ],
    "disk_bytes": 1 << 20,
    "wal_bytes": 2 << 20,
    "outage_seconds": 1.5,
    "notices": [{"code": "SEQUENCE_KEPT", "message": "it stays", "severity": "WARNING", "metadata": {}}],
    "approval_needed": False,
}
REPORT: dict[str, Any] = {
    "entities": [{"entity": "users", "rows_before": 53, "rows_after": 50, "rows_lost": 3, "rows_changed": 2}],
    "notices": [],
    "outage_seconds": 0.25,
}


def change(edge: Edge, restore_id: str, **values: Any) -> None:
    with edge.db.transaction() as session:
        found = session.get_one(RestoreRow, uuid.UUID(restore_id))
        for name, value in values.items():
            setattr(found, name, value)


async def planned(client, edge: Edge, **values: Any) -> restores_pb2.Restore:
    """A restore that waits for its phrase."""
    backup = await client.backed_up("users", "tokens")
    made = await client.restore(backup.backup_id, entity_types=["users"])
    waits = {
        "status": "AWAITING_CONFIRMATION",
        "plan": PLAN,
        "plan_digest": DIGEST,
        "confirmation_phrase": PHRASE,
        "plan_expires_at": utc_now() + timedelta(minutes=15),
    }
    change(edge, made.restore_id, **waits | values)
    return await shown(client, made.restore_id)


async def shown(client, restore_id: str, subject: str = "admin") -> restores_pb2.Restore:
    request = restores_pb2.GetRestoreRequest(restore_id=restore_id)
    return (await client.restores.GetRestore(request, metadata=by(subject))).restore


def confirmation(restore_id: str, **fields: Any) -> restores_pb2.ConfirmRestoreRequest:
    known = {"restore_id": restore_id, "plan_digest": DIGEST, "confirmation_phrase": PHRASE}
    return restores_pb2.ConfirmRestoreRequest(**known | fields)


async def confirmed(client, restore_id: str, subject: str = "admin", **fields: Any) -> restores_pb2.Restore:
    request = confirmation(restore_id, **fields)
    return (await client.restores.ConfirmRestore(request, metadata=by(subject))).restore


async def test_a_restore_begins_with_its_plan(client, edge):
    backup = await client.backed_up("users", "tokens")
    renames = [restores_pb2.ColumnRename(entity="users", old_name="nick", new_name="name")]
    made = await client.restore(backup.backup_id, entity_types=["users"], renames=renames)

    assert (made.status, made.backup_id) == (restores_pb2.RESTORE_STATUS_PENDING, backup.backup_id)
    assert (list(made.entity_types), list(made.renames)) == (["users"], renames)
    assert made.context.principal.subject == "admin"
    assert made.requested_by_admin_id == made.context.principal.principal_id
    assert not made.HasField("plan")
    assert not made.HasField("confirmed_losses")
    assert (made.restore_job_id, made.pre_restore_backup_id, made.approved_by_admin_id) == ("", "", "")
    with edge.db.transaction() as session:
        job = session.get_one(JobRow, uuid.UUID(made.plan_job_id))
        assert (job.kind, str(job.resource_id)) == ("RESTORE_PLAN", made.restore_id)
    losses = restores_pb2.ListRestoreLossesRequest(restore_id=made.restore_id)
    assert list((await client.restores.ListRestoreLosses(losses)).losses) == []


async def test_all_that_the_backup_holds_is_meant_where_nothing_is_named(client):
    backup = await client.backed_up("users", "tokens")
    made = await client.restore(backup.backup_id)

    assert sorted(made.entity_types) == ["tokens", "users"]
    for wrong, reason in (
        ({"entity_types": ["points_rules"]}, "ENTITY_UNKNOWN"),
        ({"renames": [restores_pb2.ColumnRename(entity="points", old_name="a", new_name="b")]}, "OPTION_INVALID"),
        ({"renames": [restores_pb2.ColumnRename(entity="users", new_name="b")]}, "INVALID_REQUEST"),
    ):
        assert (await refusal(client.restore(backup.backup_id, **wrong)))[1] == reason
    assert (await refusal(client.restore(UNKNOWN)))[1] == "BACKUP_UNKNOWN"
    unfinished = await client.backup("users")
    assert (await refusal(client.restore(unfinished.backup_id)))[1] == "BACKUP_STATE"


async def test_the_same_request_makes_one_restore(client):
    backup = await client.backed_up("users")
    request_id = str(uuid.uuid4())
    made = await client.restore(backup.backup_id, request_id=request_id)

    assert (await client.restore(backup.backup_id, request_id=request_id)).restore_id == made.restore_id
    other = client.restore(backup.backup_id, request_id=request_id, reason="another body")
    assert (await refusal(other))[1] == "REQUEST_ID_REUSED"


async def test_the_plan_is_shown_whole(client, edge):
    plan = (await planned(client, edge)).plan

    (entity,) = plan.entities
    assert (entity.entity, entity.rows_now, entity.rows_in_backup) == ("users", 53, 50)
    assert (entity.rows_lost, entity.rows_changed) == (3, 2)
    assert [(n.code, n.metadata["column"]) for n in entity.schema_differences] == [("COLUMN_ADDED", "nick")]
    assert (plan.plan_digest, plan.disk_bytes, plan.wal_bytes) == (DIGEST, 1 << 20, 2 << 20)
    assert plan.outage.ToMilliseconds() == 1500
    assert [n.code for n in plan.notices] == ["SEQUENCE_KEPT"]
    assert (plan.confirmation_phrase, plan.approval_needed) == (PHRASE, False)
    assert plan.HasField("expires_at")


@pytest.mark.parametrize(
    "values",
    [
        {"status": "AWAITING_APPROVAL"},
        {"status": "PROCESSING"},
        {"status": "EXPIRED"},
        {"plan_expires_at": utc_now() - timedelta(seconds=1)},
    ],
)
async def test_a_phrase_that_cannot_be_used_is_not_shown(client, edge, values):
    found = await planned(client, edge, **values)

    assert found.plan.plan_digest == DIGEST
    assert found.plan.confirmation_phrase == ""


async def test_the_report_is_shown_when_it_is_committed(client, edge):
    pre_restore = uuid.uuid4()
    done = {"status": "COMPLETED", "report": REPORT, "pre_restore_backup_id": pre_restore, "completed_at": utc_now()}
    found = await planned(client, edge, **done)

    (entity,) = found.report.entities
    assert (entity.rows_before, entity.rows_after, entity.rows_lost, entity.rows_changed) == (53, 50, 3, 2)
    assert found.report.outage.ToMilliseconds() == 250
    assert found.pre_restore_backup_id == str(pre_restore)
    assert found.HasField("completed_at")


async def test_what_would_be_lost_is_listed_row_by_row(client, edge):
    """The plan of a REPLACE stands for what a restore's plan keeps of its losses: it has the same form."""
    kept = row(900)
    first = await client.planned((HEADER + kept + "".join(row(number) for number in range(5))).encode())
    apply = imports_pb2.ApplyImportRequest(import_id=first.import_id, plan_digest=first.plan.plan_digest)
    await client.imports.ApplyImport(apply)
    await client.run_jobs()
    replace = await client.planned(
        (HEADER + kept.replace("User 900", "Other")).encode(),
        import_type=imports_pb2.IMPORT_TYPE_REPLACE,
        options=imports_pb2.ImportOptions(max_deletes=1000),
    )
    made = await planned(client, edge)
    with edge.db.transaction() as session:
        source = session.get_one(ImportRow, uuid.UUID(replace.import_id))
        assert source.plan_digest is not None
        file = {"plan_artifact_id": source.plan_artifact_id}
        plan = PLAN | {"losses_digest": source.plan_digest.hex()}
    change(edge, made.restore_id, plan=plan, **file)

    losses, token = [], ""
    while True:
        request = restores_pb2.ListRestoreLossesRequest(restore_id=made.restore_id, page_size=2, page_token=token)
        page = await client.restores.ListRestoreLosses(request)
        losses += page.losses
        if not (token := page.next_page_token):
            break
    gone = [found for found in losses if found.deleted]
    changed = [found for found in losses if not found.deleted]
    assert (len(gone), {found.entity for found in losses}) == (5, {"users"})
    assert all(len(found.key) == 1 and not found.changed_fields for found in gone)
    assert [list(found.changed_fields) for found in changed] == [["name"]]
    none = restores_pb2.ListRestoreLossesRequest(restore_id=made.restore_id, entity="tokens")
    assert list((await client.restores.ListRestoreLosses(none)).losses) == []


async def test_a_restore_is_confirmed_by_its_phrase_once(client, edge):
    made = await planned(client, edge)
    request_id = str(uuid.uuid4())
    begun = await confirmed(client, made.restore_id, request_id=request_id)

    assert begun.status == restores_pb2.RESTORE_STATUS_PROCESSING
    assert begun.confirmed_losses == 5
    assert begun.confirmed_by_admin_id == begun.requested_by_admin_id
    assert begun.plan.confirmation_phrase == ""
    for again in ({"request_id": request_id}, {}):
        assert (await confirmed(client, made.restore_id, **again)).restore_job_id == begun.restore_job_id
    with edge.db.transaction() as session:
        job = session.get_one(JobRow, uuid.UUID(begun.restore_job_id))
        assert (job.kind, [claim["mode"] for claim in job.claims]) == ("RESTORE", ["EXCLUSIVE"])


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"confirmation_phrase": PHRASE.upper()}, grpc.StatusCode.FAILED_PRECONDITION, "PHRASE_WRONG"),
        ({"confirmation_phrase": ""}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        ({"plan_digest": DIGEST[::-1]}, grpc.StatusCode.ABORTED, "PLAN_DIGEST_MISMATCH"),
        ({"max_losses": 4}, grpc.StatusCode.INVALID_ARGUMENT, "OPTION_INVALID"),
        ({"max_losses": -1}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    ],
)
async def test_what_is_not_the_plans_confirms_nothing(client, edge, fields, code, reason):
    made = await planned(client, edge)

    assert await refusal(confirmed(client, made.restore_id, **fields)) == (code, reason)
    assert (await shown(client, made.restore_id)).plan.confirmation_phrase == PHRASE
    begun = await confirmed(client, made.restore_id, max_losses=10)
    assert (begun.status, begun.confirmed_losses) == (restores_pb2.RESTORE_STATUS_PROCESSING, 10)


async def test_a_plan_whose_time_is_over_is_not_confirmed(client, edge):
    made = await planned(client, edge, plan_expires_at=utc_now() - timedelta(seconds=1))

    assert (await refusal(confirmed(client, made.restore_id)))[1] == "PLAN_EXPIRED"


async def test_another_person_approves_where_a_setting_asks_for_it(client, edge, monkeypatch):
    monkeypatch.setitem(vars(edge.resources.settings), "restore_needs_approval", True)
    edge.grant("alice", "restores.*", "backups.read")
    made = await planned(client, edge)
    waiting = await confirmed(client, made.restore_id)
    approval = restores_pb2.ApproveRestoreRequest(restore_id=made.restore_id, plan_digest=DIGEST)
    assert (waiting.status, waiting.restore_job_id) == (restores_pb2.RESTORE_STATUS_AWAITING_APPROVAL, "")

    own = client.restores.ApproveRestore(approval)
    assert await refusal(own) == (grpc.StatusCode.PERMISSION_DENIED, "APPROVAL_BY_ANOTHER")
    another_plan = restores_pb2.ApproveRestoreRequest(restore_id=made.restore_id, plan_digest=DIGEST[::-1])
    refused = client.restores.ApproveRestore(another_plan, metadata=by("alice"))
    assert (await refusal(refused))[1] == "PLAN_DIGEST_MISMATCH"
    for _ in range(2):
        begun = (await client.restores.ApproveRestore(approval, metadata=by("alice"))).restore
        assert (begun.status, bool(begun.restore_job_id)) == (restores_pb2.RESTORE_STATUS_PROCESSING, True)
    assert begun.approved_by_admin_id == str(edge.caller("alice").principal_id)


async def test_a_restore_that_waits_is_cancelled_at_once(client, edge):
    made = await planned(client, edge)
    request = restores_pb2.CancelRestoreRequest(restore_id=made.restore_id, reason="not now")
    for _ in range(2):
        gone = (await client.restores.CancelRestore(request)).restore
        assert gone.status == restores_pb2.RESTORE_STATUS_CANCELLED

    assert gone.plan.confirmation_phrase == ""
    refused = grpc.StatusCode.FAILED_PRECONDITION, "RESTORE_STATE"
    assert await refusal(confirmed(client, made.restore_id)) == refused


async def test_restores_are_listed_newest_first_by_pages_and_filters(client, edge):
    first, second = await client.backed_up("users"), await client.backed_up("tokens")
    made = [(await client.restore(b.backup_id)).restore_id for b in (first, second, first)]
    change(edge, made[0], status="FAILED")

    async def listed(**fields: Any) -> list[str]:
        answer = await client.restores.ListRestores(restores_pb2.ListRestoresRequest(**fields))
        return [found.restore_id for found in answer.restores]

    page = await client.restores.ListRestores(restores_pb2.ListRestoresRequest(page_size=2))
    token = page.next_page_token
    assert [found.restore_id for found in page.restores] == [made[2], made[1]]
    assert await listed(page_size=2, page_token=token) == [made[0]]
    assert await listed(backup_id=first.backup_id) == [made[2], made[0]]
    assert await listed(statuses=[restores_pb2.RESTORE_STATUS_FAILED]) == [made[0]]
    other = restores_pb2.ListRestoresRequest(page_size=2, page_token=token, backup_id=first.backup_id)
    assert (await refusal(client.restores.ListRestores(other)))[1] == "PAGE_TOKEN_INVALID"


async def test_a_restore_is_nobodys_who_lacks_the_right_to_all_of_it(client, edge):
    """An admin's rights on data, and rights on one entity, do not reach restores."""
    made = await planned(client, edge)
    edge.grant("alex", "backups.*", "jobs.*", "imports.*")
    edge.grant("uma", "restores.*:users")
    one: dict[str, Any] = {"restore_id": made.restore_id}
    for subject in ("alex", "uma"):
        for call in (
            client.restore(made.backup_id, as_=subject),
            client.restores.GetRestore(restores_pb2.GetRestoreRequest(**one), metadata=by(subject)),
            client.restores.ListRestores(restores_pb2.ListRestoresRequest(), metadata=by(subject)),
            client.restores.ListRestoreLosses(restores_pb2.ListRestoreLossesRequest(**one), metadata=by(subject)),
            client.restores.ConfirmRestore(confirmation(made.restore_id), metadata=by(subject)),
            client.restores.ApproveRestore(
                restores_pb2.ApproveRestoreRequest(**one, plan_digest=DIGEST), metadata=by(subject)
            ),
            client.restores.CancelRestore(restores_pb2.CancelRestoreRequest(**one), metadata=by(subject)),
        ):
            assert await refusal(call) == DENIED


async def test_a_restore_that_there_is_not_is_unknown(client):
    unknown = grpc.StatusCode.NOT_FOUND, "RESTORE_UNKNOWN"

    assert await refusal(shown(client, UNKNOWN)) == unknown
    assert await refusal(confirmed(client, UNKNOWN)) == unknown
    cancel = restores_pb2.CancelRestoreRequest(restore_id=UNKNOWN)
    assert await refusal(client.restores.CancelRestore(cancel)) == unknown
