"""What a test does with retention, in a line each."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from engine.backups.model import BackupRequest
from engine.backups.service import Backups
from engine.backups.sweep import BackupSweeper
from engine.db.models import AuditEventRow, BackupRow
from engine.retention.service import Retention, Swept
from engine.storage.memory import MemoryStorage
from tests.engine.backups.bench import RING, Diary, Later, names
from tests.world import World

DAY = timedelta(days=1)


def retention(world: World, **settings: Any) -> Retention:
    """Retention that trusts the clock at once, unless `settings` say otherwise."""
    wanted = {"retention_settle_seconds": 0} | settings
    resources = world.resources
    return Retention(replace(resources, settings=resources.settings.model_copy(update=wanted)))


def retain(world: World, now: datetime | None = None) -> Swept:
    """One sweep, now or at that time."""
    return retention(world).sweep(now or world.resources.clock())


class Bench:
    """A world with a storage that keeps a diary, a clock that can be moved, and retention over both."""

    def __init__(self, world: World, **settings: Any) -> None:
        self.clock = Later()
        world.resources = replace(world.resources, clock=self.clock)
        world = type(world)(world.resources)
        self.world, self.resources = world, world.resources
        self.storage = Diary(MemoryStorage(self.clock))
        self.resources.repository.__init__(self.storage, RING)  # type: ignore[misc]
        self.backups = Backups(self.resources)
        self.retention = retention(world, **settings)

    def backup(self, **values: Any) -> uuid.UUID:
        """A real one, then with these values on its record."""
        row = self.backups.create(self.world.caller, BackupRequest(("things",)), *self.world.request())
        self.world.work()
        self.change(row.id, **values)
        return row.id

    def chain(self, *, of: int) -> list[uuid.UUID]:
        """A base and increments, each to the one before it."""
        made = [self.backup()]
        for _ in range(of - 1):
            made.append(self.backup(backup_type="INCREMENTAL", parent_id=made[-1], chain_id=made[0]))
        return made

    def change(self, backup_id: uuid.UUID, **values: Any) -> None:
        with self.resources.db.transaction() as session:
            row = session.get_one(BackupRow, backup_id)
            for name, value in values.items():
                setattr(row, name, value)

    def statuses(self, *backup_ids: uuid.UUID) -> list[str]:
        return [self.backups.get(self.world.caller, backup_id).status for backup_id in backup_ids]

    def preview(self) -> Mapping[str, str]:
        """Codes by resource."""
        return {d.resource: d.code.value for d in self.retention.decisions(self.clock())}

    def removals(self) -> set[str]:
        return {d.resource for d in self.retention.decisions(self.clock()) if d.remove}

    def sweep(self) -> Swept:
        return self.retention.sweep(self.clock())

    def sweep_bytes(self) -> int:
        return BackupSweeper(self.resources).sweep(self.clock()).removed

    def at_the_next_put(self, act: Callable[[], None]) -> None:
        """Lets this happen once, when the next object is about to be written; others may be written meanwhile."""
        first = threading.Lock()

        def before(what: str, _name: str) -> None:
            if what == "put" and first.acquire(blocking=False):
                act()

        self.storage.before = before

    def stored(self) -> list[str]:
        """Every object of backups, and of artifacts."""
        return names(self.storage)

    def audited(self) -> list[AuditEventRow]:
        """The intents of removals, oldest first."""
        wanted = select(AuditEventRow).filter_by(operation="retention.remove", kind="INTENT")
        with self.resources.db.transaction() as session:
            return list(session.scalars(wanted.order_by(AuditEventRow.sequence)))

    def told(self) -> list[str]:
        return [f"{event.resource_type}/{event.resource_id}" for event in self.audited()]
