"""Making the backup of a schedule: its record, its job and its audit row, in the transaction of whoever fires."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from engine.access import Caller
from engine.backups.begin import begin_job
from engine.backups.model import Trigger
from engine.backups.record import new_backup
from engine.backups.service import wanted
from engine.catalog import Catalog
from engine.db.models import BackupRow, ScheduleRow
from engine.jobs.model import JobKind


def begin_backup(
    session: Session,
    row: ScheduleRow,
    catalog: Catalog,
    caller: Caller,
    operation: str,
    due_at: datetime,
    now: datetime,
) -> BackupRow:
    """A backup of all that the schedule means now, for `caller`; the schedule names it from here on. Its row must be
    locked, and the doorbell be rung after the commit. Nothing is written when it raises.

    Raises:
        PermissionDenied: PERMISSION_MISSING; NotFound: ENTITY_UNKNOWN; FailedPrecondition: ENTITY_NOT_BACKED_UP.
    """
    entities = wanted(catalog, caller, row.entity_types)
    backup = new_backup(caller, Trigger.SCHEDULED, entities, f"{row.name}, {due_at:%Y-%m-%d %H:%M} UTC", now)
    backup.backup_type, backup.retention_seconds, backup.schedule_id = row.backup_type, row.retention_seconds, row.id
    session.add(backup)
    session.flush()
    details: dict[str, Any] = {"entity_types": entities, "schedule_id": row.id, "due_at": due_at.isoformat()}
    job = begin_job(session, caller, JobKind.BACKUP, operation, backup, entities, details, now)
    backup.job_id = job.id
    row.last_run_at, row.last_backup_id = now, backup.id
    return backup
