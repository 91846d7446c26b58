"""A restore's states, and the only functions that change them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from engine.db.models import RestoreRow
from engine.errors import DataOpsError, FailedPrecondition


class RestoreStatus(StrEnum):
    """PENDING and VALIDATING are the plan's, PROCESSING is the restore's own."""

    PENDING = "PENDING"
    VALIDATING = "VALIDATING"
    AWAITING_CONFIRMATION = "AWAITING_CONFIRMATION"
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ROLLED_BACK = "ROLLED_BACK"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


S = RestoreStatus
FINAL = frozenset({S.COMPLETED, S.FAILED, S.ROLLED_BACK, S.CANCELLED, S.EXPIRED})

_ALLOWED: dict[RestoreStatus, frozenset[RestoreStatus]] = {
    S.PENDING: frozenset({S.VALIDATING, S.FAILED, S.CANCELLED}),
    S.VALIDATING: frozenset({S.AWAITING_CONFIRMATION, S.FAILED, S.CANCELLED}),
    S.AWAITING_CONFIRMATION: frozenset({S.AWAITING_APPROVAL, S.PROCESSING, S.CANCELLED, S.EXPIRED}),
    S.AWAITING_APPROVAL: frozenset({S.PROCESSING, S.CANCELLED, S.EXPIRED}),
    # a transaction that was begun and undone is ROLLED_BACK; one that never began is FAILED
    S.PROCESSING: frozenset({S.COMPLETED, S.FAILED, S.ROLLED_BACK, S.CANCELLED}),
    # RetryJob plans it again; of what was confirmed it only finds out whether its effect stands
    S.FAILED: frozenset({S.PENDING, S.PROCESSING}),
    S.ROLLED_BACK: frozenset({S.PROCESSING}),
}


def move(row: RestoreRow, to: RestoreStatus, now: datetime) -> None:
    """Changes the status and `updated_at`; a final one sets `completed_at` and makes the phrase worthless.

    Raises:
        FailedPrecondition: RESTORE_STATE when the present status does not lead there.
    """
    if to not in _ALLOWED.get(S(row.status), frozenset()):
        raise FailedPrecondition(
            f"restore: found it {row.status}, which does not become {to}",
            reason="RESTORE_STATE",
            metadata={"status": row.status},
        )
    row.status, row.updated_at = to, now
    row.completed_at = now if to in FINAL else None
    if to in FINAL:
        row.confirmation_phrase = ""
    else:
        row.error = None


def fail(row: RestoreRow, error: DataOpsError, now: datetime, *, to: RestoreStatus = S.FAILED) -> None:
    """FAILED or ROLLED_BACK, with the reason a caller may read."""
    move(row, to, now)
    row.error = error.as_record()
