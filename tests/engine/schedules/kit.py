"""What a test does with schedules: a clock to move, and backups that end as the test says, without a byte of them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from engine.backups.states import BackupStatus, fail, move
from engine.db.models import AuditEventRow, BackupRow, JobRow, ScheduleRow, ScheduleRunRow
from engine.errors import DataInvalid, DataOpsError, Unavailable
from engine.jobs import states
from engine.jobs.model import JobState
from engine.resources import Resources
from engine.schedules import course
from engine.schedules.model import ScheduleSpec
from engine.schedules.scheduler import Scheduler
from engine.schedules.service import Schedules
from tests.world import World

TABLES = "CREATE TABLE public.{0}things (id int PRIMARY KEY); CREATE TABLE public.{0}others (id int PRIMARY KEY);"
LOST = Unavailable("the database: lost the connection", reason="DATABASE_LOST")
BROKEN = DataInvalid("file: found no rows", reason="EMPTY_FILE")


class Moving:
    """A clock that stands until it is moved."""

    def __init__(self, start: str) -> None:
        self.now = datetime.fromisoformat(start)

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **span: float) -> datetime:
        self.now += timedelta(**span)
        return self.now


class Bench:
    """Schedules over a world, at a time of the test's own."""

    def __init__(self, world: World, start: str) -> None:
        self.clock = Moving(start)
        self.world, self.caller = world, world.caller
        self.resources: Resources = replace(world.resources, clock=self.clock)
        self.schedules, self.scheduler = Schedules(self.resources), Scheduler(self.resources)

    def create(self, cron: str = "@daily", **options: Any) -> uuid.UUID:
        spec = ScheduleSpec(**{"name": "nightly", "cron": cron, "entity_types": ("things",)} | options)
        return self.schedules.create(self.caller, spec, *self.world.request()).id

    def fire(self, **span: float) -> int:
        """Let time pass, then look as a worker does."""
        return self.scheduler.fire(self.clock.pass_by(**span))

    def row(self, schedule_id: uuid.UUID) -> ScheduleRow:
        return self.schedules.get(self.caller, schedule_id)

    def runs(self, schedule_id: uuid.UUID) -> Sequence[ScheduleRunRow]:
        """Oldest first."""
        with self.resources.db.transaction() as session:
            found = select(ScheduleRunRow).where(ScheduleRunRow.schedule_id == schedule_id)
            return session.scalars(found.order_by(ScheduleRunRow.due_at)).all()

    def outcomes(self, schedule_id: uuid.UUID) -> list[tuple[str, str]]:
        return [(f"{run.due_at:%m-%d %H:%M}", run.outcome) for run in self.runs(schedule_id)]

    def backups(self, schedule_id: uuid.UUID) -> Sequence[BackupRow]:
        """Oldest first."""
        with self.resources.db.transaction() as session:
            found = select(BackupRow).where(BackupRow.schedule_id == schedule_id)
            return session.scalars(found.order_by(BackupRow.created_at, BackupRow.id)).all()

    def end(self, schedule_id: uuid.UUID, error: DataOpsError | None = None) -> int:
        """What the job does that ends each backup of the schedule which is being made; how many."""
        now = self.clock()
        with self.resources.db.transaction() as session:
            found = select(BackupRow).where(BackupRow.schedule_id == schedule_id, BackupRow.status == "PENDING")
            backups = session.scalars(found).all()
            for backup in backups:
                job = session.get_one(JobRow, backup.job_id)
                states.change(session, job, JobState.RUNNING, now)
                if error is None:
                    backup.manifest_sha256 = bytes(32)
                    move(backup, BackupStatus.COMPLETED, now)
                    course.completed(session, backup, job, now)
                else:
                    job.error = states.error_record(error)
                    fail(backup, error, now)
                    course.failed(session, backup, error, now)
                states.change(session, job, JobState.FAILED if error else JobState.COMPLETED, now)
        return len(backups)


def audited(bench: Bench, resource_id: uuid.UUID) -> list[tuple[str, str, str | None]]:
    """Kind, operation and outcome of each event, as they were written."""
    with bench.resources.db.transaction() as session:
        found = (
            select(AuditEventRow)
            .where(AuditEventRow.resource_id == str(resource_id))
            .order_by(AuditEventRow.at, AuditEventRow.kind)
        )
        return [(event.kind, event.operation, event.outcome) for event in session.scalars(found)]
