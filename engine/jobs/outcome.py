"""The audit row that answers a job's intent: no operation ends without one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from engine import audit
from engine.db.models import JobRow


def record_outcome(session: Session, job: JobRow, outcome: str, details: dict[str, Any], now: datetime) -> None:
    """Answer the job's intent in the transaction that ends it. Jobs of the installation itself have none."""
    if job.intent_id is None:
        return
    audit.record_outcome(
        session, job.intent_id, outcome, {"job_id": str(job.id), "attempt": job.attempt, **details}, now
    )
