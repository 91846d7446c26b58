"""The jobs of backups: making one, proving one, comparing one with the live rows."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from engine.artifacts import ArtifactKind
from engine.backups.compare import compare_all, matched
from engine.backups.model import VerifyLevel
from engine.backups.opening import open_archive
from engine.backups.record import backup_of, complete, take_recorded
from engine.backups.states import BackupStatus, fail, move
from engine.backups.verify import LEVELS, condemns, verify
from engine.clock import utc_now
from engine.db.models import BackupDiffRow, BackupRow, BackupVerificationRow, JobRow
from engine.errors import DataOpsError, InternalError
from engine.jobs.handlers import Ending
from engine.jobs.model import Severity
from engine.jobs.service import caller_of_job
from engine.schedules import course

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
            _permit(session, run, "backups.create", row.entity_types)
        archive = take_recorded(run, row.id)

        def end(session: Session) -> None:
            row, now = _backup(session, run.job), resources.clock()
            complete(row, archive, resources.settings, now)
            course.completed(session, row, run.job, now)

        return end

    def failed(self, session: Session, job: JobRow, error: DataOpsError) -> None:
        row, now = _backup(session, job), utc_now()
        fail(row, error, now)
        course.failed(session, row, error, now)

    def cancelled(self, session: Session, job: JobRow) -> None:
        move(_backup(session, job), S.CANCELLED, utc_now())

    def retried(self, session: Session, job: JobRow) -> None:
        move(_backup(session, job), S.PENDING, utc_now())


class VerifyHandler:
    """From a backup to a proof of it, remembered on its record. One that is found bad fails the job."""

    def started(self, session: Session, job: JobRow) -> None:
        """The backup stays as it is."""

    def run(self, run: JobRun) -> Ending:
        resources = run.resources
        with resources.db.transaction() as session:
            row, level = _backup(session, run.job, lock=False), _level(session, run.job)
            _permit(session, run, "backups.verify", row.entity_types)
        try:
            verify(run, open_archive(resources, row), level)
        except DataOpsError as error:
            if condemns(error):
                run.notice("BACKUP_NOT_GOOD", error.message, severity=Severity.WARNING, reason=error.reason)
            raise

        def end(session: Session) -> None:
            remember(_backup(session, run.job), level, None, resources.clock())

        return end

    def failed(self, session: Session, job: JobRow, error: DataOpsError) -> None:
        """What was found of a backup that this one builds on is remembered of that one too."""
        if not condemns(error):
            return
        level, now, link = _level(session, job), utc_now(), error.metadata.get("backup_id", "")
        remember(_backup(session, job), level, error, now)
        if link and link != str(job.resource_id):
            remember(backup_of(session, uuid.UUID(link), lock=True), level, error, now)

    def cancelled(self, session: Session, job: JobRow) -> None:
        """Nothing is known that was not known before."""

    def retried(self, session: Session, job: JobRow) -> None:
        """What the attempt before has found stays until another one has found something."""


class DiffHandler:
    """From a backup and the live rows to their differences."""

    def started(self, session: Session, job: JobRow) -> None:
        """The backup stays as it is."""

    def run(self, run: JobRun) -> Ending:
        resources, job = run.resources, run.job
        with resources.db.transaction() as session:
            row, wanted = _backup(session, job, lock=False), _diff(session, job)
            _permit(session, run, "backups.compare", wanted.entity_types)
            artifact_id = resources.artifacts.create(session, ArtifactKind.DIFFERENCES, "job", job.id)
        archive = open_archive(resources, row)
        with (
            run.platform("compare", autocommit=True) as connection,
            resources.artifacts.writer(artifact_id) as sink,
        ):
            found, digest = compare_all(
                run,
                connection,
                archive,
                matched(resources.catalogs.read(connection), archive, wanted.entity_types),
                {},
                sink,
                resources.catalogs.read,
            )
            sink.close()

        def end(session: Session) -> None:
            diff = _diff(session, job)
            diff.artifact_id, diff.digest = artifact_id, digest
            diff.entities = [compared.as_record() for compared in found]
            diff.expires_at = resources.clock() + timedelta(seconds=resources.settings.report_seconds)
            resources.artifacts.adopt(session, artifact_id, "backup_diffs", job.id, diff.expires_at)

        return end

    def failed(self, session: Session, job: JobRow, error: DataOpsError) -> None:
        """There are no differences; the job says why."""

    def cancelled(self, session: Session, job: JobRow) -> None:
        """There are no differences."""

    def retried(self, session: Session, job: JobRow) -> None:
        """Nothing stands of the attempt before."""


def _backup(session: Session, job: JobRow, *, lock: bool = True) -> BackupRow:
    return backup_of(session, job.resource_id, lock=lock)


def _permit(session: Session, run: JobRun, operation: str, entities: Sequence[str]) -> None:
    """What was permitted at the call may not be any more."""
    caller = caller_of_job(session, run.job, run.resources.clock())
    for entity in entities:
        caller.require(operation, entity)


def _level(session: Session, job: JobRow) -> VerifyLevel:
    row = session.get(BackupVerificationRow, job.id)
    if row is None:
        raise InternalError("the verification of this job does not exist", reason="BACKUP_JOB_GONE")
    return VerifyLevel(row.level)


def _diff(session: Session, job: JobRow) -> BackupDiffRow:
    row = session.get(BackupDiffRow, job.id)
    if row is None:
        raise InternalError("the comparison of this job does not exist", reason="BACKUP_JOB_GONE")
    return row


def remember(row: BackupRow, level: VerifyLevel, error: DataOpsError | None, now: datetime) -> None:
    """The newest finding of a level; a good one is of the levels below it too."""
    found = {"verified_at": now.isoformat(), "good": error is None, "error": error.as_record() if error else None}
    levels = LEVELS[: LEVELS.index(level) + 1] if error is None else (level,)
    row.verifications, row.updated_at = row.verifications | {of.value: found for of in levels}, now
