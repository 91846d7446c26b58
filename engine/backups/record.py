"""A backup's record in the control schema: made before its first byte, completed after its manifest stands."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.access import CallContext, Caller, caller_of
from engine.audit import record_change
from engine.backups.archive import Archive
from engine.backups.manifest import Manifest
from engine.backups.model import SAFETY, Asked, BackupType, Requester, Trigger
from engine.backups.settings import read_settings
from engine.backups.states import BackupStatus, fail, move
from engine.backups.take import take
from engine.config import Settings
from engine.db.models import BackupRow
from engine.errors import Aborted, DataLoss, DataOpsError, InternalError, Unavailable
from engine.ids import new_id
from engine.jobs.interrupts import JobInterrupt
from engine.jobs.service import caller_of_job

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

S = BackupStatus

Taking = Callable[[Asked, Sequence[bytes]], Archive]
"""Takes a backup that is asked for, with the control schema's own rows in it: one JSON object a line."""

LOST = Aborted("backup: the attempt that made it ended before it was complete", reason="BACKUP_INCOMPLETE")


def new_backup(
    caller: Caller,
    trigger: Trigger,
    entities: Sequence[str],
    name: str,
    now: datetime,
    *,
    hold: bool = False,
    job_id: uuid.UUID | None = None,
) -> BackupRow:
    """The record of a backup that is yet to be made."""
    backup_id = new_id()
    return BackupRow(
        id=backup_id,
        backup_type=BackupType.FULL.value,
        trigger_type=trigger.value,
        status=S.PENDING.value,
        name=name or name_of(entities, trigger, now),
        entity_types=list(entities),
        principal_id=caller.principal_id,
        context=caller.context.as_record(),
        job_id=job_id,
        chain_id=backup_id,
        file_size_bytes=0,
        entities=[],
        not_covered=[],
        verifications={},
        held=hold,
        created_at=now,
        updated_at=now,
    )


def name_of(entities: Sequence[str], trigger: Trigger, now: datetime) -> str:
    """What people call a backup that nobody gave a name."""
    before = {Trigger.PRE_IMPORT: "before an import of ", Trigger.PRE_RESTORE: "before a restore of "}.get(trigger, "")
    what = ", ".join(entities[:3]) + (f" and {len(entities) - 3} more" if len(entities) > 3 else "")
    return f"{before}{what or 'nothing'}, {now:%Y-%m-%d %H:%M} UTC"


def take_recorded(run: JobRun, backup_id: uuid.UUID) -> Archive:
    """Makes the backup of this record, under a new artifact id. An earlier attempt's that stands is given back instead.

    Raises: as `take`.
    """
    resources = run.resources
    with resources.db.transaction() as session:
        run.require_hold(session)
        row = backup_of(session, backup_id, lock=True)
        earlier, artifact_id = row.artifact_id, uuid.uuid4()
    if earlier is not None:
        if resources.repository.exists(earlier):  # published, and its worker died before the record was completed
            with suppress(DataLoss):  # nobody relies on it yet: one that is damaged is made again
                archive = resources.repository.open(earlier)
                archive.require_present()
                return archive
        resources.repository.delete(earlier)
    with resources.db.transaction() as session:
        run.require_hold(session)
        row = backup_of(session, backup_id, lock=True)
        row.artifact_id = artifact_id
        caller = caller_of(session, row.principal_id, CallContext.from_record(row.context))
        asked, settings = _asked(row, artifact_id, caller), read_settings(session)
    return take(run, resources.repository, resources.catalogs.read, asked, settings, resources.clock)


def _asked(row: BackupRow, artifact_id: uuid.UUID, caller: Caller) -> Asked:
    return Asked(
        backup_id=row.id,
        artifact_id=artifact_id,
        trigger=Trigger(row.trigger_type),
        name=row.name,
        created_at=row.created_at,
        requested_by=Requester(caller.principal_id, caller.issuer, caller.subject),
        entities=tuple(row.entity_types),
    )


def take_before(
    run: JobRun, trigger: Trigger, entities: Sequence[str], taking: Taking | None = None
) -> tuple[BackupRow, Archive]:
    """A backup as a step of an import's or a restore's own job: taken now, complete when this returns. `taking` takes
    it where the caller's own session must.

    Raises: as `take`; then the record says FAILED, or CANCELLED, and the caller must not go on.
    """
    resources = run.resources
    with resources.db.transaction() as session:
        run.require_hold(session)
        now = resources.clock()
        for stale in session.scalars(select(BackupRow).filter_by(job_id=run.job.id, status=S.PENDING.value)):
            fail(stale, LOST, now)
        caller = caller_of_job(session, run.job, now)
        row = new_backup(caller, trigger, entities, "", now, job_id=run.job.id)
        row.artifact_id = uuid.uuid4()
        session.add(row)
        record_change(session, caller, "backups.create", "backups", row.id, now)
        asked, settings = _asked(row, row.artifact_id, caller), read_settings(session)
    try:
        if taking is not None:
            archive = taking(asked, settings)
        else:
            archive = take(run, resources.repository, resources.catalogs.read, asked, settings, resources.clock)
    except BaseException as error:
        _end(run, row.id, error)
        raise
    with resources.db.transaction() as session:
        run.require_hold(session)
        row = backup_of(session, row.id, lock=True)
        complete(row, archive, resources.settings, resources.clock())
    return row, archive


def complete(row: BackupRow, archive: Archive, settings: Settings, now: datetime) -> None:
    """COMPLETED, as the manifest says."""
    describe(row, archive.manifest, archive.checksum)
    row.expires_at = kept_until(row, settings, now)
    move(row, S.COMPLETED, now)


def kept_until(row: BackupRow, settings: Settings, now: datetime) -> datetime:
    """When a backup that is complete, or known again, since `now` may be removed."""
    kept = row.retention_seconds
    if kept is None:
        kept = settings.safety_backup_seconds if row.trigger_type in SAFETY else settings.backup_seconds
    return now + timedelta(seconds=kept)


def describe(row: BackupRow, manifest: Manifest, checksum: bytes) -> None:
    """What the record shows of the manifest."""
    row.artifact_id, row.manifest_sha256 = manifest.artifact_id, checksum
    row.snapshot_at, row.file_size_bytes = manifest.snapshot_at, manifest.stored_bytes
    row.entity_types = [entity.entity for entity in manifest.entities]
    row.entities = [
        {"entity": entity.entity, "rows": entity.rows, "size_bytes": manifest.stored_of(entity)}
        for entity in manifest.entities
    ]
    row.not_covered = list(manifest.not_covered)


def backup_of(session: Session, backup_id: uuid.UUID, *, lock: bool = False) -> BackupRow:
    """Raises: InternalError: BACKUP_GONE; a record is never removed."""
    row = session.get(BackupRow, backup_id, with_for_update=lock, populate_existing=True)
    if row is None:
        raise InternalError("the backup of this job does not exist", reason="BACKUP_GONE")
    return row


def _end(run: JobRun, backup_id: uuid.UUID, error: BaseException) -> None:
    """The record of a backup that came to nothing; if it cannot be written now, housekeeping finds it PENDING."""
    resources = run.resources
    try:
        with resources.db.transaction() as session:
            row: Any = session.get(BackupRow, backup_id, with_for_update=True)
            if isinstance(error, JobInterrupt):
                move(row, S.CANCELLED, resources.clock())
            else:
                known = error if isinstance(error, DataOpsError) else None
                fail(
                    row, known or Unavailable("backup: it could not be read", reason="BACKUP_FAILED"), resources.clock()
                )
    except Exception:
        return
