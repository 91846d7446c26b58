"""Increments: whatever happened since the parent, the chain gives the rows of its own moment, by either method."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import select, update

from engine.backups import chain, cut, known, take
from engine.backups import increment as increments
from engine.backups.manifest import Cut
from engine.backups.model import BackupRequest, BackupType, VerifyLevel
from engine.backups.run import remember
from engine.backups.segments import segment_name
from engine.backups.service import Backups
from engine.backups.verify import LEVELS, verify
from engine.db.models import BackupRow, JobEventRow, JobRow
from engine.db.platform import Connection
from engine.errors import DataLoss
from engine.jobs.registry import handlers
from engine.jobs.service import retry_job
from examples.stack.servers import PostgresServer
from tests.engine.backups.kit import Told, archive_of, live_rows, staged_rows
from tests.world import World

Fresh = Callable[[str], World]

THINGS = (
    "CREATE TABLE public.things (id int PRIMARY KEY, note text, updated_at timestamptz NOT NULL DEFAULT now());"
    "INSERT INTO public.things SELECT n, 'row ' || n FROM generate_series(1, 3000) n"
)
KEYLESS = (
    "CREATE TABLE public.things (a int, b text);"
    "INSERT INTO public.things SELECT n % 50, 'row ' || n % 7 FROM generate_series(1, 2000) n"
)
PARTS = (
    "CREATE TABLE public.things (id int, part int, note text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);"
    "CREATE TABLE public.p1 PARTITION OF public.things FOR VALUES IN (1);"
    "CREATE TABLE public.p2 PARTITION OF public.things FOR VALUES IN (2);"
    "CREATE TABLE public.other (id int NOT NULL, part int NOT NULL, note text);"
    "INSERT INTO public.other SELECT n, 2, 'old' FROM generate_series(1, 500) n;"
    "INSERT INTO public.things SELECT n, 1 + n % 2, 'row ' || n FROM generate_series(1, 1000) n"
)


@pytest.fixture
def fresh(fresh: Fresh) -> Fresh:
    """Without the backups of other tests: one of them would be a parent."""

    def make(schema: str) -> World:
        world = fresh(schema)
        with world.resources.db.transaction() as session:
            session.execute(update(BackupRow).values(status="DELETED"))
        return world

    return make


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


# --- what happened in between

BETWEEN = {
    "nothing": (THINGS, "SELECT 1", ("CANDIDATES", 0, 0)),
    "rows came": (
        THINGS,
        "INSERT INTO things SELECT n, 'new' FROM generate_series(5001, 5010) n",
        ("CANDIDATES", 10, 0),
    ),
    "rows changed": (THINGS, "UPDATE things SET note = 'other' WHERE id < 11", ("CANDIDATES", 10, 10)),
    "updated_at left alone, or back-dated": (
        THINGS,
        "UPDATE things SET note = 'x', updated_at = '2001-01-01' WHERE id = 7;"
        " UPDATE things SET note = 'y' WHERE id = 8",
        ("CANDIDATES", 2, 2),
    ),
    "written again as it was": (THINGS, "UPDATE things SET note = note WHERE id < 11", ("CANDIDATES", 0, 0)),
    "rows deleted": (THINGS, "DELETE FROM things WHERE id % 1000 = 0", ("CONTENT", 0, 3)),
    "one deleted, another inserted": (
        THINGS,
        "DELETE FROM things WHERE id = 1; INSERT INTO things VALUES (9000, 'new')",
        ("CONTENT", 1, 1),
    ),
    "deleted and inserted again, otherwise": (
        THINGS,
        "DELETE FROM things WHERE id = 1; INSERT INTO things VALUES (1, 'new')",
        ("CANDIDATES", 1, 1),
    ),
    "keys changed": (THINGS, "UPDATE things SET id = -id WHERE id < 4", ("CONTENT", 3, 3)),
    "keys exchanged": (
        THINGS,
        "UPDATE things SET id = -id WHERE id < 3; UPDATE things SET id = 3 + id WHERE id < 0",
        ("CANDIDATES", 2, 2),
    ),
    "truncated": (THINGS, "TRUNCATE things", ("CONTENT", 0, 3000)),
    "truncated and filled again": (
        THINGS,
        "TRUNCATE things; INSERT INTO things (id, note) SELECT n, 'row ' || n FROM generate_series(1, 3000) n",
        ("CONTENT", 3000, 3000),
    ),
    "rewritten": (THINGS, "UPDATE things SET note = 'z' WHERE id = 5; VACUUM FULL things", ("CONTENT", 1, 1)),
    "frozen": (THINGS, "UPDATE things SET note = 'z' WHERE id = 5; VACUUM FREEZE things", ("CANDIDATES", 1, 1)),
    "rolled back": (THINGS, "BEGIN; DELETE FROM things; ROLLBACK", ("CANDIDATES", 0, 0)),
    "made anew with the same rows": (
        THINGS,
        "CREATE TABLE copy AS TABLE things; DROP TABLE things;"
        " CREATE TABLE things (id int PRIMARY KEY, note text, updated_at timestamptz NOT NULL DEFAULT now());"
        " INSERT INTO things TABLE copy; DROP TABLE copy",
        ("CONTENT", 0, 0),
    ),
    "many rows changed": (THINGS, "UPDATE things SET note = 'w' WHERE id <= 2000", ("CONTENT", 2000, 2000)),
    "texts that COPY escapes": (
        THINGS,
        "UPDATE things SET note = E'a\\tb\\\\n\\r\\n' || repeat('x', 4500000) WHERE id IN (1, 3000)",
        ("CANDIDATES", 2, 2),
    ),
    "NULL and ''": (
        THINGS,
        "UPDATE things SET note = NULL WHERE id = 1; UPDATE things SET note = '' WHERE id = 2",
        ("CANDIDATES", 2, 2),
    ),
    "without a key: nothing": (KEYLESS, "SELECT 1", ("CANDIDATES", 0, 0)),
    "without a key: twins come and go": (
        KEYLESS,
        "DELETE FROM things WHERE ctid IN (SELECT ctid FROM things WHERE a = 3 LIMIT 5);"
        " INSERT INTO things SELECT 4, 'row 4' FROM generate_series(1, 3); INSERT INTO things VALUES (NULL, NULL)",
        None,
    ),
    "partitions: rows moved between them": (PARTS, "UPDATE things SET part = 2 WHERE id = 2 AND part = 1", None),
    "partitions: another one with as many old rows": (
        PARTS,
        "ALTER TABLE things DETACH PARTITION p2; ALTER TABLE things ATTACH PARTITION other FOR VALUES IN (2)",
        ("CONTENT", 500, 500),
    ),
    "a column dropped and added again": (
        THINGS,
        "ALTER TABLE things DROP updated_at, DROP note; ALTER TABLE things ADD note text DEFAULT 'x', ADD updated_at"
        " timestamptz NOT NULL DEFAULT '2001-01-01'; ALTER TABLE things ALTER note DROP DEFAULT,"
        " ALTER updated_at SET DEFAULT now()",
        ("CONTENT", 3000, 3000),
    ),
    "partitions: columns that exchange their names": (
        PARTS.replace("note text", "note text, other text"),
        "ALTER TABLE things DETACH PARTITION p2; ALTER TABLE p2 RENAME note TO n; ALTER TABLE p2 RENAME other TO note;"
        " ALTER TABLE p2 RENAME n TO other; ALTER TABLE things ATTACH PARTITION p2 FOR VALUES IN (2)",
        ("CONTENT", 500, 500),
    ),
    "partitions: nothing": (PARTS, "SELECT 1", ("CANDIDATES", 0, 0)),
}


@pytest.mark.parametrize("case", BETWEEN)
def test_whatever_happened_the_chain_gives_the_rows_of_now(fresh: Fresh, case: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chain, "LARGE", 1000)
    tables, happened, expected = BETWEEN[case]
    world = fresh(tables)
    full = backed_up(world)
    _run(world, happened)

    row = increment(world)
    assert (row.backup_type, row.parent_id, row.chain_id) == ("INCREMENTAL", full.id, full.id)
    proof, added, gone = delta_of(world, row)
    if expected is not None:
        assert (proof, added, gone) == expected

    with method(world, "content"):
        again = increment(world)
    assert delta_of(world, again) == ("CONTENT", 0, 0)
    assert staged_rows(world, archive_of(world, full), "things"), "the full backup stays as it was"


@pytest.mark.parametrize("case", ["rows changed", "rows deleted", "without a key: twins come and go"])
def test_by_content_the_same_is_found_in_several_passes(fresh: Fresh, case: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(known, "AT_ONCE", 700)
    tables, happened, expected = BETWEEN[case]
    world = fresh(tables)
    backed_up(world)
    _run(world, happened)
    with method(world, "content"):
        found = delta_of(world, increment(world))
    assert expected is None or found[1:] == expected[1:]


def _run(world: World, statements: str) -> None:
    with psycopg.connect(world.resources.platform.dsn, autocommit=True, options="-c search_path=public") as connection:
        for statement in statements.split("; "):
            connection.execute(statement.encode())


# --- transactions open across the cut


@pytest.mark.parametrize("savepoint", [False, True], ids=["plain", "savepoint"])
def test_what_was_open_across_the_cut_is_found(fresh: Fresh, savepoint: bool):
    world = fresh(THINGS)
    with psycopg.connect(world.resources.platform.dsn) as slow:
        slow.execute("UPDATE public.things SET note = 'before the cut' WHERE id = 1")
        if savepoint:
            slow.execute("SAVEPOINT a")
        slow.execute("UPDATE public.things SET note = 'also' WHERE id = 2")
        full = backed_up(world)
        if savepoint:
            slow.execute("RELEASE a; SAVEPOINT b")
        slow.execute("UPDATE public.things SET note = 'after' WHERE id = 3")
        for n in range(5):  # so that ids of later transactions lie beyond the slow one's
            world.sql(f"UPDATE public.things SET note = 'quick' WHERE id = {100 + n}")
        first = increment(world)
        slow.commit()
    second = increment(world)
    assert [row.parent_id for row in (first, second)] == [full.id, first.id]
    assert delta_of(world, first) == ("CANDIDATES", 5, 5)
    assert delta_of(world, second) == ("CANDIDATES", 3, 3)


# --- what candidates may not be concluded from


def _another(**other: int) -> Callable[[pytest.MonkeyPatch], None]:
    def distrust(monkeypatch: pytest.MonkeyPatch) -> None:
        real = cut.seen

        def seen(connection: Connection) -> cut.Seen:
            found = real(connection)
            assert found is not None
            return cut.Seen(replace(found.cut, **other), found.lsn)

        monkeypatch.setattr(cut, "seen", seen)

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
    monkeypatch.setattr(take, "seen", lambda _: cut.Seen(Cut(1, 1, 1, 1), "FFFFFFFF/0"))
    full = backed_up(world)
    assert archive_of(world, full).manifest.cut is None
    monkeypatch.undo()
    assert delta_of(world, increment(world)) == ("CONTENT", 0, 0)


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


def test_every_fourth_link_is_compared_by_content(fresh: Fresh, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chain, "LARGE", 1000)
    world = fresh(THINGS)
    backed_up(world)
    proofs = []
    for n in range(chain.MOST_LINKS):
        world.sql(f"UPDATE public.things SET note = 'x' WHERE id = {n + 1}")
        proofs.append(delta_of(world, increment(world))[0])
    assert proofs == ["CANDIDATES"] * 3 + ["CONTENT"] + ["CANDIDATES"] * 3
    assert increment_is_full(world, f"its chain has {chain.MOST_LINKS} increments")


# --- where a full backup is made instead


def increment_is_full(world: World, why: str) -> bool:
    row = increment(world)
    with world.resources.db.transaction() as session:
        events = session.scalars(select(JobEventRow).filter_by(job_id=row.job_id, kind="NOTICE")).all()
    notices = [(event.payload["message"],) for event in events]
    assert any(why in message for (message,) in notices), notices
    assert (row.parent_id, row.chain_id) == (None, row.id)
    assert why in row.full_because
    return row.backup_type == "FULL"


def test_the_first_is_full(fresh: Fresh):
    assert increment_is_full(fresh(THINGS), "no good backup of the same entities")


def test_another_definition_makes_it_full(fresh: Fresh):
    world = fresh(THINGS)
    backed_up(world)
    world.sql("ALTER TABLE public.things ADD extra int DEFAULT 5")
    world.resources.catalogs.forget()
    assert increment_is_full(world, "its definition is another")


def test_what_prints_otherwise_without_a_write_is_seen(fresh: Fresh):
    """A regclass names its table: after a rename the stored value is the same, its text is not."""
    world = fresh(
        "CREATE TABLE public.named (); CREATE TABLE public.things (id int PRIMARY KEY, what regclass);"
        "INSERT INTO public.things VALUES (1, 'public.named'), (2, 'public.things')"
    )
    backed_up(world)
    world.sql("ALTER TABLE public.named RENAME TO renamed")
    assert increment_is_full(world, "does not read any more")


def test_another_scope_makes_it_full(fresh: Fresh):
    world = fresh(THINGS + "; CREATE TABLE public.more (id int PRIMARY KEY)")
    backed_up(world, BackupType.FULL, "things", "more")
    assert increment_is_full(world, "no good backup of the same entities")


def test_large_increments_end_the_chain(fresh: Fresh):
    world = fresh(THINGS)
    backed_up(world)
    world.sql("UPDATE public.things SET note = md5(id::text) || md5(id::text || 'x')")
    assert increment(world).backup_type == "INCREMENTAL"
    assert increment_is_full(world, "50% of the size of its full backup")


def test_a_parent_with_a_lost_object_makes_it_full(fresh: Fresh):
    world = fresh(THINGS)
    full = backed_up(world)
    storage = world.resources.repository._storage
    (name, *_) = [f.name for f in storage.list(segment_name(artifact_of(full), ""))]
    storage.delete(name)
    assert increment_is_full(world, "missing or of another length")


def test_a_damaged_link_anywhere_in_the_chain_makes_it_full(fresh: Fresh):
    world = fresh(THINGS)
    full = backed_up(world)
    increment(world)
    with world.resources.db.transaction() as session:
        remember(
            session.merge(full), LEVELS[-1], DataLoss("its rows", reason="BACKUP_DAMAGED"), world.resources.clock()
        )
    assert increment_is_full(world, "or one that it needs, was found damaged")


def test_damage_of_a_link_that_was_found_through_its_increment_is_that_links_too(fresh: Fresh):
    """Else the link would go on as good: as a parent, and in the floor of retention in place of a sound one."""
    world = fresh(THINGS)
    full, other = backed_up(world), increment(world)
    storage = world.resources.repository._storage
    (name, *_) = [f.name for f in storage.list(segment_name(artifact_of(full), ""))]
    storage.delete(name)

    backups = Backups(world.resources)
    backups.verify(world.caller, other.id, VerifyLevel.DECODED, *world.request())
    world.work()

    for row in (full, other):
        found = backups.get(world.caller, row.id).verifications["DECODED"]
        assert (found["good"], found["error"]["metadata"]["backup_id"]) == (False, str(full.id))
        assert f"backup {full.id}: 1 of" in found["error"]["message"]


def test_a_retry_does_not_take_up_an_increment_whose_parent_was_deleted(fresh: Fresh):
    """Published, then its job failed, and nobody kept the parent; whose bytes go a moment after its record."""
    world = fresh(THINGS)
    full = backed_up(world)
    row = backed_up(world, BackupType.INCREMENTAL)
    now = world.resources.clock()
    with world.resources.db.transaction() as session:
        session.get_one(BackupRow, row.id).status = "FAILED"
        session.get_one(BackupRow, full.id).status = "DELETED"
        job = session.get_one(JobRow, row.job_id)
        job.state, job.error = "FAILED", {"retryable": True}
        retry_job(session, job.id, intent_id=job.intent_id, now=now, handlers=handlers())
    world.work()
    done = Backups(world.resources).get(world.caller, row.id)
    assert (done.status, done.backup_type, done.parent_id) == ("COMPLETED", "FULL", None), done.error


def test_sums_that_do_not_add_up_make_it_full(fresh: Fresh, monkeypatch: pytest.MonkeyPatch):
    """As hashes that collided would: the changed line is taken for known."""
    world = fresh(THINGS)
    backed_up(world)
    world.sql("UPDATE public.things SET note = 'x' WHERE id = 1")
    real = known.Known.take

    def blind(self: known.Known, lines: list[bytes]) -> list[bytes]:
        return [line for line in real(self, lines) if b"\tx\t" not in line]

    monkeypatch.setattr(known.Known, "take", blind)
    with method(world, "content"):
        assert increment_is_full(world, "does not add up")


# --- chains


def test_a_chain_is_bound_together(fresh: Fresh):
    world = fresh(THINGS)
    full = backed_up(world)
    world.sql("DELETE FROM public.things WHERE id < 10")
    row = increment(world)
    archive = archive_of(world, row)
    assert [link.manifest.backup_id for link in archive.chain] == [full.id, row.id]
    assert archive.manifest.format == 2
    world.resources.repository.delete(artifact_of(full))
    with pytest.raises(DataLoss, match="its parent") as caught:
        archive_of(world, row)
    assert caught.value.reason == "BACKUP_INCOMPLETE"
