"""The control schema: models and migrations say the same, and nobody works on a revision it does not know."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text

from engine.db import migrate, revision
from engine.db.database import Database
from engine.errors import FailedPrecondition, Unavailable


@pytest.fixture
def control(control_dsn: str) -> Iterator[Database]:
    database = Database(control_dsn, pool_size=1)
    yield database
    database.close()


def test_models_and_migrations_agree(control: Database) -> None:
    assert migrate.differences(control.engine) == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE dataops.jobs DROP COLUMN stage",
        "ALTER TABLE dataops.jobs ADD COLUMN extra text",
        "ALTER TABLE dataops.jobs ALTER COLUMN stage TYPE integer USING 0",
        "ALTER TABLE dataops.jobs ALTER COLUMN stage DROP NOT NULL",
        "DROP TABLE dataops.leases",
        "CREATE TABLE dataops.extra (id integer)",
    ],
)
def test_a_table_that_differs_from_its_model_is_found(control: Database, change: str) -> None:
    with control.transaction() as session:
        session.execute(text(change))

    assert migrate.differences(control.engine)


def test_a_schema_at_head_may_be_worked_on(control: Database) -> None:
    assert revision.require_revision(control.engine) >= revision.MIN_REVISION


def test_a_revision_that_nobody_here_knows_is_refused(control: Database) -> None:
    with control.transaction() as session:
        session.execute(text("UPDATE dataops.alembic_version SET version_num = '9999'"))

    with pytest.raises(FailedPrecondition, match=r"SCHEMA_REVISION.*found revision 9999"):
        revision.require_revision(control.engine)


def test_a_revision_older_than_the_least_is_refused(control: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revision, "known_revisions", lambda: ["0004", "0005", "0006"])
    monkeypatch.setattr(revision, "MIN_REVISION", "0005")

    with pytest.raises(FailedPrecondition, match=r"found revision 0004, expected 0005 to 0006"):
        revision.require_revision(control.engine)


def test_a_database_without_the_schema_is_refused(empty_dsn: str) -> None:
    database = Database(empty_dsn, pool_size=1)
    with pytest.raises(FailedPrecondition, match="SCHEMA_REVISION"):
        revision.require_revision(database.engine)
    database.close()


def test_a_database_that_is_away_has_a_reason() -> None:
    database = Database("postgresql://nobody:hunter2@127.0.0.1:1/none", pool_size=1)
    with pytest.raises(Unavailable, match="CONTROL_UNREACHABLE") as caught:
        revision.require_revision(database.engine)
    assert "hunter2" not in str(caught.value)
    database.close()


def test_two_upgrades_at_once_wait_for_each_other(empty_dsn: str) -> None:
    with ThreadPoolExecutor(2) as both:
        list(both.map(migrate.upgrade, [empty_dsn, empty_dsn]))

    database = Database(empty_dsn, pool_size=1)
    assert revision.require_revision(database.engine)
    database.close()


def test_the_names_of_the_files_say_which_revisions_there_are() -> None:
    scripts = ScriptDirectory(str(revision.MIGRATIONS))

    assert revision.known_revisions() == [s.revision for s in reversed(list(scripts.walk_revisions()))]
