"""PreviewRetention over a real channel: pages, filters, sizes, and who may look; what deleting a backup would free."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
import pytest
from dataops.v1 import backups_pb2, common_pb2, schedules_pb2, schedules_pb2_grpc

from engine.clock import utc_now
from engine.db.models import AuditEventRow, BackupRow
from engine.retention.service import Retention
from engine.schedules.service import Schedules
from server.convert.audit import event_to_pb
from server.principals import Principals
from server.services.schedules import ScheduleService
from tests.server.rpc import Edge
from tests.server.services.kit import by, refusal


@pytest.fixture
async def schedules(edge: Edge) -> AsyncIterator[schedules_pb2_grpc.ScheduleServiceAsyncStub]:
    settings = edge.resources.settings.model_copy(update={"retention_settle_seconds": 0, "retention_floor": 1})
    retention = Retention(replace(edge.resources, settings=settings))
    service = ScheduleService(Schedules(edge.resources), retention, Principals(edge.db, edge.offload), edge.offload)
    async with (
        edge.serving((schedules_pb2_grpc.add_ScheduleServiceServicer_to_server, service)) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield schedules_pb2_grpc.ScheduleServiceStub(channel)


def change(edge: Edge, backup_id: str, **values: Any) -> None:
    with edge.db.transaction() as session:
        row = session.get_one(BackupRow, uuid.UUID(backup_id))
        for name, value in values.items():
            setattr(row, name, value)


async def preview(
    stub: schedules_pb2_grpc.ScheduleServiceAsyncStub, subject: str = "admin", **fields: Any
) -> schedules_pb2.PreviewRetentionResponse:
    return await stub.PreviewRetention(schedules_pb2.PreviewRetentionRequest(**fields), metadata=by(subject))


async def test_decisions_come_in_pages_with_what_all_removals_free(client, edge, schedules):
    made = [await client.backed_up("tokens") for _ in range(4)]
    past = utc_now() - timedelta(days=1)
    for backup in made:
        change(edge, backup.backup_id, expires_at=past)
    change(edge, made[0].backup_id, held=True)
    change(edge, made[2].backup_id, parent_id=uuid.UUID(made[1].backup_id))

    found: list[schedules_pb2.RetentionDecision] = []
    token, pages = "", 0
    while True:
        page = await preview(schedules, page_size=3, page_token=token)
        assert page.freeable_size_bytes == made[1].file_size_bytes + made[2].file_size_bytes
        found += page.decisions
        pages += 1
        if not (token := page.next_page_token):
            break
    assert pages == 2
    assert [(d.resource, d.code, d.remove, d.freeable_size_bytes) for d in found] == [
        (f"backups/{made[0].backup_id}", "HELD", False, 0),
        (f"backups/{made[1].backup_id}", "EXPIRED", True, made[1].file_size_bytes),
        (f"backups/{made[2].backup_id}", "EXPIRED", True, made[2].file_size_bytes),
        (f"backups/{made[3].backup_id}", "FLOOR", False, 0),
    ]
    assert found[3].message == "it is one of the newest 1 of its entities, which stay"
    removals = (await preview(schedules, removals_only=True)).decisions
    assert [d.resource for d in removals] == [f"backups/{made[n].backup_id}" for n in (1, 2)]
    token = (await preview(schedules, page_size=1)).next_page_token
    assert (await refusal(preview(schedules, page_token=token, removals_only=True)))[1] == "PAGE_TOKEN_INVALID"

    shown = {b.backup_id: b for b in (await client.backups.ListBackups(backups_pb2.ListBackupsRequest())).backups}
    assert shown[made[1].backup_id].freeable_size_bytes == 0, "it cannot be deleted while an increment builds on it"
    assert shown[made[2].backup_id].freeable_size_bytes == made[2].file_size_bytes
    base = backups_pb2.DeleteBackupRequest(backup_id=made[1].backup_id)
    assert await refusal(client.backups.DeleteBackup(base)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "BACKUP_IN_USE",
    )


def test_the_audit_log_names_dataops_itself():
    values = {"kind": "INTENT", "operation": "retention.remove", "principal_id": uuid.UUID(int=0), "issuer": "dataops"}
    row = AuditEventRow(
        id=uuid.uuid4(), at=utc_now(), subject="retention", outcome="", details={}, context={}, **values
    )
    row.resource_type, row.resource_id = "backups", "1"

    who = event_to_pb(row).context.principal
    assert (who.kind, who.subject) == (common_pb2.PRINCIPAL_KIND_SYSTEM, "retention")
    row.issuer = "dataops-admin"  # a person on the host
    assert event_to_pb(row).context.principal.kind == common_pb2.PRINCIPAL_KIND_UNSPECIFIED


async def test_it_is_for_who_may_read_schedules_and_shows_no_more_than_the_lists_do(client, edge, schedules):
    hidden, own = await client.backed_up("tokens"), await client.backed_up("users")
    edge.grant("carol", "schedules.read", "backups.read:users")
    edge.grant("dave", "backups.*")

    assert [d.resource for d in (await preview(schedules)).decisions] == [
        f"backups/{hidden.backup_id}",
        f"backups/{own.backup_id}",
    ]
    assert [d.resource for d in (await preview(schedules, "carol")).decisions] == [f"backups/{own.backup_id}"]
    assert await refusal(preview(schedules, "dave")) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
