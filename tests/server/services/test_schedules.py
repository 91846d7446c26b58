"""ScheduleService: what is made, shown, changed, paused, fired by hand and deleted, and by whom."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from dataops.v1 import backups_pb2, schedules_pb2, schedules_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import select

from engine.clock import utc_now
from engine.db.models import AuditEventRow, JobRow, ScheduleRow, ScheduleRunRow
from engine.errors import Unavailable
from engine.retention.service import Retention
from engine.schedules.scheduler import Scheduler
from engine.schedules.service import Schedules
from server.principals import Principals
from server.services.schedules import ScheduleService
from tests.server.rpc import Edge
from tests.server.services.kit import by, refusal

DENIED = grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"
UNKNOWN = grpc.StatusCode.NOT_FOUND, "SCHEDULE_UNKNOWN"
INVALID = grpc.StatusCode.INVALID_ARGUMENT, "SCHEDULE_INVALID"
SPEC: dict[str, Any] = {"name": "nightly", "cron": "@daily", "entity_types": ["users"]}


class Client:
    """The stub, in a line each."""

    def __init__(self, stub: Any) -> None:
        self.stub = stub

    async def create(self, as_: str = "admin", request_id: str = "", **spec: Any) -> schedules_pb2.Schedule:
        request = schedules_pb2.CreateScheduleRequest(
            request_id=request_id or str(uuid.uuid4()),
            spec=schedules_pb2.ScheduleSpec(**SPEC | spec),
            reason="by night",
        )
        return (await self.stub.CreateSchedule(request, metadata=by(as_))).schedule

    async def get(self, schedule_id: str, as_: str = "admin") -> schedules_pb2.Schedule:
        request = schedules_pb2.GetScheduleRequest(schedule_id=schedule_id)
        return (await self.stub.GetSchedule(request, metadata=by(as_))).schedule

    async def listed(self, as_: str = "admin") -> list[str]:
        request = schedules_pb2.ListSchedulesRequest()
        return [s.schedule_id for s in (await self.stub.ListSchedules(request, metadata=by(as_))).schedules]

    async def update(self, schedule_id: str, revision: int, as_: str = "admin", **spec: Any) -> schedules_pb2.Schedule:
        request = schedules_pb2.UpdateScheduleRequest(
            schedule_id=schedule_id, revision=revision, spec=schedules_pb2.ScheduleSpec(**SPEC | spec)
        )
        return (await self.stub.UpdateSchedule(request, metadata=by(as_))).schedule

    async def pause(self, schedule_id: str, as_: str = "admin") -> schedules_pb2.Schedule:
        request = schedules_pb2.PauseScheduleRequest(schedule_id=schedule_id)
        return (await self.stub.PauseSchedule(request, metadata=by(as_))).schedule

    async def resume(self, schedule_id: str, as_: str = "admin") -> schedules_pb2.Schedule:
        request = schedules_pb2.ResumeScheduleRequest(schedule_id=schedule_id)
        return (await self.stub.ResumeSchedule(request, metadata=by(as_))).schedule

    async def trigger(self, schedule_id: str, as_: str = "admin", request_id: str = "") -> backups_pb2.Backup:
        request = schedules_pb2.TriggerScheduleRequest(
            schedule_id=schedule_id, request_id=request_id or str(uuid.uuid4())
        )
        return (await self.stub.TriggerSchedule(request, metadata=by(as_))).backup

    async def delete(self, schedule_id: str, as_: str = "admin") -> None:
        await self.stub.DeleteSchedule(schedules_pb2.DeleteScheduleRequest(schedule_id=schedule_id), metadata=by(as_))


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[Client]:
    service = ScheduleService(
        Schedules(edge.resources), Retention(edge.resources), Principals(edge.db, edge.offload), edge.offload
    )
    async with (
        edge.serving((schedules_pb2_grpc.add_ScheduleServiceServicer_to_server, service)) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield Client(schedules_pb2_grpc.ScheduleServiceStub(channel))


def set_due(edge: Edge, schedule_id: str, due_at: datetime) -> None:
    with edge.db.transaction() as session:
        session.get_one(ScheduleRow, uuid.UUID(schedule_id)).next_run_at = due_at


async def test_a_schedule_is_made_once_and_shown_with_its_next_times(client: Client, edge: Edge):
    request_id = str(uuid.uuid4())
    spec: dict[str, Any] = {
        "cron": "30 2 * * *",
        "time_zone": "America/New_York",
        "backup_type": backups_pb2.BACKUP_TYPE_INCREMENTAL,
        "entity_types": ["users", "points"],
        "retention": Duration(seconds=86400 * 7),
        "verify_level": backups_pb2.VERIFY_LEVEL_RESTORED,
        "overlap_policy": schedules_pb2.OVERLAP_POLICY_BUFFER_ONE,
        "catch_up_window": Duration(seconds=7200),
    }
    made = await client.create(request_id=request_id, **spec)

    assert made.spec == schedules_pb2.ScheduleSpec(**SPEC | spec)
    assert (made.revision, made.paused, made.missed_runs, made.failed_runs) == (1, False, 0, 0)
    assert made.principal.subject == "admin"
    times = [time.ToDatetime(tzinfo=UTC) for time in made.next_runs]
    assert len(times) == 5
    assert times == sorted(times)
    assert times[0] > utc_now()
    assert not made.HasField("last_run_at")
    assert not made.HasField("last_error")
    assert await client.create(request_id=request_id, **spec) == made
    assert await client.get(made.schedule_id) == made
    assert await client.listed() == [made.schedule_id]
    assert (await refusal(client.create(request_id=request_id)))[1] == "REQUEST_ID_REUSED"
    with edge.db.transaction() as session:
        found = session.scalars(select(AuditEventRow).where(AuditEventRow.resource_id == made.schedule_id)).all()
        assert [(event.kind, event.operation, event.outcome) for event in found] == [
            ("INTENT", "schedules.change", ""),
            ("OUTCOME", "schedules.change", "COMPLETED"),
        ]
        assert found[0].details["cron"] == "30 2 * * *"


async def test_what_is_not_said_is_the_usual(client: Client):
    spec = (await client.create(entity_types=[])).spec

    assert (spec.time_zone, list(spec.entity_types), spec.HasField("retention")) == ("UTC", [], False)
    assert (spec.backup_type, spec.verify_level) == (backups_pb2.BACKUP_TYPE_FULL, 0)
    assert spec.overlap_policy == schedules_pb2.OVERLAP_POLICY_SKIP
    assert spec.catch_up_window.seconds == 86400


async def test_what_is_no_spec_is_refused_and_nothing_is_made(client: Client):
    for wrong in (
        {"cron": "0 0 2 * * *"},
        {"time_zone": "Mars/Olympus"},
        {"retention": Duration(seconds=59)},
        {"retention": Duration(seconds=86400 * 366 * 101)},
        {"catch_up_window": Duration(seconds=1)},
        {"catch_up_window": Duration(seconds=-1)},
    ):
        assert await refusal(client.create(**wrong)) == INVALID, wrong
    assert (await refusal(client.create(entity_types=["nothing"])))[1] == "ENTITY_UNKNOWN"
    assert (await refusal(client.create(name="")))[1] == "INVALID_REQUEST"
    made = await client.create()
    assert await refusal(client.update(made.schedule_id, 1, cron="@yearly")) == INVALID
    assert await client.listed() == [made.schedule_id]


async def test_an_update_needs_the_revision_that_was_seen(client: Client, edge: Edge):
    made = await client.create()
    edge.grant("bob", "schedules.*", "backups.create")
    changed = await client.update(made.schedule_id, 1, "bob", cron="@weekly", name="weekly")

    assert (changed.revision, changed.spec.name, changed.principal.subject) == (2, "weekly", "bob")
    assert changed.next_runs != made.next_runs
    assert await refusal(client.update(made.schedule_id, 1)) == (grpc.StatusCode.ABORTED, "SCHEDULE_CHANGED")
    assert await client.get(made.schedule_id) == changed


async def test_a_due_time_outlives_an_update_that_leaves_the_times(client: Client, edge: Edge):
    made = await client.create()
    due_at = utc_now() - timedelta(minutes=1)
    set_due(edge, made.schedule_id, due_at)

    renamed = await client.update(made.schedule_id, 1, name="other")
    assert renamed.next_runs[0].ToDatetime(tzinfo=UTC) == due_at
    moved = await client.update(made.schedule_id, 2, time_zone="Europe/Berlin")
    assert moved.next_runs[0].ToDatetime(tzinfo=UTC) > utc_now()


async def test_a_paused_schedule_has_no_next_times_and_goes_on_with_those_to_come(client: Client, edge: Edge):
    made = await client.create()
    set_due(edge, made.schedule_id, utc_now() - timedelta(minutes=1))
    paused = await client.pause(made.schedule_id)

    assert (paused.paused, list(paused.next_runs), paused.revision) == (True, [], 2)
    assert await client.pause(made.schedule_id) == paused
    assert Scheduler(edge.resources).fire(utc_now() + timedelta(days=2)) == 0
    assert list((await client.update(made.schedule_id, 2, cron="@weekly")).next_runs) == []
    resumed = await client.resume(made.schedule_id)
    assert (resumed.paused, len(resumed.next_runs), resumed.missed_runs) == (False, 5, 0)
    assert resumed.next_runs[0].ToDatetime(tzinfo=UTC) > utc_now()
    assert await client.resume(made.schedule_id) == resumed


async def test_a_pause_ends_what_waits(client: Client, edge: Edge):
    made = await client.create()
    schedule_id, now = uuid.UUID(made.schedule_id), utc_now()
    with edge.db.transaction() as session:
        for hours, retry_at in ((2, now), (1, None)):
            run = ScheduleRunRow(schedule_id=schedule_id, due_at=now - timedelta(hours=hours), retry_at=retry_at)
            run.outcome, run.created_at, run.attempts = "WAITING", now, 0
            session.add(run)
    await client.pause(made.schedule_id)

    shown = await client.get(made.schedule_id)
    assert [run.outcome for run in shown.recent_runs] == [
        schedules_pb2.SCHEDULE_RUN_OUTCOME_SKIPPED,
        schedules_pb2.SCHEDULE_RUN_OUTCOME_FAILED,
    ]
    assert (shown.skipped_runs, shown.failed_runs) == (1, 1)


async def test_a_schedule_fired_by_hand_makes_one_backup_for_the_caller(client: Client, edge: Edge):
    made = await client.create(retention=Duration(seconds=7200))
    await client.pause(made.schedule_id)
    edge.grant("bob", "schedules.*:users", "backups.create:users")
    request_id = str(uuid.uuid4())

    backup = await client.trigger(made.schedule_id, "bob", request_id)

    assert (backup.schedule_id, backup.trigger_type) == (made.schedule_id, backups_pb2.TRIGGER_TYPE_SCHEDULED)
    assert backup.context.principal.subject == "bob"
    assert [entity.entity for entity in backup.entities] == ["users"]
    assert await client.trigger(made.schedule_id, "bob", request_id) == backup
    assert (await client.trigger(made.schedule_id)).backup_id != backup.backup_id  # while the other is being made
    shown = await client.get(made.schedule_id)
    assert shown.last_backup_id
    assert (shown.paused, list(shown.next_runs), list(shown.recent_runs)) == (True, [], [])
    with edge.db.transaction() as session:
        jobs = session.scalars(select(JobRow)).all()
        assert [(job.kind, job.state) for job in jobs] == [("BACKUP", "PENDING")] * 2


async def test_what_fails_is_told_where_the_schedule_is_shown(client: Client, edge: Edge):
    edge.grant("carl", "schedules.*", "backups.create")
    made = await client.create("carl", cron="0 2 29 2 *")  # by itself not in the minute before now
    edge.regrant("carl", "schedules.*")
    set_due(edge, made.schedule_id, utc_now() - timedelta(minutes=1))

    Scheduler(edge.resources).fire(utc_now())

    shown = await client.get(made.schedule_id)
    assert (shown.failed_runs, shown.last_error.reason) == (1, "PERMISSION_MISSING")
    (run,) = shown.recent_runs
    assert (run.outcome, run.attempts, run.backup_id) == (schedules_pb2.SCHEDULE_RUN_OUTCOME_FAILED, 0, "")
    assert run.error == shown.last_error


async def test_a_deleted_schedule_is_gone_and_its_backups_stay(client: Client, edge: Edge):
    made = await client.create()
    backup = await client.trigger(made.schedule_id)
    await client.delete(made.schedule_id)

    assert await client.listed() == []
    for call in (client.get, client.pause, client.resume, client.trigger, client.delete):
        assert await refusal(call(made.schedule_id)) == UNKNOWN
    assert await refusal(client.update(made.schedule_id, 2)) == UNKNOWN
    assert Scheduler(edge.resources).fire(utc_now() + timedelta(days=2)) == 0
    with edge.db.transaction() as session:
        job = session.scalars(select(JobRow)).one()
        assert (str(job.resource_id), job.state) == (backup.backup_id, "PENDING")


async def test_a_schedule_is_asked_of_each_of_its_entities(client: Client, edge: Edge):
    edge.grant("carol", "schedules.*:users", "backups.create:users")
    edge.grant("dave", "schedules.*", "backups.create:users")
    edge.grant("erin", "schedules.read")
    edge.grant("fay", "schedules.read", "schedules.change:users", "schedules.trigger:users", "backups.create")
    users, points, everything = [
        (await client.create(entity_types=names)).schedule_id for names in (["users"], ["points"], [])
    ]

    assert await client.listed("carol") == [users]
    assert (await client.get(users, "carol")).schedule_id == users
    for hidden in (points, everything):
        assert await refusal(client.get(hidden, "carol")) == UNKNOWN
        assert await refusal(client.trigger(hidden, "carol")) == UNKNOWN
    assert (await client.create("carol")).principal.subject == "carol"
    assert await refusal(client.create("carol", entity_types=["points"])) == DENIED
    assert await refusal(client.create("carol", entity_types=[])) == DENIED
    assert await refusal(client.create("carol", verify_level=backups_pb2.VERIFY_LEVEL_PRESENT)) == DENIED
    assert await refusal(client.update(users, 1, "carol", entity_types=["tokens"])) == DENIED
    assert await refusal(client.create("dave", entity_types=["tokens"])) == DENIED
    assert await refusal(client.trigger(points, "dave")) == DENIED
    assert (await client.create("fay")).principal.subject == "fay"
    for refused in (
        client.create("fay", entity_types=["tokens"]),
        client.update(users, 1, "fay", entity_types=["tokens"]),
        client.update(points, 1, "fay"),
        client.pause(everything, "fay"),
        client.delete(points, "fay"),
        client.trigger(points, "fay"),
    ):
        assert await refusal(refused) == DENIED
    assert len(await client.listed("erin")) == 5
    for call in (client.pause, client.resume, client.delete, client.trigger):
        assert await refusal(call(users, "erin")) == DENIED
    assert await refusal(client.listed("nobody")) == DENIED


async def test_a_platform_that_is_away_keeps_nobody_from_looking_pausing_and_deleting(client: Client, edge: Edge):
    made = await client.create()

    def away() -> Any:
        raise Unavailable("platform: away", reason="PLATFORM_UNREACHABLE")

    edge.resources.catalogs.load = away  # type: ignore[method-assign]
    assert await client.listed() == [made.schedule_id]
    assert (await client.get(made.schedule_id)).schedule_id == made.schedule_id
    assert (await client.pause(made.schedule_id)).paused
    await client.delete(made.schedule_id)
