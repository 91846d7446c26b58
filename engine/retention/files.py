"""Uploads, exports, and the files of imports, restores and comparisons: each goes at its time."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, cast, exists, func, literal, select
from sqlalchemy.orm import Session

from engine.artifacts import ArtifactKind, ArtifactStore
from engine.db.models import (
    ArtifactPartRow,
    ArtifactRow,
    BackupDiffRow,
    ExportRow,
    ImportRow,
    JobRow,
    RestoreRow,
    UploadRow,
)
from engine.exports.states import ExportStatus
from engine.imports.states import FINAL, ImportStatus
from engine.jobs.model import FINISHED
from engine.restores.states import FINAL as RESTORE_ENDED
from engine.retention.model import Decision, by_time
from engine.retention.record import removed
from engine.uploads.service import LIVE

_BY_THEMSELVES = ("upload", "exports", "job")
"""Owners that have a time, or an end, of their own; every other owner's artifacts go at theirs."""

_IMPORT = (
    ImportRow.id,
    ImportRow.status,
    ImportRow.entity_types,
    ImportRow.plan_expires_at,
    ImportRow.apply_job_id,
    ImportRow.undo_artifact_id,
    ImportRow.completed_at,
    exists()
    .where(JobRow.resource_type == "imports", JobRow.resource_id == ImportRow.id, JobRow.state.not_in(FINISHED))
    .label("working"),
)
"""Not the summaries and reports, which are large: every sweep reads all of them."""

_WITHOUT_EFFECT = FINAL - {ImportStatus.COMPLETED}


@dataclass(frozen=True)
class _File:
    """An artifact of an owner, and when it may go."""

    artifact_id: uuid.UUID
    kind: str
    size: int
    """Bytes in storage."""
    until: datetime | None


def uploads(session: Session, now: datetime) -> list[Decision]:
    """Those of which there are bytes."""
    wanted = exists().where(ImportRow.upload_id == UploadRow.id, ImportRow.status.in_(LIVE))
    there = select(UploadRow.id, UploadRow.principal_id, UploadRow.expires_at, _stored(UploadRow.artifact_id), wanted)
    there = there.where(UploadRow.state.in_(("OPEN", "FINISHED")), UploadRow.expires_at.is_not(None))
    return [
        by_time("uploads", id_, until, size, now, in_use="an import may read it" if needed else "", principal_id=owner)
        for id_, owner, until, size, needed in session.execute(there)
    ]


def exports(session: Session, now: datetime) -> list[Decision]:
    """Those that can be downloaded."""
    there = select(ExportRow.id, ExportRow.expires_at, _stored(ExportRow.artifact_id), ExportRow.entity_types)
    there = there.where(ExportRow.status == ExportStatus.COMPLETED.value)
    return [
        by_time("exports", id_, until, size, now, entity_types=entity_types)
        for id_, until, size, entity_types in session.execute(there)
        if until is not None
    ]


def files(session: Session, applied_plan: timedelta, now: datetime) -> list[Decision]:
    """The owners of which there are files: an import that waits to be applied goes whole, of the others goes what is
    past its time."""
    owned = _owned(session)
    found = []
    theirs = exists().where(ArtifactRow.owner_type == "imports", ArtifactRow.owner_id == ImportRow.id)
    for row in session.execute(select(*_IMPORT).where(theirs)):
        if kept := owned.pop(("imports", row.id), None):
            found.append(_of_import(row, kept, applied_plan, now))
    concern = _concern(session)
    for (owner_type, owner_id), kept in owned.items():
        entities, in_use = concern.get(owner_id, ((), ""))
        found.append(_of_owner(owner_type, owner_id, kept, entities, now, in_use))
    return [decision for decision in found if decision is not None]


def let_go(session: Session, store: ArtifactStore, decision: Decision, applied_plan: timedelta, now: datetime) -> bool:
    """Marks the files of this removal that are past their time, if they still may go; whether there were any.

    Not for plans that nobody applied: their imports end with them.
    """
    owner_type, owner_id = decision.resource_type, decision.resource_id
    theirs: Sequence[_File] = _owned(session, (owner_type, owner_id)).get((owner_type, owner_id), ())
    if owner_type == "imports":
        mine = select(*_IMPORT).where(ImportRow.id == owner_id).with_for_update(skip_locked=True)
        row = session.execute(mine).one_or_none()
        if row is None or _in_use(row):
            return False
        theirs = _with_plan(row, theirs, applied_plan)
    over = [file for file in theirs if file.until is not None and file.until <= now]
    for file in over:
        store.discard(session, file.artifact_id)
    if over:
        details: dict[str, Any] = {
            "message": decision.message,
            "files": [file.kind for file in over],
            "size_bytes": _total(over),
        }
        if decision.entity_types:
            details["entity_types"] = list(decision.entity_types)
        removed(session, owner_type, owner_id, now, details)
    return bool(over)


def _of_import(row: Any, theirs: Sequence[_File], applied_plan: timedelta, now: datetime) -> Decision | None:
    if row.status == ImportStatus.AWAITING_APPROVAL and row.plan_expires_at is not None:
        # whole, at the time of its plan
        return by_time("imports", row.id, row.plan_expires_at, _total(theirs), now, entity_types=row.entity_types)
    theirs = _with_plan(row, theirs, applied_plan)
    return _of_owner("imports", row.id, theirs, row.entity_types, now, _in_use(row))


def _in_use(row: Any) -> str:
    return "a job works on it" if row.working or row.status not in FINAL else ""


def _with_plan(row: Any, theirs: Sequence[_File], applied_plan: timedelta) -> list[_File]:
    """The import's files; the plan of an apply that came to nothing goes sooner than what tells of it. That of one that
    stands is what the way back is made of, and stays as long as the rest of that."""
    if row.apply_job_id is None or row.status not in _WITHOUT_EFFECT or row.undo_artifact_id is not None:
        return list(theirs)
    assert row.completed_at is not None, "a final import has ended"
    ends = row.completed_at + applied_plan
    return [
        replace(file, until=min(file.until, ends))
        if file.kind == ArtifactKind.PLAN and file.until is not None
        else file
        for file in theirs
    ]


def _of_owner(
    owner_type: str,
    owner_id: uuid.UUID,
    theirs: Sequence[_File],
    entity_types: Sequence[str],
    now: datetime,
    in_use: str = "",
) -> Decision | None:
    """By what of it is past its time, else by what will be first; None where nothing ever will."""
    timed = [(file.until, file) for file in theirs if file.until is not None]
    if not timed:
        return None
    first = min(until for until, _ in timed)
    over = _total(file for until, file in timed if until <= now)
    return by_time(owner_type, owner_id, first, over, now, in_use=in_use, entity_types=entity_types)


def _owned(session: Session, only: tuple[str, uuid.UUID] | None = None) -> dict[tuple[str, uuid.UUID], list[_File]]:
    """What there is of files, by owner."""
    there = select(
        ArtifactRow.owner_type,
        ArtifactRow.owner_id,
        ArtifactRow.id,
        ArtifactRow.kind,
        ArtifactRow.expires_at,
        _stored(ArtifactRow.id),
    )
    there = there.where(ArtifactRow.state != "DELETING", ArtifactRow.owner_type.not_in(_BY_THEMSELVES))
    if only is not None:
        there = there.where(ArtifactRow.owner_type == only[0], ArtifactRow.owner_id == only[1])
    found: dict[tuple[str, uuid.UUID], list[_File]] = defaultdict(list)
    for owner_type, owner_id, artifact_id, kind, until, size in session.execute(there):
        found[owner_type, owner_id].append(_File(artifact_id, kind, size, until))
    return found


def _concern(session: Session) -> dict[uuid.UUID, tuple[Sequence[str], str]]:
    """Of restores and comparisons with files, by owner: the entities whose rows those hold, and why they must stay."""
    found: dict[uuid.UUID, tuple[Sequence[str], str]] = {}
    for owner, entity_types, needed in (
        (RestoreRow.id, RestoreRow.entity_types, RestoreRow.status.not_in(RESTORE_ENDED)),
        (BackupDiffRow.job_id, BackupDiffRow.entity_types, literal(False)),  # they are the job's until it ends
    ):
        has = exists().where(ArtifactRow.owner_id == owner, ArtifactRow.state != "DELETING")
        for owner_id, entities, in_use in session.execute(select(owner, entity_types, needed).where(has)):
            found[owner_id] = entities, "it has not ended" if in_use else ""
    return found


def _stored(artifact_id: Any) -> ColumnElement[int]:
    """Bytes of an artifact in storage."""
    total = func.coalesce(func.sum(ArtifactPartRow.stored_length), 0)
    return cast(select(total).where(ArtifactPartRow.artifact_id == artifact_id).scalar_subquery(), BigInteger)


def _total(theirs: Iterable[_File]) -> int:
    return sum(file.size for file in theirs)
