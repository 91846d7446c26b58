"""Restores whose worker ends in the middle: the backup's rows once, or everything as before, and a true record."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from sqlalchemy import select

from engine.db.models import BackupRow
from tests.engine.restores.kit import back_up, confirm, contents, get, plan
from tests.faults.test_imports_die import take_over
from tests.fix_workers import Start
from tests.world import World

SCHEMA = """
CREATE TABLE public.parents (id int PRIMARY KEY, name text);
CREATE TABLE public.children (id int PRIMARY KEY, parent int NOT NULL REFERENCES public.parents ON DELETE CASCADE);
INSERT INTO public.parents SELECT g, 'p' || g FROM generate_series(1, 500) g;
INSERT INTO public.children SELECT g, g FROM generate_series(1, 500) g;
"""


@pytest.fixture
def things(made: Callable[..., World]) -> World:
    return made(SCHEMA, heartbeat_seconds=0.3, fault_hooks=True)


@pytest.mark.parametrize(
    ("point", "stands"),
    [
        ("backups.published", False),
        pytest.param("restores.backed_up", False, marks=pytest.mark.long),
        pytest.param("restores.loaded", False, marks=pytest.mark.long),
        ("restores.proven", False),
        pytest.param("effect.before_commit", False, marks=pytest.mark.long),
        ("effect.after_commit", True),
        pytest.param("jobs.before_end", True, marks=pytest.mark.long),
    ],
)
def test_killed_at_any_point_the_backup_is_restored_once(
    point: str, stands: bool, things: World, start_worker: Start
) -> None:
    before = contents(things, "parents", "children")
    backup = back_up(things)
    things.sql("DELETE FROM public.parents WHERE id > 400; INSERT INTO public.parents VALUES (1000, 'late')")
    edited = contents(things, "parents", "children")
    row = confirm(things, plan(things, backup), work=False)
    worker = start_worker(things.resources.settings, kill=point)
    assert worker.wait() == -signal.SIGKILL
    # whoever reads waits for the dead worker's backend, which is gone within seconds
    assert contents(things, "parents", "children") == (before if stands else edited)

    take_over(things, row.restore_job_id)

    done = get(things, row.id)
    assert done.status == "COMPLETED", done.error
    assert contents(things, "parents", "children") == before
    with things.resources.db.transaction() as session:
        taken = session.scalars(select(BackupRow).where(BackupRow.trigger_type == "PRE_RESTORE")).all()
    assert [b.status for b in taken if b.id == done.pre_restore_backup_id] == ["COMPLETED"]
    assert not [b for b in taken if b.status == "PENDING"]
    again = plan(things, next(b for b in taken if b.id == done.pre_restore_backup_id))
    assert confirm(things, again).status == "COMPLETED"
    assert contents(things, "parents", "children") == edited  # what the restore took away was in that backup
