"""What candidates may not be concluded from: there an increment is compared by content."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from psycopg import sql

from engine.backups import cut, take
from engine.backups import increment as increments
from engine.backups.manifest import Cut
from engine.backups.model import BackupType
from engine.db.models import BackupRow
from engine.db.platform import Connection, one_row
from examples.stack.servers import PostgresServer
from tests.engine.backups.chains import THINGS, backed_up, delta_of, increment
from tests.engine.backups.kit import archive_of
from tests.world import World

Fresh = Callable[[str], World]

pytestmark = pytest.mark.usefixtures("no_backups")


def _another(**other: int) -> Callable[[pytest.MonkeyPatch], None]:
    def distrust(monkeypatch: pytest.MonkeyPatch) -> None:
        real = cut.seen

        def seen(connection: Connection) -> cut.Seen:
            found = real(connection)
            assert found is not None
            return replace(found, cut=replace(found.cut, **other))

        monkeypatch.setattr(take, "seen", seen)

    return distrust


def _wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut, "MOST_TRANSACTIONS", 0)


@pytest.mark.parametrize(
    "distrust",
    [_another(timeline=99), _another(database=99), _another(started=99), _wrapped],
    ids=["timeline", "database", "start", "ids"],
)
def test_where_ids_mean_nothing_content_decides(fresh: Fresh, monkeypatch: pytest.MonkeyPatch, distrust):
    world = fresh(THINGS)
    backed_up(world)
    world.sql("UPDATE public.things SET note = 'x' WHERE id = 1")
    distrust(monkeypatch)
    assert delta_of(world, increment(world)) == ("CONTENT", 1, 1)


def test_a_snapshot_that_a_crash_could_undo_leaves_no_cut(fresh: Fresh, monkeypatch: pytest.MonkeyPatch):
    world = fresh(THINGS)
    monkeypatch.setattr(cut, "FLUSHED_WITHIN", 0.2)
    monkeypatch.setattr(take, "seen", lambda _: cut.Seen(Cut(1, 1, 1, 1), 2, "FFFFFFFF/0"))
    full = backed_up(world)
    assert archive_of(world, full).manifest.cut is None
    monkeypatch.undo()
    assert delta_of(world, increment(world)) == ("CONTENT", 0, 0)


def test_a_machine_that_stood_still_is_no_reason_to_do_without_a_cut(fresh: Fresh, monkeypatch: pytest.MonkeyPatch):
    """An hour goes by between the first two looks at what has been flushed."""
    world, still = fresh(THINGS), Still()

    def seen(connection: Connection) -> cut.Seen:
        found = real(connection)
        assert found is not None
        ahead = sql.SQL("SELECT ({}::pg_lsn + 8)::text").format(sql.Literal(found.lsn))  # less than a commit writes
        return replace(found, lsn=one_row(connection, ahead)[0])

    real = cut.seen
    monkeypatch.setattr(take, "seen", seen)
    monkeypatch.setattr(cut, "time", still)
    monkeypatch.setattr(cut, "FLUSHED_WITHIN", 60.0)
    assert archive_of(world, backed_up(world)).manifest.cut is not None
    assert still.passed


class Still:
    """A clock that goes on by an hour in each sleep."""

    passed = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.passed

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
        self.passed += 3600.0


def test_candidates_that_are_too_large_to_be_held_are_compared_by_content(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(increments, "MOST_CANDIDATE_BYTES", 1000)
    world = fresh(THINGS)
    backed_up(world)
    world.sql("UPDATE public.things SET note = repeat('x', 100) WHERE id = 1")
    assert delta_of(world, increment(world)) == ("CANDIDATES", 1, 1)
    world.sql("UPDATE public.things SET note = repeat('y', 1000) WHERE id = 1")
    assert delta_of(world, increment(world)) == ("CONTENT", 1, 1)


def test_the_backup_before_an_import_is_nobodys_parent_and_has_no_cut(fresh: Fresh):
    """It would wait for WAL to be flushed, on which nothing depends; one before a restore with all locks held."""
    world = fresh(THINGS)
    parent = backed_up(world)
    row = world.load("things", b"id,note\n4000,new\n")
    with world.resources.db.transaction() as session:
        leaf = session.get_one(BackupRow, row.pre_import_backup_id)
    assert (leaf.backup_type, leaf.parent_id, archive_of(world, leaf).manifest.cut) == ("INCREMENTAL", parent.id, None)
    assert archive_of(world, parent).manifest.cut is not None


def test_a_role_that_may_not_ask_where_wal_stands(fresh: Fresh, monkeypatch: pytest.MonkeyPatch):
    world = fresh(THINGS)
    world.sql(
        "DO $$BEGIN CREATE ROLE unasked; EXCEPTION WHEN duplicate_object THEN NULL; END$$;"
        " GRANT USAGE ON SCHEMA public TO unasked; GRANT SELECT ON public.things TO unasked;"
        " REVOKE EXECUTE ON FUNCTION pg_current_wal_insert_lsn() FROM PUBLIC"
    )
    platform = world.resources.platform
    monkeypatch.setattr(platform, "dsn", f"{platform.dsn}{'&' if '?' in platform.dsn else '?'}options=-crole%3Dunasked")
    assert archive_of(world, backed_up(world)).manifest.cut is None
    assert delta_of(world, backed_up(world, BackupType.INCREMENTAL)) == ("CONTENT", 0, 0)
    monkeypatch.undo()
    world.sql("GRANT EXECUTE ON FUNCTION pg_current_wal_insert_lsn() TO PUBLIC")


def test_an_older_copy_in_the_place_of_the_database(postgres: PostgresServer, make_world: Callable[..., World]):
    """It has the same name and the same heaps, and no row of it was written since the parent."""
    world = make_world(postgres.create_database("original"))
    world.sql(THINGS)
    postgres.create_database("older", "original")
    world.sql("UPDATE public.things SET note = 'after the copy' WHERE id = 1")
    backed_up(world)
    with postgres.connect() as connection:
        connection.execute("ALTER DATABASE original RENAME TO newer")
        connection.execute("ALTER DATABASE older RENAME TO original")
    assert delta_of(world, increment(world)) == ("CONTENT", 1, 1)
    for name in ("original", "newer"):
        postgres.drop_database(name)
