"""Rows as jobs and the scheduler write them, made by hand: what the overview and the metrics look at."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from engine.db.models import BackupRow, ScheduleRow, ScheduleRunRow
from engine.ids import new_id
from engine.resources import Resources

NOBODY = uuid.UUID(int=7)


def proof(at: datetime, *, good: bool = True) -> dict[str, Any]:
    return {"verified_at": at.isoformat(), "good": good, "error": None if good else {"reason": "PART_DAMAGED"}}


class Rows:
    """Writes them; `now` is the moment that ages are counted back from."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.now = resources.clock()

    def before(self, hours: float) -> datetime:
        return self.now - timedelta(hours=hours)

    def backup(self, hours: float, entities: Sequence[str] = ("users",), **values: Any) -> BackupRow:
        """A good one of so many hours ago, unless `status` says otherwise."""
        at, backup_id = self.before(hours), new_id()
        status = values.get("status", "COMPLETED")
        known: dict[str, Any] = {
            "id": backup_id,
            "backup_type": "FULL",
            "trigger_type": "MANUAL",
            "status": status,
            "name": "made by hand",
            "entity_types": list(entities),
            "principal_id": NOBODY,
            "chain_id": backup_id,
            "manifest_sha256": bytes(32) if status in ("COMPLETED", "RESTORED") else None,
            "created_at": at,
            "updated_at": at,
            "snapshot_at": at,
        }
        return self._add(BackupRow(**known | values))

    def schedule(self, name: str, **values: Any) -> ScheduleRow:
        """One that fires in an hour."""
        known: dict[str, Any] = {
            "id": new_id(),
            "name": name,
            "cron": "0 2 * * *",
            "time_zone": "UTC",
            "backup_type": "FULL",
            "overlap_policy": "SKIP",
            "catch_up_seconds": 86_400,
            "next_run_at": self.before(-1),
            "principal_id": NOBODY,
            "created_at": self.before(1000),
            "updated_at": self.before(1000),
        }
        return self._add(ScheduleRow(**known | values))

    def scheduled(self, schedule: ScheduleRow, hours: float, **values: Any) -> BackupRow:
        return self.backup(hours, trigger_type="SCHEDULED", schedule_id=schedule.id, **values)

    def unstarted(self, schedule: ScheduleRow, hours: float) -> ScheduleRunRow:
        """A time at which no backup could be begun."""
        at = self.before(hours)
        return self._add(ScheduleRunRow(schedule_id=schedule.id, due_at=at, outcome="FAILED", created_at=at))

    def _add(self, row: Any) -> Any:
        with self.resources.db.transaction() as session:
            session.add(row)
        return row
