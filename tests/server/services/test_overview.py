"""OverviewService: the whole answer over the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from dataops.v1 import backups_pb2, imports_pb2, jobs_pb2, overview_pb2, overview_pb2_grpc
from sqlalchemy import text

from engine.overview.service import Overview
from server.principals import Principals
from server.services.overview import OverviewService
from tests.engine.overview.kit import Rows, proof
from tests.server.rpc import Edge
from tests.server.services.kit import Client, by, refusal

Asking = Any
"""The generated stub, whose asynchronous form exists for type checkers alone."""


@pytest.fixture
async def overviews(edge: Edge) -> AsyncIterator[Asking]:
    served = OverviewService(Overview(edge.resources), Principals(edge.db, edge.offload), edge.offload)
    async with (
        edge.serving((overview_pb2_grpc.add_OverviewServiceServicer_to_server, served)) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield overview_pb2_grpc.OverviewServiceStub(channel)


async def asked(overviews: Asking, as_: str = "admin", recent: int = 0) -> overview_pb2.GetOverviewResponse:
    return await overviews.GetOverview(overview_pb2.GetOverviewRequest(recent=recent), metadata=by(as_))


async def test_what_was_done_is_shown_with_who_did_it(client: Client, overviews: Asking) -> None:
    backup = await client.backed_up("users", "tokens")
    await client.planned()
    waiting = await client.export()
    shown = await asked(overviews)

    assert shown.last_backup == backup
    assert shown.last_good_backup_at == backup.snapshot_at
    assert (shown.available_backups, shown.damaged_backups) == (1, 0)
    assert not shown.HasField("last_proven_backup_at")
    assert "users" not in shown.unprotected_entities
    assert shown.unprotected_entity_count == len(shown.unprotected_entities) > 0
    assert [e.export_id for e in shown.recent_exports] == [waiting.export_id]
    assert [i.status for i in shown.recent_imports] == [imports_pb2.IMPORT_STATUS_AWAITING_APPROVAL]
    assert [(j.job_id, j.state) for j in shown.active_jobs] == [(waiting.job_id, jobs_pb2.JOB_STATE_PENDING)]
    assert (shown.active_job_count, list(shown.withheld), list(shown.notices)) == (1, [], [])
    assert shown.as_of.ToNanoseconds() >= backup.completed_at.ToNanoseconds()
    told = (shown.last_backup, shown.recent_exports[0], shown.recent_imports[0], shown.active_jobs[0])
    assert {row.context.principal.subject for row in told} == {"admin"}
    assert {u.code for u in shown.uncovered} >= {"ROWS_ONLY"}


async def test_schedules_and_proofs_are_shown(edge: Edge, overviews: Asking) -> None:
    rows = Rows(edge.resources)
    everything = [entity.name for entity in edge.resources.catalogs.load().entities()]
    rows.backup(30, everything, verifications={"RESTORED": proof(rows.now)})
    paused = rows.schedule("paused", paused=True, next_run_at=None)
    nightly = rows.schedule("nightly")
    rows.scheduled(nightly, 2, status="FAILED")
    shown = await asked(overviews)

    assert shown.last_proven_backup_at.ToDatetime(tzinfo=rows.now.tzinfo) == rows.now
    for field in ("newest_proven_backup_at", "all_entities_good_at", "all_entities_proven_at", "last_good_backup_at"):
        assert getattr(shown, field).ToDatetime(tzinfo=rows.now.tzinfo) == rows.before(30), field
    assert shown.next_scheduled_backup_at.ToDatetime(tzinfo=rows.now.tzinfo) == nightly.next_run_at
    assert (shown.schedules.schedules, shown.schedules.paused, shown.schedules.failed_runs) == (2, 1, 1)
    assert {c.schedule_id: list(c.concerns) for c in shown.schedules.concerns} == {
        str(nightly.id): [overview_pb2.SCHEDULE_CONCERN_FAILING],
        str(paused.id): [overview_pb2.SCHEDULE_CONCERN_PAUSED],
    }
    assert shown.last_backup.status == backups_pb2.BACKUP_STATUS_FAILED


async def test_a_caller_sees_its_part_and_is_told_what_is_withheld(
    edge: Edge, client: Client, overviews: Asking
) -> None:
    edge.grant("lim", "overview.read", "exports.read:tokens")
    edge.grant("none", "exports.read")
    await client.export()
    mine = await client.export(entity_types=["tokens"])
    shown = await asked(overviews, "lim")

    assert [e.export_id for e in shown.recent_exports] == [mine.export_id]
    assert list(shown.withheld) == ["backups", "catalog", "imports", "jobs", "schedules"]
    assert not shown.HasField("schedules")
    assert (shown.active_job_count, len(shown.active_jobs)) == (0, 0)
    assert (await refusal(asked(overviews, "none")))[1] == "PERMISSION_MISSING"


async def test_the_number_of_recent_ones_is_the_callers(client: Client, overviews: Asking) -> None:
    made = [(await client.export()).export_id for _ in range(6)]

    assert [e.export_id for e in (await asked(overviews)).recent_exports] == made[:0:-1]
    assert [e.export_id for e in (await asked(overviews, recent=1)).recent_exports] == made[5:]
    assert (await refusal(asked(overviews, recent=51)))[1] == "INVALID_REQUEST"


async def test_long_lists_are_cut_before_the_answer_is_too_long(edge: Edge, client: Client, overviews: Asking) -> None:
    await client.export()
    copies = """INSERT INTO dataops.exports SELECT (jsonb_populate_record(e, jsonb_build_object(
        'id', gen_random_uuid(), 'options', e.options || CAST(:more AS jsonb)))).*
        FROM dataops.exports e, generate_series(1, 20)"""
    with edge.db.transaction() as session:
        session.execute(text(copies), {"more": json.dumps({"name": "n" * 100_000})})
    shown = await asked(overviews, recent=50)

    assert 1 < len(shown.recent_exports) < 10
    assert shown.ByteSize() < 1 << 20
