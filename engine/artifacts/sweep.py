"""Deleting: marked artifacts, those of ended jobs, and stored objects that no row knows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from engine.artifacts.parts import PREFIX
from engine.clock import Clock
from engine.db.database import Database
from engine.db.models import ArtifactPartRow, ArtifactRow, JobRow
from engine.pace import Pace
from engine.storage import Storage, StoredObject

ORPHAN_GRACE = timedelta(hours=1)
"""An object without a row is left alone this long: a writer may be about to commit it (it must within 10 minutes)."""

LIVE_JOB = ("PENDING", "RUNNING", "CANCEL_REQUESTED")
BATCH = 500


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What one sweep did. `objects` counts those of deleted artifacts; `orphans` those without a row."""

    of_ended_jobs: int = 0
    artifacts: int = 0
    objects: int = 0
    orphans: int = 0


class Sweeper:
    """May run in several processes at once and be killed anywhere: every step can be repeated."""

    def __init__(self, db: Database, storage: Storage, clock: Clock) -> None:
        self._db, self._storage, self._clock = db, storage, clock
        self._scans = Pace()

    def sweep(self) -> SweepResult:
        now = self._clock()
        with self._db.transaction() as session:
            of_ended_jobs = self._mark_of_ended_jobs(session)
        artifacts = objects = 0
        for artifact_id in self._marked():
            objects += self.purge(artifact_id)
            artifacts += 1
        orphans = 0
        if self._scans.due():
            orphans = self._delete_orphans(now)
            self._scans.done()
        return SweepResult(of_ended_jobs, artifacts, objects, orphans)

    def purge(self, artifact_id: UUID) -> int:
        """Delete a DELETING artifact's objects, then its rows; returns the objects. Nothing for any other artifact."""
        with self._db.transaction() as session:
            state = session.scalar(select(ArtifactRow.state).where(ArtifactRow.id == artifact_id))
            if state != "DELETING":
                return 0
            names = list(session.scalars(select(ArtifactPartRow.name).filter_by(artifact_id=artifact_id)))
        for name in names:
            self._storage.delete(name)
        with self._db.transaction() as session:
            session.execute(delete(ArtifactRow).where(ArtifactRow.id == artifact_id, ArtifactRow.state == "DELETING"))
        return len(names)

    def _mark_of_ended_jobs(self, session: Session) -> int:
        # An ending job adopts its artifacts in the transaction that ends it: what it still owns then is remains.
        live = exists().where(JobRow.id == ArtifactRow.owner_id, JobRow.state.in_(LIVE_JOB))
        marked = session.execute(
            update(ArtifactRow)
            .where(ArtifactRow.state != "DELETING", ArtifactRow.owner_type == "job", ~live)
            .values(state="DELETING")
            .returning(ArtifactRow.id)
            .execution_options(synchronize_session=False)
        )
        return len(marked.all())

    def _marked(self) -> list[UUID]:
        with self._db.transaction() as session:
            return list(session.scalars(select(ArtifactRow.id).where(ArtifactRow.state == "DELETING")))

    def _delete_orphans(self, now: datetime) -> int:
        old = (found for found in self._storage.list(PREFIX) if found.modified < now - ORPHAN_GRACE)
        orphans = 0
        for batch in _batches(old):
            names = [found.name for found in batch]
            with self._db.transaction() as session:
                known = set(session.scalars(select(ArtifactPartRow.name).where(ArtifactPartRow.name.in_(names))))
            for name in names:
                if name not in known:
                    self._storage.delete(name)
                    orphans += 1
        self._storage.tidy(now - ORPHAN_GRACE)
        return orphans


def _batches(found: Iterator[StoredObject]) -> Iterator[list[StoredObject]]:
    while batch := list(itertools.islice(found, BATCH)):
        yield batch
