"""Deleting what backups leave: attempts that came to nothing, bytes of expired and deleted ones, objects without a
record. Which backups expire is decided in `engine.retention`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from engine.backups.record import LOST
from engine.backups.service import remove
from engine.backups.states import GOOD, BackupStatus, fail
from engine.db.models import BackupRow, JobRow
from engine.errors import DataOpsError
from engine.jobs.model import FINISHED
from engine.pace import Pace
from engine.resources import Resources
from engine.schedules import course

S = BackupStatus

BATCH = 100

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What one sweep did: records of dead attempts, backups and attempts whose bytes are gone, and artifacts without a
    record."""

    lost: int = 0
    removed: int = 0
    orphans: int = 0


class BackupSweeper:
    """May run in several processes at once and be killed anywhere: every step can be repeated."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._scans = Pace()

    def sweep(self, now: datetime) -> SweepResult:
        """Raises: what the storage raised first; the rest was done all the same."""
        db, repository = self._resources.db, self._resources.repository
        with db.transaction() as session:
            lost = _fail_lost(session, now)
        removed, failure = _each(self._useless(), self._remove)
        orphans: list[uuid.UUID] = []
        if self._scans.due():
            orphans = repository.orphans(now, self._recorded)
            _, failed = _each(orphans, repository.delete)
            failure = failure or failed
            self._scans.done()
        if orphans:
            log.info("backup_orphans_deleted", artifacts=[str(artifact_id) for artifact_id in orphans])
        if failure is not None:
            raise failure
        return SweepResult(lost, removed, len(orphans))

    def _useless(self) -> list[uuid.UUID]:
        """Records that ended without use, or are past it, of which there may be objects; increments before what they
        build on, which is older."""
        query = select(BackupRow.id).where(BackupRow.artifact_id.is_not(None))
        query = query.order_by(BackupRow.created_at.desc(), BackupRow.id.desc())
        with self._resources.db.transaction() as session:
            return list(session.scalars(query.where(BackupRow.status.not_in([*GOOD, S.PENDING]))))

    def _remove(self, backup_id: uuid.UUID) -> None:
        """Nothing while an increment to it has bytes: whoever has only the storage must not find one without its base.
        That one could not be removed just now, and its turn comes again with the next sweep."""
        increments = exists().where(BackupRow.parent_id == backup_id, BackupRow.artifact_id.is_not(None))
        with self._resources.db.transaction() as session:
            if session.scalar(select(increments)):
                return
        remove(self._resources, backup_id)

    def _recorded(self) -> frozenset[uuid.UUID]:
        """The artifacts of all records, good ones too: a manifest that was lost must never cost its segments."""
        with self._resources.db.transaction() as session:
            found = session.scalars(select(BackupRow.artifact_id).where(BackupRow.artifact_id.is_not(None)))
            return frozenset(artifact_id for artifact_id in found if artifact_id is not None)


def _fail_lost(session: Session, now: datetime) -> int:
    """Records that nobody works on any more: their job has ended, and did not get to say so."""
    live = exists().where(JobRow.id == BackupRow.job_id, JobRow.state.not_in(FINISHED))
    query = select(BackupRow).where(BackupRow.status == S.PENDING.value, ~live)
    rows = list(session.scalars(query.with_for_update(skip_locked=True).limit(BATCH)))
    for row in rows:
        fail(row, LOST, now)
        course.failed(session, row, LOST, now)
    return len(rows)


def _each(items: list[uuid.UUID], act: Callable[[uuid.UUID], object]) -> tuple[int, DataOpsError | None]:
    """`act` on each; one that fails keeps no other from its turn. How many went well, and the first failure."""
    done, failure = 0, None
    for item in items:
        try:
            act(item)
        except DataOpsError as error:
            failure = failure or error
        else:
            done += 1
    return done, failure
