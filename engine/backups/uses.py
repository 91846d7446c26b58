"""What a backup is needed for: unfinished work, and increments to it."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from engine.backups.states import GOOD, BackupStatus
from engine.db.models import BackupRow, ImportRow, JobRow, RestoreRow
from engine.jobs.model import FINISHED
from engine.restores.states import FINAL as RESTORE_ENDED

READING = ("PENDING", "VALIDATING")
"""Imports that may still take rows out of a backup."""

LIVE = (*sorted(GOOD), BackupStatus.PENDING.value)
"""Increments that need what they build on: whole ones, and those that are being made."""


def uses(session: Session, among: Collection[uuid.UUID] | None = None) -> dict[uuid.UUID, str]:
    """The unfinished work that needs a backup, by backup; only of those named, if any are."""
    jobs = select(JobRow.resource_id).where(JobRow.resource_type == "backups", JobRow.state.not_in(FINISHED))
    # of its own, or the import's or restore's that it precedes
    makers = select(BackupRow.id).join(JobRow, JobRow.id == BackupRow.job_id).where(JobRow.state.not_in(FINISHED))
    source = ImportRow.options["extract"]["backup_id"].astext
    extractions = select(source).where(source.is_not(None), ImportRow.status.in_(READING))
    restores = select(RestoreRow.backup_id).where(RestoreRow.status.not_in(RESTORE_ENDED))
    behind = select(RestoreRow.pre_restore_backup_id).where(
        RestoreRow.pre_restore_backup_id.is_not(None), RestoreRow.status.not_in(RESTORE_ENDED)
    )
    if among is not None:
        wanted = list(among)
        jobs, makers = jobs.where(JobRow.resource_id.in_(wanted)), makers.where(BackupRow.id.in_(wanted))
        extractions = extractions.where(source.in_([str(backup_id) for backup_id in wanted]))
        restores = restores.where(RestoreRow.backup_id.in_(wanted))
        behind = behind.where(RestoreRow.pre_restore_backup_id.in_(wanted))
    found: dict[uuid.UUID, str] = {}
    for query, why in (
        (jobs, "a job works with it"),
        (makers, "a job works with it"),
        (extractions, "rows are being taken out of it"),
        (restores, "a restore to it, or behind it, has not ended"),
        (behind, "a restore to it, or behind it, has not ended"),
    ):
        for backup_id in session.scalars(query):
            found.setdefault(uuid.UUID(str(backup_id)), why)
    return found


def in_use(session: Session, row: BackupRow) -> str:
    """Why the backup must stay; empty when it need not."""
    if row.held:
        return "it is held; release it first"
    return uses(session, [row.id]).get(row.id, "")


def increments_to(session: Session, backup_id: uuid.UUID) -> list[uuid.UUID]:
    """The live backups that build on this one, whether straight or by others, newest first."""
    below = select(BackupRow.id).where(BackupRow.parent_id == backup_id, BackupRow.status.in_(LIVE))
    tree = below.cte("tree", recursive=True)
    child = aliased(BackupRow)
    tree = tree.union(select(child.id).where(child.parent_id == tree.c.id, child.status.in_(LIVE)))
    newest_first = select(BackupRow.id).join(tree, tree.c.id == BackupRow.id).order_by(BackupRow.created_at.desc())
    return list(session.scalars(newest_first))


def parents_among(session: Session, backup_ids: Iterable[uuid.UUID]) -> frozenset[uuid.UUID]:
    """Those of the backups that a live one builds on."""
    query = select(BackupRow.parent_id).where(BackupRow.parent_id.in_(list(backup_ids)), BackupRow.status.in_(LIVE))
    return frozenset(parent_id for parent_id in session.scalars(query) if parent_id is not None)
