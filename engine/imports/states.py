"""An import's states, what is asked of them, and the only functions that change them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from engine.db.models import ImportRow
from engine.errors import Aborted, DataOpsError, FailedPrecondition


class ImportStatus(StrEnum):
    """PENDING and VALIDATING are the plan's, PROCESSING is apply's; the words with an end in them are final."""

    PENDING = "PENDING"
    VALIDATING = "VALIDATING"
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ROLLED_BACK = "ROLLED_BACK"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


S = ImportStatus
FINAL = frozenset({S.COMPLETED, S.FAILED, S.ROLLED_BACK, S.CANCELLED, S.EXPIRED})

_ALLOWED: dict[ImportStatus, frozenset[ImportStatus]] = {
    S.PENDING: frozenset({S.VALIDATING, S.FAILED, S.CANCELLED}),
    S.VALIDATING: frozenset({S.AWAITING_APPROVAL, S.PROCESSING, S.FAILED, S.CANCELLED}),
    S.AWAITING_APPROVAL: frozenset({S.PROCESSING, S.CANCELLED, S.EXPIRED}),
    # a transaction that was begun and undone is ROLLED_BACK; one that never began is FAILED
    # back to PENDING with on_drift=REPLAN
    S.PROCESSING: frozenset({S.COMPLETED, S.FAILED, S.ROLLED_BACK, S.CANCELLED, S.PENDING}),
    # RetryJob runs the failed phase again
    S.FAILED: frozenset({S.PENDING, S.PROCESSING}),
    S.ROLLED_BACK: frozenset({S.PROCESSING}),
}


def require_plan(row: ImportRow, plan_digest: bytes) -> None:
    """Raises:
    Aborted: PLAN_DIGEST_MISMATCH when the caller has seen another plan. Without one, the status says so.
    """
    if row.plan_digest is not None and row.plan_digest != plan_digest:
        raise Aborted(
            "plan_digest: found another one than this import's plan; look at the plan again",
            reason="PLAN_DIGEST_MISMATCH",
        )


def require_waiting(row: ImportRow, now: datetime) -> None:
    """Raises:
    FailedPrecondition: IMPORT_STATE, PLAN_EXPIRED when there is no plan that waits for somebody's word.
    """
    if row.status != S.AWAITING_APPROVAL:
        raise FailedPrecondition(
            f"import: found it {row.status}, expected AWAITING_APPROVAL",
            reason="IMPORT_STATE",
            metadata={"status": row.status},
        )
    require_in_time(row, now)


def require_in_time(row: ImportRow, now: datetime) -> None:
    """Raises:
    FailedPrecondition: PLAN_EXPIRED.
    """
    if row.plan_expires_at is not None and row.plan_expires_at <= now:
        raise FailedPrecondition("plan: found it expired, make a new one", reason="PLAN_EXPIRED")


def move(row: ImportRow, to: ImportStatus, now: datetime) -> None:
    """Changes the status and `updated_at`; a final one sets `completed_at`.

    Raises:
        FailedPrecondition: IMPORT_STATE when the present status does not lead there.
    """
    if to not in _ALLOWED.get(S(row.status), frozenset()):
        raise FailedPrecondition(
            f"import: found it {row.status}, which does not become {to}",
            reason="IMPORT_STATE",
            metadata={"status": row.status},
        )
    row.status, row.updated_at = to, now
    row.completed_at = now if to in FINAL else None
    if to not in FINAL:
        row.error = None


def fail(row: ImportRow, error: DataOpsError, now: datetime, *, to: ImportStatus = S.FAILED) -> None:
    """FAILED or ROLLED_BACK, with the reason a caller may read."""
    move(row, to, now)
    row.error = error.as_record()
