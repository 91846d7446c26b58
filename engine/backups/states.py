"""A backup's states, and the only functions that change them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from engine.db.models import BackupRow
from engine.errors import DataOpsError, FailedPrecondition


class BackupStatus(StrEnum):
    PENDING = "PENDING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    RESTORED = "RESTORED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    DELETED = "DELETED"


S = BackupStatus
GOOD = frozenset({S.COMPLETED, S.RESTORED})
"""A backup that can be restored; RESTORED only says that it has been."""
FINAL = frozenset(S) - {S.PENDING}

_ALLOWED: dict[BackupStatus, frozenset[BackupStatus]] = {
    S.PENDING: frozenset({S.COMPLETED, S.FAILED, S.CANCELLED}),
    S.COMPLETED: frozenset({S.RESTORED, S.EXPIRED, S.DELETED}),
    S.RESTORED: frozenset({S.RESTORED, S.EXPIRED, S.DELETED}),
    S.FAILED: frozenset({S.PENDING, S.DELETED}),  # RetryJob runs it again
    S.CANCELLED: frozenset({S.DELETED}),
    S.EXPIRED: frozenset({S.DELETED}),
}


def found_damaged(verifications: Mapping[str, Any]) -> bool:
    """Whether something bad is known of the backup itself: the newest finding of any level is bad. A good one stands at
    the levels below it too, so it outdoes those; never one of a level above: rows that were wrong are no better for
    their objects being there. What an increment builds on has its own; `engine.backups.protection` asks for all."""
    return any(not found["good"] for found in verifications.values())


def move(row: BackupRow, to: BackupStatus, now: datetime) -> None:
    """Changes the status.

    Raises:
        FailedPrecondition: BACKUP_STATE when the present status does not lead there.
    """
    if to not in _ALLOWED.get(S(row.status), frozenset()):
        raise FailedPrecondition(
            f"backup: found it {row.status}, which does not become {to}",
            reason="BACKUP_STATE",
            metadata={"status": row.status},
        )
    row.status, row.updated_at = to, now
    if to is S.COMPLETED:
        row.completed_at, row.error = now, None
    elif to is S.PENDING:
        row.error = None


def fail(row: BackupRow, error: DataOpsError, now: datetime) -> None:
    """FAILED, with the reason a caller may read."""
    move(row, S.FAILED, now)
    row.error = error.as_record()
