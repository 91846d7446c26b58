"""Increments, in a line each: taken, proven, and what they found."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import select

from engine.backups.model import BackupRequest, BackupType
from engine.backups.service import Backups
from engine.backups.verify import LEVELS, verify
from engine.db.models import BackupRow, JobEventRow
from tests.engine.backups.kit import Told, archive_of, live_rows, staged_rows
from tests.world import World

THINGS = (
    "CREATE TABLE public.things (id int PRIMARY KEY, note text, updated_at timestamptz NOT NULL DEFAULT now());"
    "INSERT INTO public.things SELECT n, 'row ' || n FROM generate_series(1, 3000) n"
)


def backed_up(world: World, kind: BackupType = BackupType.FULL, *entities: str) -> BackupRow:
    backups = Backups(world.resources)
    request = BackupRequest(entities or ("things",), backup_type=kind)
    row = backups.create(world.caller, request, *world.request())
    world.work()
    row = backups.get(world.caller, row.id)
    assert row.status == "COMPLETED", row.error
    return row


def increment(world: World, *entities: str) -> BackupRow:
    """One that shows the live rows, and whose every byte and row is proven."""
    row = backed_up(world, BackupType.INCREMENTAL, *entities)
    archive = archive_of(world, row)
    verify(Told(world), archive, LEVELS[-1])
    for entity in archive.manifest.entities:
        assert staged_rows(world, archive, entity.entity) == live_rows(world, entity.entity)
    return row


def delta_of(world: World, row: BackupRow, entity: str = "things") -> tuple[str, int, int]:
    """The proof, rows added and gone."""
    backed = archive_of(world, row).manifest.entity(entity)
    assert backed is not None and backed.delta is not None
    return backed.delta.proof, backed.delta.rows, backed.delta.gone


def artifact_of(row: BackupRow) -> uuid.UUID:
    assert row.artifact_id is not None
    return row.artifact_id


@contextmanager
def method(world: World, name: str) -> Iterator[None]:
    settings = world.resources.settings
    object.__setattr__(world.resources, "settings", settings.model_copy(update={"incremental_method": name}))
    try:
        yield
    finally:
        object.__setattr__(world.resources, "settings", settings)


def increment_is_full(world: World, why: str) -> bool:
    row = increment(world)
    with world.resources.db.transaction() as session:
        events = session.scalars(select(JobEventRow).filter_by(job_id=row.job_id, kind="NOTICE")).all()
    notices = [(event.payload["message"],) for event in events]
    assert any(why in message for (message,) in notices), notices
    assert (row.parent_id, row.chain_id) == (None, row.id)
    assert why in row.full_because
    return row.backup_type == "FULL"
