"""The audit rows of removals."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from engine.access import system_caller
from engine.audit import record_intent, record_outcome

OPERATION = "retention.remove"


def removed(
    session: Session, resource_type: str, resource_id: uuid.UUID, why: str, now: datetime, details: Mapping[str, Any]
) -> None:
    """Writes, in the transaction from which on the thing cannot be had any more, that retention removed it."""
    facts = {"why": why, **details}
    intent = record_intent(session, system_caller("retention"), OPERATION, resource_type, resource_id, facts, now)
    record_outcome(session, intent, "COMPLETED", {}, now)
