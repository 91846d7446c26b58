"""What is owed to whom when a job ends: one delivery for each webhook that the job concerns.

It is written in the transaction that ends the job, so that an end that is rolled back tells nobody, and one that stands
tells everybody, whatever becomes of the process. The body is fixed here: every attempt sends these bytes.
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from engine.db.models import BackupRow, JobRow, WebhookDeliveryRow, WebhookRow
from engine.ids import new_id
from engine.webhooks.model import DeliveryState


def owe_deliveries(session: Session, job: JobRow, now: datetime) -> None:
    """Record what is owed for the job, which has just come to its end and is locked."""
    schedule_id = _schedule_of(session, job)
    concerned = select(WebhookRow.id).where(
        WebhookRow.deleted_at.is_(None),
        or_(func.cardinality(WebhookRow.job_kinds) == 0, WebhookRow.job_kinds.contains([str(job.kind)])),
        or_(func.cardinality(WebhookRow.job_states) == 0, WebhookRow.job_states.contains([str(job.state)])),
        or_(WebhookRow.schedule_id.is_(None), WebhookRow.schedule_id == schedule_id),
    )
    for webhook_id in session.scalars(concerned):
        delivery_id = new_id()
        body = _body(delivery_id, webhook_id, job, schedule_id)
        session.add(
            WebhookDeliveryRow(
                id=delivery_id,
                webhook_id=webhook_id,
                job_id=job.id,
                body=json.dumps(body, separators=(",", ":")).encode(),
                state=DeliveryState.PENDING.value,
                next_attempt_at=now,
                created_at=now,
            )
        )


def _schedule_of(session: Session, job: JobRow) -> uuid.UUID | None:
    """The schedule whose backup the job makes, proves or compares."""
    if job.resource_type != "backups":
        return None
    return session.scalars(select(BackupRow.schedule_id).where(BackupRow.id == job.resource_id)).first()


def _body(delivery_id: uuid.UUID, webhook_id: uuid.UUID, job: JobRow, schedule_id: uuid.UUID | None) -> dict[str, Any]:
    """Ids, words and times alone. Of an error only its reason: a message quotes what was found, which may be a row's
    value."""
    failed = job.state == "FAILED" and job.error is not None
    return {
        "event": f"job.{job.state.lower()}",
        "delivery_id": str(delivery_id),
        "webhook_id": str(webhook_id),
        "job": {
            "job_id": str(job.id),
            "kind": str(job.kind),
            "state": str(job.state),
            "attempt": job.attempt,
            "resource_type": job.resource_type,
            "resource_id": str(job.resource_id),
            "entity_types": [str(claim["entity"]) for claim in job.claims or ()],
            "schedule_id": str(schedule_id) if schedule_id else None,
            "created_at": _moment(job.created_at),
            "started_at": _moment(job.started_at),
            "finished_at": _moment(job.finished_at),
            "error_reason": str((job.error or {}).get("reason", "INTERNAL")) if failed else None,
        },
    }


def _moment(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
