"""Jobs that read entities for a backup: with their intent and their places in the entities' queues, whoever asks."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from engine.access import Caller
from engine.audit import record_intent
from engine.backups.model import VerifyLevel
from engine.db.models import BackupRow, BackupVerificationRow, JobRow
from engine.jobs.model import Claim, ClaimMode, JobKind
from engine.jobs.service import create_job


def begin_job(
    session: Session,
    caller: Caller,
    kind: JobKind,
    operation: str,
    row: BackupRow,
    entities: Sequence[str],
    details: Mapping[str, Any],
    now: datetime,
) -> JobRow:
    """Records the intent, and makes the job. The doorbell is to be rung after the commit."""
    return create_job(
        session,
        kind=kind,
        resource_type="backups",
        resource_id=row.id,
        claims=[Claim(entity, ClaimMode.READ) for entity in entities],
        caller=caller,
        intent_id=record_intent(session, caller, operation, "backups", row.id, details, now),
        now=now,
    )


def begin_verification(
    session: Session, caller: Caller, row: BackupRow, level: VerifyLevel, details: Mapping[str, Any], now: datetime
) -> uuid.UUID:
    """The job that proves the backup up to `level`; `details` of the intent beside that."""
    told = {"level": level.value, **details}
    job = begin_job(session, caller, JobKind.BACKUP_VERIFY, "backups.verify", row, row.entity_types, told, now)
    session.add(BackupVerificationRow(job_id=job.id, backup_id=row.id, level=level.value, created_at=now))
    return job.id
