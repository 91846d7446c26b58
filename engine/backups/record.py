"""A backup's record in the control schema: made before its first byte, completed after its manifest stands."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.access import CallContext, Caller, caller_of
from engine.audit import record_change
from engine.backups.archive import Archive
from engine.backups.chain import Link, leaf_link, next_link
from engine.backups.increment import NoIncrement
from engine.backups.model import SAFETY, Asked, BackupType, Requester, Trigger
from engine.backups.settings import read_settings
from engine.backups.states import GOOD, BackupStatus, fail, move
from engine.backups.take import take, take_increment
from engine.config import Settings
from engine.db.models import BackupRow
from engine.errors import Aborted, DataLoss, DataOpsError, FailedPrecondition, InternalError, NotFound, Unavailable
from engine.ids import new_id
from engine.jobs.interrupts import JobInterrupt
from engine.jobs.service import caller_of_job

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

S = BackupStatus

Taking = Callable[[Asked, Sequence[bytes], Archive | None, bool], Archive]
"""Takes a backup that is asked for, with the control schema's own rows in it: one JSON object a line. With a parent an
increment of it, by content or not."""

Choose = Callable[[Session, Sequence[str]], Link]
"""Finds the parent of a backup of these entities."""

FULL_INSTEAD = frozenset({"KEY_UNKNOWN", "PLATFORM_NOT_PREPARED", "SCHEMA_INCOMPATIBLE"})
"""Of FailedPrecondition: what stands against an increment, and not against a full backup."""

LOST = Aborted("backup: the attempt that made it ended before it was complete", reason="BACKUP_INCOMPLETE")


def new_backup(
    caller: Caller,
    trigger: Trigger,
    entities: Sequence[str],
    name: str,
    now: datetime,
    *,
    backup_type: BackupType = BackupType.FULL,
    hold: bool = False,
    job_id: uuid.UUID | None = None,
) -> BackupRow:
    """The record of a backup that is yet to be made."""
    backup_id = new_id()
    return BackupRow(
        id=backup_id,
        backup_type=backup_type.value,
        trigger_type=trigger.value,
        status=S.PENDING.value,
        name=name or name_of(entities, trigger, now),
        entity_types=list(entities),
        principal_id=caller.principal_id,
        context=caller.context.as_record(),
        job_id=job_id,
        chain_id=backup_id,
        file_size_bytes=0,
        total_size_bytes=0,
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
    Where no increment can be made a full backup is, and says so.

    Raises: as `take`.
    """
    repository = run.resources.repository
    with run.resources.db.transaction() as session:
        run.require_hold(session)
        row = backup_of(session, backup_id, lock=True)
        stands = _parent_stands(session, row)
    if row.artifact_id is not None:
        # published, and its worker died before the record was completed
        if stands and repository.exists(row.artifact_id):
            with suppress(DataLoss):  # nobody relies on it yet: one that is damaged is made again
                archive = repository.open(row.artifact_id)
                archive.require_present()
                return archive
        repository.delete(row.artifact_id)
    if row.backup_type == BackupType.INCREMENTAL:
        return _take_either(run, backup_id, next_link, partial(_take, run))
    return _take(run, *_begin(run, backup_id))


def _parent_stands(session: Session, row: BackupRow) -> bool:
    """Whether what an earlier attempt took the backup from, if anything, is still there: before RetryJob nobody kept it
    for a backup that had failed, and its bytes may be about to go."""
    if row.parent_id is None:
        return True
    # waits for whoever deletes it just now, and did not see this one PENDING
    parent = session.get(BackupRow, row.parent_id, with_for_update={"read": True}, populate_existing=True)
    return parent is not None and parent.status in GOOD


def _take(
    run: JobRun, asked: Asked, settings: Sequence[bytes], parent: Archive | None = None, by_content: bool = False
) -> Archive:
    resources = run.resources
    repository, read_catalog, clock = resources.repository, resources.catalogs.read, resources.clock
    if parent is None:
        return take(run, repository, read_catalog, asked, settings, clock)
    return take_increment(run, repository, read_catalog, asked, settings, clock, parent, by_content=by_content)


def _take_either(run: JobRun, backup_id: uuid.UUID, choose: Choose, taking: Taking, *, say: bool = True) -> Archive:
    """An increment of the backup that is chosen; where that cannot be, a full backup, under another artifact id."""
    resources = run.resources
    try:
        with resources.db.transaction() as session:
            run.require_hold(session)
            row = backup_of(session, backup_id, lock=True)
            link = choose(session, row.entity_types)
            # from here on nobody deletes the parent
            row.parent_id, row.chain_id, row.full_because = link.parent_id, link.chain_id, ""
        parent = resources.repository.open(link.artifact_id, link.manifest_sha256)
        parent.require_present(run.check)
        by_content = link.by_content(resources.settings.incremental_method)
        return taking(*_begin(run, backup_id), parent, by_content)
    except (NoIncrement, DataLoss, NotFound, FailedPrecondition) as error:
        if isinstance(error, FailedPrecondition) and error.reason not in FULL_INSTEAD:
            raise
        why = str(error)
    if say:
        run.notice("BACKUP_MADE_FULL", f"a full backup is made: {why}")
    with resources.db.transaction() as session:
        run.require_hold(session)
        row = backup_of(session, backup_id, lock=True)
        row.parent_id, row.chain_id, row.full_because = None, row.id, why
    if row.artifact_id is not None:
        resources.repository.delete(row.artifact_id)
    return taking(*_begin(run, backup_id), None, False)


def _begin(run: JobRun, backup_id: uuid.UUID) -> tuple[Asked, Sequence[bytes]]:
    """A new artifact id on the record: what an attempt stored before is no part of this one."""
    with run.resources.db.transaction() as session:
        run.require_hold(session)
        row = backup_of(session, backup_id, lock=True)
        row.artifact_id = uuid.uuid4()
        caller = caller_of(session, row.principal_id, CallContext.from_record(row.context))
        return _asked(row, row.artifact_id, caller), read_settings(session)


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
    run: JobRun,
    trigger: Trigger,
    entities: Sequence[str],
    taking: Taking | None = None,
    chain_id: uuid.UUID | None = None,
) -> tuple[BackupRow, Archive]:
    """A backup as a step of an import's or a restore's own job: taken now, complete when this returns; an increment of
    what there is of these entities, or of this chain. `taking` takes it where the caller's own session must.

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
        session.add(row)
        record_change(session, caller, "backups.create", "backups", row.id, now)
    choose = partial(leaf_link, chain_id=chain_id)
    try:
        archive = _take_either(run, row.id, choose, taking or partial(_take, run), say=False)
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
    describe(row, archive)
    row.expires_at = kept_until(row, settings, now)
    move(row, S.COMPLETED, now)


def kept_until(row: BackupRow, settings: Settings, now: datetime) -> datetime:
    """When a backup that is complete, or known again, since `now` may be removed."""
    kept = row.retention_seconds
    if kept is None:
        kept = settings.safety_backup_seconds if row.trigger_type in SAFETY else settings.backup_seconds
    return now + timedelta(seconds=kept)


def describe(row: BackupRow, archive: Archive) -> None:
    """What the record shows of the manifest, and of the chain."""
    manifest = archive.manifest
    row.artifact_id, row.manifest_sha256 = manifest.artifact_id, archive.checksum
    row.backup_type = manifest.backup_type
    row.parent_id = manifest.parent.backup_id if manifest.parent is not None else None
    row.chain_id = archive.chain[0].manifest.backup_id
    row.total_size_bytes = sum(link.manifest.stored_bytes for link in archive.chain)
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
