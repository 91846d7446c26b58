"""Restores, between the wire and the engine."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime

from dataops.v1 import restores_pb2

from engine.db.models import PrincipalRow, RestoreRow
from engine.ids import parse_id
from engine.imports.model import ChangeKind, RowChange
from engine.restores.model import Rename, RestoreRequest
from engine.restores.states import RestoreStatus
from server.convert.common import call_context, duration, number_of, operation_error, timestamp
from server.convert.jobs import notice
from server.convert.plans import row_key


def restore(row: RestoreRow, principals: Mapping[uuid.UUID, PrincipalRow], now: datetime) -> restores_pb2.Restore:
    renames = map(Rename.from_record, row.options.get("renames", ()))
    return restores_pb2.Restore(
        restore_id=str(row.id),
        backup_id=str(row.backup_id),
        entity_types=row.entity_types,
        status=number_of(restores_pb2.RestoreStatus, row.status),
        pre_restore_backup_id=str(row.pre_restore_backup_id or ""),
        requested_by_admin_id=str(row.principal_id),
        approved_by_admin_id=str(row.approved_by or ""),
        plan=_plan(row, now),
        report=_report(row),
        plan_job_id=str(row.plan_job_id or ""),
        restore_job_id=str(row.restore_job_id or ""),
        error=operation_error(row.error),
        context=call_context(row.principal_id, row.context, principals.get(row.principal_id)),
        created_at=timestamp(row.created_at),
        completed_at=timestamp(row.completed_at),
        renames=[restores_pb2.ColumnRename(entity=r.entity, old_name=r.old, new_name=r.new) for r in renames],
        confirmed_by_admin_id=str(row.confirmed_by or ""),
        confirmed_losses=row.confirmed_losses,
        updated_at=timestamp(row.updated_at),
    )


def loss(change: RowChange) -> restores_pb2.RestoreLoss:
    deleted = change.kind is ChangeKind.DELETE
    return restores_pb2.RestoreLoss(
        entity=change.entity,
        key=row_key(change),
        deleted=deleted,
        changed_fields=[] if deleted else [field.field for field in change.fields],
    )


def request_of(request: restores_pb2.CreateRestoreRequest) -> RestoreRequest:
    return RestoreRequest(
        backup_id=parse_id(request.backup_id, "backup_id"),
        entity_types=tuple(request.entity_types),
        renames=tuple(Rename(r.entity, r.old_name, r.new_name) for r in request.renames),
    )


def _plan(row: RestoreRow, now: datetime) -> restores_pb2.RestorePlan | None:
    """The plan as its caller must see it; absent until there is one."""
    plan = row.plan
    if plan is None:
        return None
    return restores_pb2.RestorePlan(
        plan_digest=row.plan_digest or b"",
        entities=[
            restores_pb2.EntityRestorePlan(
                entity=record["entity"],
                rows_now=record["rows_now"],
                rows_in_backup=record["rows_in_backup"],
                rows_lost=record["rows_lost"],
                rows_changed=record["rows_changed"],
                schema_differences=[notice(found) for found in record["schema_differences"]],
            )
            for record in plan["entities"]
        ],
        disk_bytes=plan["disk_bytes"],
        wal_bytes=plan["wal_bytes"],
        outage=duration(plan["outage_seconds"]),
        notices=[notice(found) for found in plan["notices"]],
        confirmation_phrase=_phrase(row, now),
        expires_at=timestamp(row.plan_expires_at),
        approval_needed=plan["approval_needed"],
    )


def _phrase(row: RestoreRow, now: datetime) -> str:
    """Only while it can be used; a worker may come a moment late to say that its time is over."""
    waits = row.status == RestoreStatus.AWAITING_CONFIRMATION
    return row.confirmation_phrase if waits and row.plan_expires_at is not None and row.plan_expires_at >= now else ""


def _report(row: RestoreRow) -> restores_pb2.RestoreReport | None:
    """What was done; absent until committed."""
    report = row.report
    if report is None:
        return None
    return restores_pb2.RestoreReport(
        entities=[
            restores_pb2.EntityRestoreReport(
                entity=record["entity"],
                rows_before=record["rows_before"],
                rows_after=record["rows_after"],
                rows_lost=record["rows_lost"],
                rows_changed=record["rows_changed"],
            )
            for record in report["entities"]
        ],
        notices=[notice(found) for found in report["notices"]],
        outage=duration(report["outage_seconds"]),
    )
