"""Conditions under which backups are tried."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from engine.backups import take as taking
from engine.backups.repository import Repository
from engine.db.models import BackupRow
from engine.storage.memory import MemoryStorage
from tests.engine.backups.bench import RING, Diary
from tests.world import World


@pytest.fixture
def no_backups(shared_world: World) -> None:
    """Those of other tests are gone: one of them would be a parent."""
    with shared_world.resources.db.transaction() as session:
        session.execute(update(BackupRow).values(status="DELETED"))


@pytest.fixture
def two_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tables are read in one; here each case is that of large ones, unless it says otherwise."""
    monkeypatch.setattr(taking, "APART_BYTES", 0)


@pytest.fixture
def long_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests of several parts, as only a backup of some 100,000 segments has them."""
    monkeypatch.setattr("engine.backups.repository.MAX_PART_BYTES", 2_000)


@pytest.fixture
def storage() -> Diary:
    return Diary(MemoryStorage())


@pytest.fixture
def repository(storage: Diary) -> Repository:
    return Repository(storage, RING)
