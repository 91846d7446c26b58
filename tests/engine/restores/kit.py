"""What the tests of restores share: a backup, a plan, a restore, in a line each.

Restores are given as Any: a test knows which of its optional columns are set by then.
"""

from __future__ import annotations

import uuid
from typing import Any

from engine.backups.model import BackupRequest
from engine.backups.service import Backups
from engine.db.models import BackupRow
from engine.restores.model import Rename, RestoreRequest
from engine.restores.service import Restores
from tests.world import World


def back_up(world: World, *entities: str) -> BackupRow:
    """A complete backup of these, or of all."""
    backups = Backups(world.resources)
    row = backups.create(world.caller, BackupRequest(entities), *world.request())
    world.work()
    row = backups.get(world.caller, row.id)
    assert row.status == "COMPLETED", row.error
    return row


def plan(world: World, backup: BackupRow, *entities: str, renames: dict[str, str] | None = None) -> Any:
    """The restore as it stands after planning; `renames` are of the first entity."""
    world.resources.catalogs.forget()
    told = tuple(Rename(entities[0] if entities else backup.entity_types[0], a, b) for a, b in (renames or {}).items())
    request = RestoreRequest(backup.id, entities, told)
    row = Restores(world.resources).create(world.caller, request, *world.request())
    world.work()
    return get(world, row.id)


def confirm(world: World, row: Any, *, work: bool = True, **options: Any) -> Any:
    """Type the phrase and let it be done."""
    assert row.status == "AWAITING_CONFIRMATION", row.error
    Restores(world.resources).confirm(
        world.caller, row.id, row.plan_digest or b"", row.confirmation_phrase, *world.request(), **options
    )
    if work:
        world.work()
    return get(world, row.id)


def restore(world: World, backup: BackupRow, *entities: str, renames: dict[str, str] | None = None) -> Any:
    """Plan and confirm; it must have been done."""
    row = confirm(world, plan(world, backup, *entities, renames=renames))
    assert row.status == "COMPLETED", row.error
    return row


def get(world: World, restore_id: uuid.UUID) -> Any:
    return Restores(world.resources).get(world.caller, restore_id)


def planned(row: Any, entity: str) -> dict[str, Any]:
    """The plan's word on one entity."""
    assert row.plan is not None, row.error
    found: dict[str, Any] = next(e for e in row.plan["entities"] if e["entity"] == entity)
    return found


def contents(world: World, *tables: str) -> dict[str, list[Any]]:
    """All rows of the tables, as text, sorted."""
    found = {}
    for table in tables:
        found[table] = sorted(row[0] for row in world.sql(f"SELECT (t.*)::text FROM public.{table} t"))
    return found
