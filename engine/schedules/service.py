"""Schedules as the server asks for them: short control transactions."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from engine.access import Caller, once
from engine.audit import record_intent, record_outcome
from engine.backups.service import wanted
from engine.catalog import Catalog
from engine.db.models import BackupRow, ScheduleRow, ScheduleRunRow
from engine.errors import Aborted, InternalError
from engine.ids import new_id
from engine.paging import Page, Paging, newest_first
from engine.resources import Resources
from engine.schedules.model import ScheduleSpec
from engine.schedules.record import (
    READ,
    get_schedule,
    give_up,
    meant,
    readable,
    recent_runs,
    times_of,
    unknown,
    waiting_runs,
)
from engine.schedules.start import begin_backup

CHANGE = "schedules.change"


class Schedules:
    """One object a process; every method is one call of one caller."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def create(self, caller: Caller, spec: ScheduleSpec, request_id: str, body_sha256: bytes) -> ScheduleRow:
        """Records a schedule; its first time is the first one to come.

        Raises:
            InvalidRequest: SCHEDULE_INVALID; NotFound: ENTITY_UNKNOWN; FailedPrecondition: ENTITY_NOT_BACKED_UP;
            PermissionDenied: PERMISSION_MISSING; AlreadyExists: REQUEST_ID_REUSED.
        """
        spec.require_valid()
        self._permit_spec(caller, spec)
        now = self._resources.clock()

        def make() -> uuid.UUID:
            row = ScheduleRow(
                id=new_id(),
                **spec.as_columns(),
                principal_id=caller.principal_id,
                context=caller.context.as_record(),
                created_at=now,
                updated_at=now,
            )
            row.next_run_at = times_of(row).after(now)
            session.add(row)
            _record(session, caller, row, "create", now)
            return row.id

        with self._resources.db.transaction() as session:
            schedule_id, _ = once(session, caller, "CreateSchedule", request_id, body_sha256, make, now)
            return get_schedule(session, schedule_id)

    def get(self, caller: Caller, schedule_id: uuid.UUID) -> ScheduleRow:
        """Raises:
        NotFound: SCHEDULE_UNKNOWN, also for one with an entity whose schedules the caller may not read.
        """
        return self.get_with_runs(caller, schedule_id)[0]

    def get_with_runs(self, caller: Caller, schedule_id: uuid.UUID) -> tuple[ScheduleRow, Sequence[ScheduleRunRow]]:
        """And what became of its newest times, newest first. Raises: as `get`."""
        with self._resources.db.transaction() as session:
            row, runs = get_schedule(session, schedule_id), recent_runs(session, schedule_id)
        if not readable(caller, row.entity_types, self._resources.catalogs.load):
            raise unknown(schedule_id)
        return row, runs

    def list(self, caller: Caller, paging: Paging) -> Page[ScheduleRow]:
        """Newest first, of those the caller may read."""
        query = select(ScheduleRow).where(ScheduleRow.deleted_at.is_(None))
        if not caller.may(READ, "*"):
            query = query.where(
                func.cardinality(ScheduleRow.entity_types) > 0,
                ScheduleRow.entity_types.contained_by(_names(self._resources.catalogs.load(), caller)),
            )
        with self._resources.db.transaction() as session:
            return newest_first(session, query, paging, ScheduleRow.created_at, ScheduleRow.id)

    def update(self, caller: Caller, schedule_id: uuid.UUID, revision: int, spec: ScheduleSpec) -> ScheduleRow:
        """Replaces the spec; the caller is the one for whom its backups are made from here on. Where its times are
        other ones now, it goes on with the first to come; else a time that is due stays due.

        Raises:
            Aborted: SCHEDULE_CHANGED unless it stands at this revision; and as `create`, NotFound: SCHEDULE_UNKNOWN.
        """
        spec.require_valid()
        self._permit_spec(caller, spec)
        with self._to_change(caller, schedule_id) as (session, row, now):
            if row.revision != revision:
                raise Aborted(
                    f"schedule: found it at revision {row.revision}, expected {revision}",
                    reason="SCHEDULE_CHANGED",
                    metadata={"revision": str(row.revision)},
                )
            before = times_of(row)
            for column, value in spec.as_columns().items():
                setattr(row, column, value)
            row.principal_id, row.context = caller.principal_id, caller.context.as_record()
            if times_of(row) != before and not row.paused:
                row.next_run_at = times_of(row).after(now)
            _changed(session, caller, row, "update", now)
        return row

    def delete(self, caller: Caller, schedule_id: uuid.UUID) -> None:
        """From here on there is no such schedule; its backups stay, and one that is being made goes on.

        Raises:
            NotFound: SCHEDULE_UNKNOWN; PermissionDenied.
        """
        with self._to_change(caller, schedule_id) as (session, row, now):
            row.deleted_at, row.next_run_at = now, None
            _stop_waiting(session, row)
            _changed(session, caller, row, "delete", now)

    def pause(self, caller: Caller, schedule_id: uuid.UUID) -> ScheduleRow:
        """Nothing comes due and nothing that waits begins until it is resumed. A paused one stays as it is.

        Raises:
            NotFound: SCHEDULE_UNKNOWN; PermissionDenied.
        """
        with self._to_change(caller, schedule_id) as (session, row, now):
            if not row.paused:
                row.paused, row.next_run_at = True, None
                _stop_waiting(session, row)
                _changed(session, caller, row, "pause", now)
        return row

    def resume(self, caller: Caller, schedule_id: uuid.UUID) -> ScheduleRow:
        """It goes on with the first time to come. One that is not paused stays as it is.

        Raises:
            NotFound: SCHEDULE_UNKNOWN; PermissionDenied.
        """
        with self._to_change(caller, schedule_id) as (session, row, now):
            if row.paused:
                row.paused, row.next_run_at = False, times_of(row).after(now)
                _changed(session, caller, row, "resume", now)
        return row

    def trigger(self, caller: Caller, schedule_id: uuid.UUID, request_id: str, body_sha256: bytes) -> BackupRow:
        """A backup by the schedule's spec, now and for the caller, whether it is paused or a run of it goes on. Its
        next time stays. One that fails is not tried again by the schedule.

        Raises:
            PermissionDenied: PERMISSION_MISSING, of schedules.trigger or backups.create; NotFound: SCHEDULE_UNKNOWN,
            ENTITY_UNKNOWN; FailedPrecondition: ENTITY_NOT_BACKED_UP; AlreadyExists: REQUEST_ID_REUSED.
        """
        seen = self.get(caller, schedule_id)
        catalog, now = self._resources.catalogs.load(), self._resources.clock()
        for entity in wanted(catalog, caller, seen.entity_types):
            caller.require("schedules.trigger", entity)

        def make() -> uuid.UUID:
            row = get_schedule(session, schedule_id, lock=True)
            return begin_backup(session, row, catalog, caller, "schedules.trigger", now, now).id

        with self._resources.db.transaction() as session:
            backup_id, fresh = once(session, caller, "TriggerSchedule", request_id, body_sha256, make, now)
            backup = session.get(BackupRow, backup_id)
        if backup is None:
            raise InternalError("the backup of this request does not exist", reason="BACKUP_GONE")
        if fresh:
            self._resources.bell.ring()
        return backup

    @contextmanager
    def _to_change(self, caller: Caller, schedule_id: uuid.UUID) -> Iterator[tuple[Session, ScheduleRow, datetime]]:
        """The schedule under its lock, for a caller who may change it, and the time."""
        seen = self.get(caller, schedule_id)
        if not caller.may(CHANGE, "*"):
            for name in meant(self._resources.catalogs.load(), seen.entity_types) or ["*"]:
                caller.require(CHANGE, name)
        now = self._resources.clock()
        with self._resources.db.transaction() as session:
            yield session, get_schedule(session, schedule_id, lock=True), now

    def _permit_spec(self, caller: Caller, spec: ScheduleSpec) -> None:
        """What its backups will need, the caller needs now; it is asked again whenever it fires."""
        for entity in wanted(self._resources.catalogs.load(), caller, spec.entity_types):
            caller.require(CHANGE, entity)
            if spec.verify_level is not None:
                caller.require("backups.verify", entity)


def _names(catalog: Catalog, caller: Caller) -> Sequence[str]:
    """The entities whose schedules the caller may read, and the groups that hold no other."""
    groups: dict[str, bool] = {}
    names = []
    for entity in catalog.entities():
        readable = caller.may(READ, entity.name)
        if readable:
            names.append(entity.name)
        if entity.group:
            groups[entity.group] = groups.get(entity.group, True) and readable
    return names + [group for group, readable in groups.items() if readable]


def _stop_waiting(session: Session, row: ScheduleRow) -> None:
    for run in waiting_runs(session, row.id):
        give_up(row, run)


def _changed(session: Session, caller: Caller, row: ScheduleRow, change: str, now: datetime) -> None:
    row.revision += 1
    row.updated_at = now
    _record(session, caller, row, change, now)


def _record(session: Session, caller: Caller, row: ScheduleRow, change: str, now: datetime) -> None:
    details = {
        "change": change,
        "name": row.name,
        "cron": row.cron,
        "time_zone": row.time_zone,
        "entity_types": row.entity_types,
    }
    intent = record_intent(session, caller, CHANGE, "schedules", row.id, details, now)
    record_outcome(session, intent, "COMPLETED", {}, now)
