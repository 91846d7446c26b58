"""What an import will do and has done: plan, rows of it, errors, report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dataops.v1 import common_pb2, imports_pb2

from engine.db.models import ImportRow
from engine.imports.model import RowChange, RowError
from server.convert.common import duration, number_of, timestamp
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
    summary = _of_today(row, row.plan_summary)
    if not summary:
        return None
    entities = [_entity_plan(record) for record in summary["entities"]]
    effects = [
        imports_pb2.ForeignKeyEffect(entity=cascade["name"], constraint=constraint, action=action, rows=rows)
        for cascade in summary["cascades"]
        for constraint, action, rows in cascade["actions"]
    ]
    held = duration(sum(e["lock"].get("seconds", 0) for e in summary["entities"]))
    parts = [imports_pb2.REPORT_PART_REJECTS] if row.rejects_artifact_id else []
    return imports_pb2.PlanSummary(
        plan_digest=row.plan_digest or b"",
        counts=_counts(summary["counts"]),
        entities=entities,
        expires_at=timestamp(row.plan_expires_at),
        lock_mode=max((e.lock_mode for e in entities), default=imports_pb2.LOCK_MODE_UNSPECIFIED),
        lock_duration=held,
        notices=_notices(summary),
        deletes_need_confirmation=summary["deletes_need_confirmation"],
        approval_needed=bool(row.approval_needed),
        planned_at=timestamp(datetime.fromisoformat(summary["planned_at"])),
        server_assigned_fields=[f"{e.entity}.{name}" for e in entities for name in e.server_assigned_fields],
        foreign_key_effects=effects,
        parts=[*parts, imports_pb2.REPORT_PART_CHANGES] if row.plan_artifact_id else parts,
    )


def _of_today(row: ImportRow, summary: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the release before has written had one entity and no foreign keys' effects."""
    if not summary or "entities" in summary:
        return summary
    counts = {"cascade": 0} | summary["counts"]
    only = {
        "name": row.entity_type, "key": [], "counts": counts, "lock": summary["lock"],
        "rows_before": summary["rows_before"], "assigned": summary["server_assigned"], "updated_fields": {},
    }  # fmt: skip
    return summary | {"entities": [only], "cascades": [], "deletes_need_confirmation": False}


def _entity_plan(record: Mapping[str, Any]) -> imports_pb2.EntityPlan:
    counts = _counts(record["counts"])
    cascaded = record["counts"]["cascade"]
    return imports_pb2.EntityPlan(
        entity=record["name"],
        counts=counts,
        rows_before=record["rows_before"],
        rows_after=record["rows_before"] + counts.inserts - counts.deletes,
        lock_mode=_LOCKS.get(record["lock"].get("mode", ""), imports_pb2.LOCK_MODE_UNSPECIFIED),
        cascaded=cascaded,
        server_assigned_fields=record["assigned"],
        updated_fields=[
            imports_pb2.FieldCount(field=field, rows=rows)
            for field, rows in sorted(record["updated_fields"].items(), key=lambda item: (-item[1], item[0]))
        ],
        key_fields=record["key"],
    )


def report(row: ImportRow) -> imports_pb2.ImportReport | None:
    """What was done; absent until applied."""
    made = row.report
    if not made:
        return None
    if "entities" not in made:
        made = made | {"entities": [made | {"entity": row.entity_type}]}
    parts = []
    if row.report_artifact_id:
        parts.append(imports_pb2.REPORT_PART_REPORT)
    if row.rejects_artifact_id:
        parts.append(imports_pb2.REPORT_PART_REJECTS)
    if row.plan_artifact_id:
        parts.append(imports_pb2.REPORT_PART_CHANGES)
    return imports_pb2.ImportReport(
        notices=_notices(made),
        entities=[imports_pb2.EntityReport(entity=record["entity"], **_numbers(record)) for record in made["entities"]],
        parts=parts,
        **_numbers(made),
    )


def _numbers(record: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(record[name]) for name in _REPORT_NUMBERS if record.get(name) is not None}


def row_error(error: RowError) -> imports_pb2.ImportRowError:
    return imports_pb2.ImportRowError(
        row=error.row,
        field=error.field,
        code=error.code,
        message=error.message,
        value=error.value or None,
        severity=number_of(imports_pb2.RowErrorSeverity, error.severity),
        entity=error.entity,
    )


def row_change(change: RowChange) -> imports_pb2.ImportChange:
    return imports_pb2.ImportChange(
        row=change.row,
        kind=number_of(imports_pb2.ChangeKind, change.kind),
        entity=change.entity,
        key=row_key(change),
        fields=field_changes(change),
    )


def row_key(change: RowChange) -> list[common_pb2.FieldValue]:
    return [common_pb2.FieldValue(name=name, value=value) for name, value in change.key.items()]


def field_changes(change: RowChange) -> list[imports_pb2.FieldChange]:
    """Its fields before and after; of a masked one only that there is a difference."""
    return [
        imports_pb2.FieldChange(
            name=f.field, old=None if f.masked else f.old, new=None if f.masked else f.new, masked=f.masked
        )
        for f in change.fields
    ]


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
