"""Nothing is restored but what was planned, shown and confirmed; what goes wrong leaves everything as it was."""

from __future__ import annotations

import base64
import threading
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import select

from engine.backups.service import Backups
from engine.db.models import BackupRow, JobRow, RestoreRow, RoleRow
from engine.errors import Aborted, DataOpsError, FailedPrecondition, InvalidRequest, PermissionDenied
from engine.faults import InjectedFault
from engine.imports.model import ChangeKind
from engine.jobs.calls import Jobs
from engine.paging import Paging
from engine.restores.service import Restores
from engine.restores.structure import Structure
from tests.engine.jobs.kit import wait_until
from tests.engine.restores.kit import back_up, confirm, contents, get, plan, restore

PAIR = """
CREATE TABLE public.parents (id int PRIMARY KEY, name text NOT NULL, password text);
CREATE TABLE public.children (id int PRIMARY KEY, parent int NOT NULL REFERENCES public.parents);
INSERT INTO public.parents SELECT g, 'p' || g, 'secret' || g FROM generate_series(1, 10) g;
INSERT INTO public.children SELECT g, g FROM generate_series(1, 10) g;
"""


@pytest.fixture
def pair(made):
    """A backup of two tables, then edited: two parents are others, one is new, one child is gone."""
    world = made(PAIR)
    backup = back_up(world)
    world.sql("UPDATE public.parents SET name = 'edited', password = 'new' WHERE id < 3")
    world.sql("INSERT INTO public.parents VALUES (11, 'late'); DELETE FROM public.children WHERE id = 10")
    return world, backup


def attempt(world, row, **changed):
    asked = {"plan_digest": row.plan_digest, "phrase": row.confirmation_phrase} | changed
    return Restores(world.resources).confirm(world.caller, row.id, *asked.values(), *world.request())


def test_losses_are_counted_and_listed_without_secrets(pair):
    world, backup = pair

    row = plan(world, backup)

    entities = {e["entity"]: (e["rows_now"], e["rows_lost"], e["rows_changed"]) for e in row.plan["entities"]}
    assert entities == {"parents": (11, 1, 2), "children": (9, 0, 0)}
    page, token = Restores(world.resources).losses(world.caller, row.id, Paging(50))
    assert not token
    shown = [(change.kind, change.key, {f.field: (f.old, f.new) for f in change.fields}) for _, change in page]
    assert (ChangeKind.DELETE, {"id": "11"}) in [(kind, key) for kind, key, _ in shown]
    assert (ChangeKind.UPDATE, {"id": "1"}, {"name": ("edited", "p1"), "password": ("***", "***")}) in shown
    assert len(shown) == 3


def test_the_phrase_says_what_will_be_lost(pair):
    world, backup = pair
    assert plan(world, backup).confirmation_phrase.startswith("restore 2 entities and lose 3 rows ")
    assert plan(world, backup, "children").confirmation_phrase.startswith("restore children and lose 0 rows ")


def test_another_phrase_or_digest_starts_nothing(pair):
    world, backup = pair
    row = plan(world, backup)

    for changed, reason in (({"phrase": "restore"}, "PHRASE_WRONG"), ({"phrase": ""}, "PHRASE_WRONG")):
        with pytest.raises(FailedPrecondition) as caught:
            attempt(world, row, **changed)
        assert caught.value.reason == reason
    with pytest.raises(Aborted, match="PLAN_DIGEST_MISMATCH"):
        attempt(world, row, plan_digest=bytes(32))

    assert world.work() == 0
    assert get(world, row.id).status == "AWAITING_CONFIRMATION"


def test_a_phrase_is_good_once_and_for_a_while(pair):
    world, backup = pair
    row = plan(world, backup)
    confirm(world, row)

    with pytest.raises(FailedPrecondition, match="RESTORE_STATE"):
        attempt(world, row)

    late = plan(world, backup)
    with world.resources.db.transaction() as session:
        session.get(RestoreRow, late.id).plan_expires_at -= timedelta(minutes=16)
    with pytest.raises(FailedPrecondition, match="PLAN_EXPIRED"):
        attempt(world, late)
    assert Restores(world.resources).expire(world.resources.clock()) == 1
    assert get(world, late.id).status == "EXPIRED"


def test_confirming_twice_starts_one_restore(pair):
    world, backup = pair
    row = plan(world, backup)

    first = confirm(world, row, work=False)
    again = attempt(world, row)

    assert first.restore_job_id == again.restore_job_id


def test_more_losses_than_confirmed_undo_it(pair):
    world, backup = pair
    row = plan(world, backup)
    world.sql("INSERT INTO public.parents VALUES (12, 'later'), (13, 'later')")
    before = contents(world, "parents", "children")

    done = confirm(world, row)

    assert (done.status, world.reason(done)) == ("ROLLED_BACK", "LOSSES_MOVED")
    assert contents(world, "parents", "children") == before

    row = plan(world, backup)
    world.sql("INSERT INTO public.parents VALUES (14, 'latest')")
    with pytest.raises(InvalidRequest, match="OPTION_INVALID"):
        confirm(world, row, max_losses=1)
    done = confirm(world, row, max_losses=100)
    assert done.status == "COMPLETED", done.error
    assert {e["entity"]: e["rows_lost"] for e in done.report["entities"]} == {"parents": 4, "children": 0}


def test_a_definition_that_moved_since_the_plan_undoes_it(pair):
    world, backup = pair
    row = plan(world, backup)
    world.sql("ALTER TABLE public.parents ADD CONSTRAINT new CHECK (id > 0)")

    done = confirm(world, row)

    assert (done.status, world.reason(done)) == ("ROLLED_BACK", "DEFINITIONS_MOVED")
    assert world.sql("SELECT count(*) FROM public.parents") == [(11,)]


def test_damage_is_found_before_anything_is_locked(pair):
    world, backup = pair
    row = plan(world, backup)
    with world.resources.db.transaction() as session:
        manifest = Backups(world.resources).archive(session.get_one(BackupRow, backup.id)).manifest
    name = next(s.name for s in manifest.segments if s.stream == "0")
    segment = Path(world.resources.settings.artifacts, "segments", manifest.artifact_id.hex, name)
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    before = contents(world, "parents", "children")

    done = confirm(world, row)

    assert (done.status, world.reason(done)) == ("FAILED", "PART_DAMAGED")
    assert done.pre_restore_backup_id is None
    assert contents(world, "parents", "children") == before


@pytest.mark.parametrize("point", ["restores.backed_up", "restores.loaded", "restores.proven"])
def test_trouble_at_any_point_leaves_everything_as_it_was(pair, monkeypatch, point):
    world, backup = pair
    before = contents(world, "parents", "children")
    row = plan(world, backup)

    def fail(name):
        if name == point:
            raise InjectedFault(name)

    monkeypatch.setattr("engine.restores.transaction.fault", fail)
    monkeypatch.setattr("engine.restores.run.fault", fail)

    done = confirm(world, row)

    assert done.status in ("FAILED", "ROLLED_BACK")
    assert contents(world, "parents", "children") == before


def test_rows_that_are_not_the_backups_are_not_committed(pair, monkeypatch):
    """A table that did not take what it was given: here a row is lost on the way in."""
    world, backup = pair
    before = contents(world, "parents", "children")
    row = plan(world, backup)
    put_up = Structure.put_up

    def lose(self):
        put_up(self)
        self._connection.execute("DELETE FROM public.children WHERE id = 5")

    monkeypatch.setattr(Structure, "put_up", lose)

    done = confirm(world, row)

    assert (done.status, world.reason(done)) == ("ROLLED_BACK", "RESTORE_NOT_EQUAL")
    assert contents(world, "parents", "children") == before


def test_definitions_that_are_not_as_before_are_not_committed(pair, monkeypatch):
    world, backup = pair
    row = plan(world, backup)
    monkeypatch.setattr(Structure, "put_up", lambda self: None)

    done = confirm(world, row)

    assert (done.status, world.reason(done)) == ("ROLLED_BACK", "DEFINITIONS_NOT_EQUAL")


def test_what_was_confirmed_is_not_run_a_second_time(pair, monkeypatch):
    """RetryJob only finds out whether the effect stands."""
    world, backup = pair
    before = contents(world, "parents", "children")
    row = confirm(world, plan(world, backup), work=False)
    with world.resources.db.transaction() as session:
        session.get(JobRow, row.restore_job_id).max_attempts = 1
    monkeypatch.setattr("engine.imports.locks.LOCK_SECONDS", 0.1)
    with psycopg.connect(world.resources.platform.dsn) as reader:
        reader.execute("SELECT FROM public.parents")
        world.work()
    assert get(world, row.id).status in ("FAILED", "ROLLED_BACK")
    jobs = Jobs(world.resources.db, world.resources.bell, world.resources.clock)

    jobs.retry(world.caller, row.restore_job_id, *world.request())
    world.work()

    assert world.reason(get(world, row.id)) == "RESTORE_STATE"
    assert contents(world, "parents", "children") == before


def test_an_end_that_could_not_be_written_is_written_by_a_retry(pair, monkeypatch):
    """The rows are in; what failed is the record."""
    world, backup = pair
    row = confirm(world, plan(world, backup), work=False)

    def broken(*_):
        raise FailedPrecondition("the record cannot be written", reason="BROKEN")

    monkeypatch.setattr("engine.restores.run.RestoreHandler._end", broken)
    with world.resources.db.transaction() as session:
        session.get(JobRow, row.restore_job_id).max_attempts = 1
    world.work()
    assert get(world, row.id).status == "FAILED"
    monkeypatch.undo()
    with world.resources.db.transaction() as session:
        job = session.get(JobRow, row.restore_job_id)
        job.error = job.error | {"retryable": True}
    jobs = Jobs(world.resources.db, world.resources.bell, world.resources.clock)

    jobs.retry(world.caller, row.restore_job_id, *world.request())
    world.work()

    assert get(world, row.id).status == "COMPLETED"
    assert Backups(world.resources).get(world.caller, backup.id).status == "RESTORED"


def test_a_writer_waits_and_a_reader_is_waited_for(pair):
    world, backup = pair
    row = plan(world, backup)
    with psycopg.connect(world.resources.platform.dsn) as reader:
        reader.execute("SELECT FROM public.parents")
        thread = threading.Thread(target=confirm, args=(world, row))
        thread.start()
        waits = "SELECT 1 FROM pg_locks WHERE relation = 'public.parents'::regclass AND NOT granted"
        wait_until(lambda: bool(world.sql(waits)), 50)
        assert get(world, row.id).status == "PROCESSING"
        reader.rollback()
        thread.join(60)

    assert get(world, row.id).status == "COMPLETED"


def test_another_person_approves(made):
    world = made(PAIR, restore_needs_approval=True)
    backup = back_up(world)
    world.sql("DELETE FROM public.children")
    row = plan(world, backup)
    assert row.plan["approval_needed"]
    waiting = confirm(world, row)
    assert waiting.status == "AWAITING_APPROVAL"
    restores = Restores(world.resources)

    with pytest.raises(PermissionDenied, match="APPROVAL_BY_ANOTHER"):
        restores.approve(world.caller, row.id, row.plan_digest)
    with pytest.raises(PermissionDenied, match="PERMISSION_MISSING"):
        restores.approve(world.caller_with("admin", "anne"), row.id, row.plan_digest)
    restores.approve(world.caller_with("super_admin", "eve"), row.id, row.plan_digest)
    world.work()

    assert get(world, row.id).status == "COMPLETED"
    assert world.sql("SELECT count(*) FROM public.children") == [(10,)]


def test_who_only_approves_need_not_be_able_to_confirm(made):
    world = made(PAIR, restore_needs_approval=True)
    backup = back_up(world)
    row = plan(world, backup)
    confirm(world, row)
    now = world.resources.clock()
    with world.resources.db.transaction() as session:
        session.add(
            RoleRow(name="second pair of eyes", permissions=["restores.read", "restores.approve"], updated_at=now)
        )
    Restores(world.resources).approve(world.caller_with("second pair of eyes", "olga"), row.id, row.plan_digest)
    world.work()

    done = get(world, row.id)
    assert done.status == "COMPLETED", done.error
    assert world.job(done.restore_job_id).principal_id == world.caller.principal_id


def test_only_the_super_admin_restores(pair):
    world, backup = pair
    admin = world.caller_with("admin", "anne")
    row = plan(world, backup)
    restores = Restores(world.resources)

    for call in (
        lambda: restores.get(admin, row.id),
        lambda: restores.confirm(admin, row.id, row.plan_digest, row.confirmation_phrase, *world.request()),
        lambda: restores.cancel(admin, row.id),
    ):
        with pytest.raises(PermissionDenied, match="PERMISSION_MISSING"):
            call()


def test_a_backup_that_a_restore_needs_cannot_be_deleted(pair):
    world, backup = pair
    row = plan(world, backup)
    backups = Backups(world.resources)

    with pytest.raises(FailedPrecondition, match="BACKUP_IN_USE"):
        backups.delete(world.caller, backup.id)

    Restores(world.resources).cancel(world.caller, row.id)
    assert backups.delete(world.caller, backup.id).status == "DELETED"
    with pytest.raises(FailedPrecondition, match="BACKUP_STATE"):
        plan(world, backup)


def test_owner_rights_are_enough_and_missing_ones_are_told(made, make_world, empty_dsn):
    world = made(PAIR)
    backup = back_up(world)
    world.sql("DELETE FROM public.children WHERE id = 1")
    world.sql("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN PASSWORD 'p'")
    world.sql("GRANT USAGE, CREATE ON SCHEMA public TO plain; GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain")
    database = world.sql("SELECT current_database()")[0][0]
    world.sql(f'GRANT CREATE, TEMPORARY ON DATABASE "{database}" TO plain')
    user = psycopg.conninfo.conninfo_to_dict(empty_dsn)
    other = make_world(f"postgresql://plain:p@{user['host']}:{user['port']}/{user['dbname']}")
    try:
        row = plan(other, backup)
        assert other.reason(row) == "RIGHTS_MISSING"
        assert "ALTER TABLE" in row.error["metadata"]["sql"]

        for statement in row.error["metadata"]["sql"].splitlines():
            world.sql(statement)
        restore(other, backup)

        assert world.sql("SELECT count(*) FROM public.children") == [(10,)]
    finally:
        world.sql("DROP SCHEMA IF EXISTS dataops_work CASCADE; REASSIGN OWNED BY plain TO CURRENT_USER")
        world.sql("DROP OWNED BY plain; DROP ROLE plain")


@pytest.mark.parametrize(("key_id", "reason"), [("other", "KEY_UNKNOWN"), ("test", "KEY_WRONG")])
def test_a_missing_or_wrong_key_is_told_at_the_call(pair, make_world, tmp_path, key_id, reason):
    world, backup = pair
    ring = tmp_path / "ring"
    ring.write_text(f"{key_id} {base64.b64encode(bytes(range(1, 33))).decode()}\n")
    other = make_world(world.resources.platform.dsn, key_file=ring)

    with pytest.raises(DataOpsError) as caught:
        plan(other, backup)

    assert caught.value.reason == reason
    assert other.work() == 0
    with other.resources.db.transaction() as session:
        assert session.scalars(select(RestoreRow)).all() == []
