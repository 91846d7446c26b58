"""The artifact store: what the rest of the engine holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.artifacts.digests import RunningDigests
from engine.artifacts.kinds import ArtifactKind
from engine.artifacts.parts import PartVault
from engine.artifacts.reader import ArtifactReader, look_up
from engine.artifacts.sweep import Sweeper, SweepResult
from engine.artifacts.writer import ArtifactWriter, OnCommit
from engine.clock import Clock, utc_now
from engine.crypto.keyring import KeyRing
from engine.db.database import Database
from engine.db.models import ArtifactRow
from engine.errors import FailedPrecondition
from engine.ids import new_id
from engine.storage import Storage


class ArtifactStore:
    """Files we keep, sealed. One per process, shared by its threads; never used on a thread with a running event loop.

    An artifact belongs to somebody (`owner_type`, `owner_id`). While a job makes it that is `("job", job_id)`; the
    transaction that ends the job adopts it. What no resource adopts is swept.
    """

    def __init__(self, db: Database, storage: Storage, keys: KeyRing, clock: Clock = utc_now) -> None:
        self._db, self._clock = db, clock
        self.vault = PartVault(storage, keys)
        """Seals and opens; who keeps parts without rows shares its buffers."""
        self._digests = RunningDigests()
        self._sweeper = Sweeper(db, storage, clock)

    def create(
        self,
        session: Session,
        kind: ArtifactKind,
        owner_type: str,
        owner_id: UUID,
        expires_at: datetime | None = None,
    ) -> UUID:
        """A new, empty, OPEN artifact; it exists when the session's transaction commits."""
        artifact = ArtifactRow(
            id=new_id(),
            kind=ArtifactKind(kind).value,
            state="OPEN",
            owner_type=owner_type,
            owner_id=owner_id,
            size=0,
            part_count=0,
            created_at=self._clock(),
            expires_at=expires_at,
        )
        session.add(artifact)
        session.flush()
        return artifact.id

    def writer(self, artifact_id: UUID, on_commit: OnCommit | None = None) -> ArtifactWriter:
        """A writer that goes on behind the last committed part.

        `on_commit(session, part)` runs in each part's committing transaction, before its row: what it raises refuses
        the part and ends the writer. It runs on the writer's helper thread.

        Raises:
            NotFound: ARTIFACT_GONE.
            FailedPrecondition: ARTIFACT_NOT_OPEN.
        """
        with self._db.transaction() as session:
            artifact = look_up(session, artifact_id)
        if artifact.state != "OPEN":
            raise FailedPrecondition(
                f"artifact {artifact_id}: expected OPEN, found {artifact.state}", reason="ARTIFACT_NOT_OPEN"
            )
        return ArtifactWriter(artifact, self._db, self.vault, self._digests, self._clock, on_commit)

    def reader(self, artifact_id: UUID, follow: Callable[[], bool] | None = None) -> ArtifactReader:
        """A reader. With `follow`, which says whether somebody still writes, an open artifact can be read as it grows.

        Raises:
            NotFound: ARTIFACT_GONE.
        """
        with self._db.transaction() as session:
            artifact = look_up(session, artifact_id)
        return ArtifactReader(artifact, self._db, self.vault, follow)

    def adopt(
        self, session: Session, artifact_id: UUID, owner_type: str, owner_id: UUID, expires_at: datetime | None
    ) -> None:
        """Give a closed artifact to a resource that outlives its job.

        Raises:
            NotFound: ARTIFACT_GONE.
            FailedPrecondition: ARTIFACT_NOT_CLOSED: an incomplete file is nobody's result.
        """
        artifact = self._locked(session, artifact_id)
        if artifact.state != "CLOSED":
            raise FailedPrecondition(f"artifact {artifact_id} is not closed", reason="ARTIFACT_NOT_CLOSED")
        artifact.owner_type, artifact.owner_id, artifact.expires_at = owner_type, owner_id, expires_at
        session.flush()

    def discard(self, session: Session, artifact_id: UUID) -> None:
        """Mark for deletion: from the commit on nobody can open it; its bytes go at the next sweep, or by `purge`.

        An artifact that is gone already is no error.
        """
        artifact = session.get(ArtifactRow, artifact_id, with_for_update=True, populate_existing=True)
        if artifact is not None:
            artifact.state = "DELETING"
            session.flush()
        self._digests.forget(artifact_id)

    def discard_of(self, session: Session, owner_type: str, owner_id: UUID) -> Sequence[ArtifactRow]:
        """Mark all of one owner's artifacts; which, in order."""
        mine = select(ArtifactRow).where(
            ArtifactRow.owner_type == owner_type, ArtifactRow.owner_id == owner_id, ArtifactRow.state != "DELETING"
        )
        found = session.scalars(mine.order_by(ArtifactRow.created_at, ArtifactRow.id)).all()
        for artifact in found:
            self.discard(session, artifact.id)
        return found

    def purge(self, artifact_id: UUID) -> None:
        """Delete a discarded artifact's bytes and rows now. Call it after the discarding transaction committed."""
        self._sweeper.purge(artifact_id)

    def sweep(self) -> SweepResult:
        """Delete what is marked or left by ended jobs, and stored objects without a row older than an hour. What is
        past its time `engine.retention` marks."""
        return self._sweeper.sweep()

    def _locked(self, session: Session, artifact_id: UUID) -> ArtifactRow:
        look_up(session, artifact_id)
        artifact = session.get(ArtifactRow, artifact_id, with_for_update=True, populate_existing=True)
        return artifact if artifact is not None else look_up(session, artifact_id)
