"""The control schema's own rows, as every backup carries them: who may do what, schedules, which backups are held."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import inspect, select
from sqlalchemy.orm import Session

from engine.db.base import Model
from engine.db.models import BackupRow, GrantRow, PrincipalRow, RoleRow, ScheduleRow

TABLES: tuple[type[Model], ...] = (RoleRow, PrincipalRow, GrantRow)
"""In the order in which they can be put back."""


def read_settings(session: Session) -> list[bytes]:
    """Roles, principals, grants, schedules, and the ids of held backups: one JSON object a line."""
    lines = [_line(model.__tablename__, _record(row)) for model in TABLES for row in session.scalars(select(model))]
    schedules = session.scalars(select(ScheduleRow).where(ScheduleRow.deleted_at.is_(None)))
    lines += [_line("schedules", _record(row)) for row in schedules]
    held = session.scalars(select(BackupRow.id).where(BackupRow.held))
    return [*lines, *(_line("holds", {"backup_id": str(backup_id)}) for backup_id in held)]


def _record(row: Model) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in inspect(type(row)).columns}


def _line(table: str, row: dict[str, Any]) -> bytes:
    return json.dumps({"table": table, "row": row}, sort_keys=True, default=str, ensure_ascii=False).encode() + b"\n"
