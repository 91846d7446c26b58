"""Approval by another person: asked for where a plan deletes more rows than the setting `approval_deletes` lets pass.

An approval is of one plan. It names that plan's digest, ends with the plan's time, is dropped when the plan is made
anew, and the approver's rights are asked for again right before the plan takes effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from engine.access import CallContext, Caller, caller_of
from engine.audit import record_change
from engine.config import Settings
from engine.db.models import ImportRow
from engine.errors import FailedPrecondition, PermissionDenied
from engine.imports.states import ImportStatus, require_in_time, require_plan, require_waiting

S = ImportStatus


def too_many_deletes(summary: Mapping[str, Any], settings: Settings) -> bool:
    """Whether another person must approve this plan: rows that go or are changed by foreign keys count alike."""
    if settings.approval_deletes is None:
        return False
    counts, own = summary.get("counts", {}), {e["name"] for e in summary.get("entities", ())}
    gone = counts.get("delete", 0) + counts.get("cascade", 0)
    for reached in summary.get("cascades", ()):
        if reached["name"] not in own:  # those of the file stand in its counts
            gone += reached.get("rows", sum(rows for _, _, rows in reached["actions"]))
    return bool(gone > settings.approval_deletes)


def needed(row: ImportRow, settings: Settings) -> bool:
    """As it was found when the plan was made; of a plan of the release before, which did not ask, as found now."""
    if row.approval_needed is not None:
        return row.approval_needed
    return too_many_deletes(row.plan_summary or {}, settings)


def ask_anew(row: ImportRow, summary: Mapping[str, Any], settings: Settings) -> None:
    """For a plan just made: whatever was approved before was another one."""
    row.approval_needed = too_many_deletes(summary, settings)
    row.approved_by = row.approved_digest = None


def forget(row: ImportRow) -> None:
    """The plan is dropped, and what was said about it."""
    row.approval_needed = row.approved_by = row.approved_digest = None


def approve(
    session: Session,
    caller: Caller,
    row: ImportRow,
    entities: Sequence[str],
    plan_digest: bytes,
    settings: Settings,
    now: datetime,
) -> None:
    """Writes the approver down on the locked `row`, which writes `entities`. What is approved stays as it is.

    Raises:
        PermissionDenied: PERMISSION_MISSING; APPROVAL_BY_ANOTHER for who asked for the import;
        Aborted: PLAN_DIGEST_MISMATCH; FailedPrecondition: IMPORT_STATE, PLAN_EXPIRED, APPROVAL_NOT_NEEDED.
    """
    _require_right(caller, row, entities)
    require_plan(row, plan_digest)
    if caller.principal_id == row.principal_id:
        raise _by_another("asked for it")
    if _approved(row) and (row.status == S.AWAITING_APPROVAL or caller.principal_id == row.approved_by):
        return
    require_waiting(row, now)
    if not needed(row, settings):
        raise FailedPrecondition(
            "import: found a plan that may be applied without approval", reason="APPROVAL_NOT_NEEDED"
        )
    record_change(session, caller, "imports.approve", "imports", row.id, now)
    row.approval_needed, row.approved_by, row.approved_digest = True, caller.principal_id, row.plan_digest
    row.updated_at = now


def require_approved(caller: Caller, row: ImportRow, settings: Settings) -> None:
    """Before the plan is put into the queue by `caller`.

    Raises:
        FailedPrecondition: APPROVAL_NEEDED; PermissionDenied: APPROVAL_BY_ANOTHER for the approver, who does not apply
        what he has approved.
    """
    if not needed(row, settings):
        return
    row.approval_needed = True  # what is asked for here is asked for at the effect, whatever a worker's settings are
    if not _approved(row):
        raise _missing()
    if caller.principal_id == row.approved_by:
        raise _by_another("approved it")


def require_standing(session: Session, row: ImportRow, entities: Sequence[str], now: datetime) -> None:
    """Right before the effect: the approval is still of this plan, in its time, and its giver may still give it.

    Raises:
        FailedPrecondition: APPROVAL_NEEDED, PLAN_EXPIRED; PermissionDenied: PERMISSION_MISSING, PRINCIPAL_UNKNOWN.
    """
    if not row.approval_needed:
        return
    if row.approved_by is None or not _approved(row):
        raise _missing()
    require_in_time(row, now)
    _require_right(caller_of(session, row.approved_by, CallContext.from_record(row.context), now), row, entities)


def _approved(row: ImportRow) -> bool:
    return row.approved_by is not None and row.approved_digest is not None and row.approved_digest == row.plan_digest


def _require_right(approver: Caller, row: ImportRow, entities: Sequence[str]) -> None:
    for name in entities:
        approver.require("imports.approve", name, row.import_type)


def _missing() -> FailedPrecondition:
    return FailedPrecondition(
        "import: found its plan not approved, expected ApproveImport by another person first", reason="APPROVAL_NEEDED"
    )


def _by_another(what: str) -> PermissionDenied:
    return PermissionDenied(f"import: found who {what}, expected another person", reason="APPROVAL_BY_ANOTHER")
