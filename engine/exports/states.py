"""An export's states, and the only function that changes them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from engine.db.models import ExportRow
from engine.errors import FailedPrecondition


class ExportStatus(StrEnum):
    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    DELETED = "DELETED"


S = ExportStatus
FINAL = frozenset({S.COMPLETED, S.FAILED, S.CANCELLED, S.EXPIRED, S.DELETED})

_ALLOWED: dict[ExportStatus, frozenset[ExportStatus]] = {
    S.PENDING: frozenset({S.PROCESSING, S.FAILED, S.CANCELLED}),
    S.PROCESSING: frozenset({S.COMPLETED, S.FAILED, S.CANCELLED}),
    S.COMPLETED: frozenset({S.EXPIRED, S.DELETED}),
    S.FAILED: frozenset({S.PENDING, S.DELETED}),  # RetryJob runs it again
    S.CANCELLED: frozenset({S.DELETED}),
    S.EXPIRED: frozenset({S.DELETED}),
}


def move(row: ExportRow, to: ExportStatus, now: datetime) -> None:
    """Changes the status.

    Raises:
        FailedPrecondition: EXPORT_STATE when the present status does not lead there.
    """
    if to not in _ALLOWED.get(S(row.status), frozenset()):
        raise FailedPrecondition(
            f"export: found it {row.status}, which does not become {to}",
            reason="EXPORT_STATE",
            metadata={"status": row.status},
        )
    row.status, row.updated_at = to, now
    if to in (S.COMPLETED, S.FAILED, S.CANCELLED):
        row.completed_at = now
    if to not in FINAL:
        row.completed_at, row.error = None, None
