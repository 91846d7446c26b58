"""What is owed when a job ends: to whom, with what in it, and exactly once."""

from __future__ import annotations

import json
import uuid

from engine.backups.model import BackupRequest, VerifyLevel
from engine.backups.service import Backups
from engine.db.models import BackupRow, ScheduleRow
from engine.errors import DataInvalid
from engine.faults import InjectedFault
from engine.jobs.calls import Jobs
from engine.webhooks.service import Webhooks
from tests.engine.webhooks.kit import ended_job, hook, owed


def make_schedule(world, name="nightly"):
    now = world.resources.clock()
    row = ScheduleRow(
        id=uuid.uuid4(), name=name, cron="0 3 * * *", time_zone="UTC", backup_type="FULL", entity_types=[],
        overlap_policy="SKIP", catch_up_seconds=0, principal_id=world.caller.principal_id, context={},
        created_at=now, updated_at=now,
    )  # fmt: skip
    with world.resources.db.transaction() as session:
        session.add(row)
    return row.id


def backup_of(world, schedule_id):
    row = Backups(world.resources).create(world.caller, BackupRequest(()), *world.request())
    with world.resources.db.transaction() as session:
        session.get_one(BackupRow, row.id).schedule_id = schedule_id
    world.work()
    return row.id


def test_a_webhook_is_told_of_the_kinds_and_states_it_asks_for(world, monkeypatch):
    hooks = {
        "all": hook(world)[0],
        "exports": hook(world, job_kinds=("EXPORT", "BACKUP"))[0],
        "backups": hook(world, job_kinds=("BACKUP",))[0],
        "failed": hook(world, job_states=("FAILED",))[0],
        "done": hook(world, job_kinds=("EXPORT",), job_states=("COMPLETED", "CANCELLED"))[0],
    }

    gone, _ = hook(world)
    Webhooks(world.resources).delete(world.caller, gone.id)

    def told():
        return {name: [json.loads(d.body)["event"] for d in owed(world, row)] for name, row in hooks.items()}

    ended_job(world)
    assert told() == {
        "all": ["job.completed"],
        "exports": ["job.completed"],
        "backups": [],
        "failed": [],
        "done": ["job.completed"],
    }

    def fail(*_):
        raise DataInvalid("row: found 'needle', expected another", reason="FILE_EMPTY")

    monkeypatch.setattr("engine.exports.run.ExportHandler.run", fail)
    ended_job(world)
    job_id = world.begin_export("t").job_id
    Jobs(world.resources.db, world.resources.bell, world.resources.clock).cancel(world.caller, job_id)
    assert told() == {
        "all": ["job.completed", "job.failed", "job.cancelled"],
        "exports": ["job.completed", "job.failed", "job.cancelled"],
        "backups": [],
        "failed": ["job.failed"],
        "done": ["job.completed", "job.cancelled"],
    }
    assert owed(world, gone) == []
    failed = owed(world, hooks["failed"])[0]
    assert json.loads(failed.body)["job"]["error_reason"] == "FILE_EMPTY"
    assert b"needle" not in failed.body


def test_the_body_names_the_job_and_holds_nothing_else(world):
    webhook, key = hook(world)
    job = world.job(ended_job(world))
    (delivery,) = owed(world)

    assert job.started_at is not None
    body = json.loads(delivery.body)
    times = {name: body["job"].pop(name) for name in ("created_at", "started_at", "finished_at")}
    assert body == {
        "event": "job.completed",
        "delivery_id": str(delivery.id),
        "webhook_id": str(webhook.id),
        "job": {
            "job_id": str(job.id),
            "kind": "EXPORT",
            "state": "COMPLETED",
            "attempt": 1,
            "resource_type": "exports",
            "resource_id": str(job.resource_id),
            "entity_types": ["t"],
            "schedule_id": None,
            "error_reason": None,
        },
    }
    assert times["started_at"] == job.started_at.isoformat().replace("+00:00", "Z")
    for secret in (key, key.hex().encode(), webhook.url.encode(), b"needle"):
        assert secret not in delivery.body


def test_a_webhook_of_a_schedule_hears_of_its_backups_and_their_verifications_alone(world):
    nightly, weekly = make_schedule(world), make_schedule(world, "weekly")
    of_nightly, of_all = hook(world, schedule_id=nightly)[0], hook(world, job_kinds=("BACKUP", "BACKUP_VERIFY"))[0]
    first, other = backup_of(world, nightly), backup_of(world, None)
    backup_of(world, weekly)
    backups = Backups(world.resources)
    for backup_id in (first, other):
        backups.verify(world.caller, backup_id, VerifyLevel.PRESENT, *world.request())
    world.work()
    ended_job(world)

    found = [json.loads(d.body)["job"] for d in owed(world, of_nightly)]
    assert [(j["kind"], j["resource_id"], j["schedule_id"]) for j in found] == [
        ("BACKUP", str(first), str(nightly)),
        ("BACKUP_VERIFY", str(first), str(nightly)),
    ]
    assert len(owed(world, of_all)) == 5


def test_an_end_that_is_rolled_back_owes_nothing_and_the_one_that_stands_owes_once(world, monkeypatch):
    hook(world)
    seen = []

    def lost(session, job, outcome, details, now):
        session.flush()
        seen.append(outcome)
        if len(seen) == 1:
            raise InjectedFault("after the delivery was written")

    monkeypatch.setattr("engine.jobs.ending.record_outcome", lost)
    job = world.job(ended_job(world))

    assert (seen, job.state) == (["COMPLETED", "FAILED"], "FAILED")
    assert [json.loads(d.body)["event"] for d in owed(world)] == ["job.failed"]
