"""What an import will do and has done: plan, rows of it, errors, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from dataops.v1 import common_pb2, imports_pb2
from google.protobuf.duration_pb2 import Duration

from engine.db.models import ImportRow
from engine.imports.model import RowChange, RowError
from engine.imports.validate import MASK
from engine.paging import MAX_BYTES, Paging
from server.convert.common import number_of, timestamp
from server.convert.jobs import notice

_LOCKS = {
    "ROW EXCLUSIVE": imports_pb2.LOCK_MODE_ROWS,
    "SHARE ROW EXCLUSIVE": imports_pb2.LOCK_MODE_SHARE_ROW_EXCLUSIVE,
    "ACCESS EXCLUSIVE": imports_pb2.LOCK_MODE_ACCESS_EXCLUSIVE,
}
_REPORT_NUMBERS = (
    "total_records",
    "inserted",
    "updated",
    "unchanged",
    "skipped",
    "failed",
    "deleted",
    "cascaded",
    "changed_by_trigger",
    "rows_before",
    "rows_after",
)


def plan_summary(row: ImportRow) -> imports_pb2.PlanSummary | None:
    """The plan as its caller must see it; absent until there is one."""
    summary = row.plan_summary
    if not summary:
        return None
    lock = summary.get("lock", {})
    mode = _LOCKS.get(lock.get("mode", ""), imports_pb2.LOCK_MODE_UNSPECIFIED)
    assigned = list(summary.get("server_assigned", ()))
    counts = _counts(summary.get("counts", {}))
    entity = imports_pb2.EntityPlan(
        entity=row.entity_type,
        counts=counts,
        rows_before=summary["rows_before"],
        rows_after=summary["rows_before"] + counts.inserts - counts.deletes,
        lock_mode=mode,
        server_assigned_fields=assigned,
    )
    held = Duration()
    held.FromTimedelta(timedelta(seconds=lock.get("seconds", 0)))
    return imports_pb2.PlanSummary(
        plan_digest=row.plan_digest or b"",
        counts=counts,
        entities=[entity],
        expires_at=timestamp(row.plan_expires_at),
        lock_mode=mode,
        lock_duration=held,
        notices=_notices(summary),
        planned_at=timestamp(datetime.fromisoformat(summary["planned_at"])),
        server_assigned_fields=[f"{row.entity_type}.{name}" for name in assigned],
    )


def report(row: ImportRow) -> imports_pb2.ImportReport | None:
    """What was done; absent until applied."""
    if not row.report:
        return None
    numbers = {name: int(row.report[name]) for name in _REPORT_NUMBERS if row.report.get(name) is not None}
    parts = []
    if row.report_artifact_id:
        parts.append(imports_pb2.REPORT_PART_REPORT)
    if row.rejects_artifact_id:
        parts.append(imports_pb2.REPORT_PART_REJECTS)
    return imports_pb2.ImportReport(
        notices=_notices(row.report),
        entities=[imports_pb2.EntityReport(entity=row.entity_type, **numbers)],
        parts=parts,
        **numbers,
    )


def row_error(entity: str, error: RowError) -> imports_pb2.ImportRowError:
    return imports_pb2.ImportRowError(
        row=error.row,
        field=error.field,
        code=error.code,
        message=error.message,
        value=error.value or None,
        severity=number_of(imports_pb2.RowErrorSeverity, error.severity),
        entity=entity,
    )


def row_change(entity: str, change: RowChange) -> imports_pb2.ImportChange:
    fields = []
    for field in change.fields:
        masked = MASK in (field.old, field.new)
        fields.append(
            imports_pb2.FieldChange(
                name=field.field, old=None if masked else field.old, new=None if masked else field.new, masked=masked
            )
        )
    return imports_pb2.ImportChange(
        row=change.row,
        kind=number_of(imports_pb2.ChangeKind, change.kind),
        entity=entity,
        key=[common_pb2.FieldValue(name=name, value=value) for name, value in change.key.items()],
        fields=fields,
    )


def change_page(
    entity: str, changes: Sequence[RowChange], paging: Paging, token: str
) -> tuple[list[imports_pb2.ImportChange], str]:
    """The changes that fit one answer, and the token of what follows them. Their places in the plan are consecutive."""
    first = int((paging.position() or (0,))[0])
    shown: list[imports_pb2.ImportChange] = []
    used = 0
    for change in changes:
        message = row_change(entity, change)
        used += message.ByteSize()
        if shown and used > MAX_BYTES:
            return shown, paging.token_at((first + len(shown),))
        shown.append(message)
    return shown, token


def _counts(record: Mapping[str, Any]) -> imports_pb2.ChangeCounts:
    return imports_pb2.ChangeCounts(
        inserts=record.get("insert", 0),
        updates=record.get("update", 0),
        unchanged=record.get("unchanged", 0),
        deletes=record.get("delete", 0),
        skips=record.get("skip", 0),
        failed=record.get("failed", 0),
    )


def _notices(record: Mapping[str, Any]) -> list[common_pb2.Notice]:
    return [notice({"severity": "WARNING"} | dict(item)) for item in record.get("notices", ())]
