"""The jobs of backups: making one, proving one, comparing one with the live rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from engine.access import CallContext, caller_of
from engine.backups.record import backup_of, complete, take_recorded
from engine.backups.states import BackupStatus, fail, move
from engine.clock import utc_now
from engine.db.models import BackupRow, JobRow
from engine.errors import DataOpsError
from engine.jobs.handlers import Ending

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

S = BackupStatus


class BackupHandler:
    """From a snapshot of some entities to a manifest."""

    def started(self, session: Session, job: JobRow) -> None:
        """A backup is PENDING until it is complete."""

    def run(self, run: JobRun) -> Ending:
        resources = run.resources
        with resources.db.transaction() as session:
            run.require_hold(session)
            row = _backup(session, run.job)
            caller = caller_of(session, run.job.principal_id, CallContext.from_record(run.job.context), utc_now())
            for entity in row.entity_types:
                caller.require("backups.create", entity)
        archive = take_recorded(run, row.id)

        def end(session: Session) -> None:
            complete(_backup(session, run.job), archive, resources.settings, resources.clock())

        return end

    def failed(self, session: Session, job: JobRow, error: DataOpsError) -> None:
        fail(_backup(session, job), error, utc_now())

    def cancelled(self, session: Session, job: JobRow) -> None:
        move(_backup(session, job), S.CANCELLED, utc_now())

    def retried(self, session: Session, job: JobRow) -> None:
        move(_backup(session, job), S.PENDING, utc_now())


def _backup(session: Session, job: JobRow) -> BackupRow:
    return backup_of(session, job.resource_id, lock=True)
