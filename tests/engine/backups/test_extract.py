"""ExtractBackupRows: some rows of a backup as an import that is looked at and applied as any other."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from sqlalchemy import select, text

from engine.access import Caller
from engine.backups.model import ExtractRequest, RowKey
from engine.backups.service import Backups
from engine.db.models import ArtifactRow, BackupRow, ImportRow, RoleRow, UploadRow
from engine.errors import DataOpsError, FailedPrecondition, InvalidRequest, NotFound, PermissionDenied, Unavailable
from engine.imports.model import ChangeKind
from engine.paging import Paging
from engine.uploads.service import Uploads
from tests.engine.backups.kit import back_up, caller_with
from tests.engine.exports.test_every_type import Everything
from tests.every_type import LONG, make_types
from tests.world import World

USERS = (
    "CREATE TABLE public.users (id int PRIMARY KEY, name text, amount numeric(9, 2), password text NOT NULL,"
    " twice numeric GENERATED ALWAYS AS (amount * 2) STORED)"
)


@pytest.fixture
def world(fresh) -> World:
    found: World = fresh(USERS)
    found.sql("INSERT INTO public.users SELECT g, 'n' || g, g, 'hash' || g FROM generate_series(1, 50) g")
    return found


def keys(*numbers: object, field: str = "id") -> tuple[RowKey, ...]:
    return tuple(RowKey(((field, str(number)),)) for number in numbers)


def begin(
    world: World,
    backup: BackupRow,
    wanted: tuple[RowKey, ...],
    entity: str = "users",
    caller: Caller | None = None,
    mode: str = "UPSERT",
) -> ImportRow:
    request = ExtractRequest(backup.id, entity, wanted, mode)
    return Backups(world.resources).extract(caller or world.caller, request, *world.request())


def extract(world: World, backup: BackupRow, wanted: tuple[RowKey, ...], *arguments: Any, **options: Any) -> ImportRow:
    row = begin(world, backup, wanted, *arguments, **options)
    world.work()
    return world.imports.get(world.caller, row.id)


def upload_of(world: World, row: ImportRow) -> UploadRow:
    with world.resources.db.transaction() as session:
        return session.get_one(UploadRow, row.upload_id)


def notices(row: ImportRow) -> dict[str, str]:
    return {n["code"]: n["message"] for n in (row.plan_summary or {})["notices"]}


def counts(row: ImportRow) -> dict[str, int]:
    return {k: v for k, v in (row.plan_summary or {})["counts"].items() if v}


def test_the_rows_that_were_lost_come_back_as_they_were(world):
    before = world.sql("SELECT * FROM public.users ORDER BY id")
    backup = back_up(world)
    world.sql("DELETE FROM public.users WHERE id <= 40; UPDATE public.users SET name = 'x' WHERE id = 41")

    row = extract(world, backup, keys(*range(1, 42)))

    assert (row.status, row.import_type, row.entity_types) == ("AWAITING_APPROVAL", "UPSERT", ["users"]), row.error
    assert counts(row) == {"total": 41, "insert": 40, "update": 1}
    assert "ROWS_NOT_IN_BACKUP" not in notices(row)
    assert world.sql("SELECT count(*) FROM public.users") == [(10,)], "nothing is done before it is applied"
    assert world.apply(row).status == "COMPLETED"
    assert world.sql("SELECT * FROM public.users ORDER BY id") == before


def test_the_plan_is_looked_at_as_any_other(world):
    backup = back_up(world)
    world.sql("UPDATE public.users SET name = 'x' WHERE id = 3")

    row = extract(world, backup, keys(3, 4))

    page, _ = world.imports.changes(world.caller, row.id, Paging(), (ChangeKind.UPDATE,))
    assert [(c.key, [(f.field, f.old, f.new) for f in c.fields]) for _, c in page] == [
        ({"id": "3"}, [("name", "x", "n3")])
    ]
    assert counts(row) == {"total": 2, "update": 1, "unchanged": 1}


def test_rows_that_the_backup_lacks_are_counted_on_the_plan(world):
    backup = back_up(world)

    row = extract(world, backup, keys(1, 2, 51, 52, 53, 1))

    assert notices(row)["ROWS_NOT_IN_BACKUP"] == "3 of the rows asked for are not in the backup"
    assert counts(row) == {"total": 2, "unchanged": 2}


def test_none_of_them_in_the_backup_is_an_error(world):
    row = extract(world, back_up(world), keys(51, 52))

    assert (row.status, world.reason(row)) == ("FAILED", "ROWS_NOT_IN_BACKUP")


def test_keys_name_the_fields_of_the_key_and_nothing_else(world):
    backup = back_up(world)
    wrong = [
        (),
        keys(1, field="name"),
        (RowKey((("id", "1"), ("name", "n1"))),),
        (RowKey((("id", "1"), ("id", "2"))),),
        (RowKey((("id", None),)),),
        (RowKey((("id", "1\0"),)),),
        (*keys(1), RowKey(())),
    ]

    for found in wrong:
        with pytest.raises(InvalidRequest) as caught:
            begin(world, backup, found)
        assert caught.value.reason == "KEY_INVALID"
    row = extract(world, backup, keys("secret words"))
    assert (world.reason(row), "secret words" in str(row.error)) == ("KEY_INVALID", False)


def test_a_composite_key_is_read_by_its_types_in_any_order(fresh):
    world = fresh('CREATE TABLE public.t (n numeric, "K" uuid, v text, PRIMARY KEY (n, "K"))')
    one = "00000000-0000-4000-8000-00000000000a"
    world.sql(f"INSERT INTO public.t VALUES (1.00, '{one}', 'a'), (2, '{one}', 'b')")
    backup = back_up(world)
    world.sql("UPDATE public.t SET v = 'x'")

    row = extract(world, backup, (RowKey((("K", one.upper()), ("n", "1.0"))),), "t")

    assert counts(row) == {"total": 1, "update": 1}
    world.apply(row)
    assert world.sql("SELECT n::text, v FROM public.t ORDER BY n") == [("1.00", "a"), ("2", "x")]


def test_secrets_are_taken_out_only_for_who_may_set_them(world):
    backup = back_up(world)
    world.sql("UPDATE public.users SET password = 'other'")
    without = caller_with(world, "backups.*", "imports.*", "uploads.*")

    row = extract(world, backup, keys(1), caller=without)
    with_secrets = extract(world, backup, keys(1))

    assert b"hash1" not in world.read(upload_of(world, row).artifact_id)
    assert b"hash1" in world.read(upload_of(world, with_secrets).artifact_id)
    assert (counts(row), counts(with_secrets)) == ({"total": 1, "unchanged": 1}, {"total": 1, "update": 1})


def test_a_key_with_a_secret_field_is_asked_for_only_by_who_may_set_secrets(fresh):
    """Whether the backup has a row of it would tell a guesser what the field holds."""
    world = fresh("CREATE TABLE public.doors (house int, password text, name text, PRIMARY KEY (house, password))")
    world.sql("INSERT INTO public.doors VALUES (1, 'right', 'a')")
    backup = back_up(world)
    without = caller_with(world, "backups.*", "imports.*", "uploads.*")

    for guess in ("right", "wrong"):
        with pytest.raises(FailedPrecondition) as caught:
            begin(world, backup, (RowKey((("house", "1"), ("password", guess))),), "doors", without)
        assert (caught.value.reason, guess in str(caught.value)) == ("KEY_NOT_USABLE", False)
    row = extract(world, backup, (RowKey((("house", "1"), ("password", "right"))),), "doors")
    assert counts(row) == {"total": 1, "unchanged": 1}, row.error


@pytest.mark.parametrize("guess", ["right", "wrong"])
def test_a_right_to_set_secrets_that_is_gone_when_it_runs_tells_nothing(fresh, guess):
    world = fresh("CREATE TABLE public.doors (password text PRIMARY KEY, name text)")
    world.sql("INSERT INTO public.doors VALUES ('right', 'a')")
    caller = caller_with(world, "backups.*", "imports.*", "secrets.*")
    row = begin(world, back_up(world), keys(guess, field="password"), "doors", caller)
    with world.resources.db.transaction() as session:
        session.get_one(RoleRow, caller.subject).permissions = ["backups.*", "imports.*"]

    world.work()

    assert world.reason(world.imports.get(world.caller, row.id)) == "KEY_NOT_USABLE"


@pytest.mark.parametrize("guess", ["right", "wrong"])
def test_a_key_that_was_secret_when_it_was_backed_up_is_secret_still(made, make_world, tmp_path, guess):
    file = tmp_path / "catalog.toml"
    file.write_text("[entities.doors.secrets]\nword = {}\n")
    before = made("CREATE TABLE public.doors (word text PRIMARY KEY, name text)", catalog_file=file)
    before.sql("INSERT INTO public.doors VALUES ('right', 'a')")
    backup = back_up(before)
    world = make_world(before.resources.platform.dsn)

    row = extract(world, backup, keys(guess, field="word"), "doors", caller_with(world, "backups.*", "imports.*"))

    assert world.reason(row) == "KEY_NOT_USABLE"


def test_it_takes_both_rights_on_the_entity(world):
    backup = back_up(world)
    lacking = {
        "backups.extract": ("backups.read", "backups.extract:others", "imports.*"),
        "imports.create": ("backups.*", "imports.create:users:ADDITIVE"),
    }

    for operation, permissions in lacking.items():
        with pytest.raises(PermissionDenied) as caught:
            begin(world, backup, keys(1), caller=caller_with(world, *permissions))
        assert caught.value.metadata["operation"] == operation
    with pytest.raises(NotFound) as unknown:
        begin(world, backup, keys(1), caller=caller_with(world, "backups.extract", "imports.*"))
    assert unknown.value.reason == "BACKUP_UNKNOWN"


def test_a_right_that_is_gone_when_it_runs_takes_nothing_out(world):
    caller = caller_with(world, "backups.*", "imports.*")
    row = begin(world, back_up(world), keys(1), caller=caller)
    with world.resources.db.transaction() as session:
        session.get_one(RoleRow, caller.subject).permissions = ["imports.*"]

    world.work()

    row = world.imports.get(world.caller, row.id)
    assert (world.reason(row), (row.error or {})["metadata"]["operation"]) == ("PERMISSION_MISSING", "backups.extract")


def test_no_key_stands_in_options_audit_events_or_log(fresh, capfd):
    world = fresh("CREATE TABLE public.people (email text PRIMARY KEY, name text)")
    world.sql("INSERT INTO public.people VALUES ('ada@example.org', 'Ada')")
    backup = back_up(world)

    row = extract(world, backup, keys("ada@example.org", "not-there@example.org", field="email"), "people")

    assert counts(row)["total"] == 1
    with world.resources.db.transaction() as session:
        for table in ("imports", "uploads", "jobs", "job_events", "audit_events", "artifacts", "artifact_parts"):
            rows = session.scalars(text(f"SELECT (t.*)::text FROM dataops.{table} t"))
            assert not [r for r in rows if "example.org" in r], table
    assert "example.org" not in "".join(capfd.readouterr())


def test_the_keys_are_let_go_when_the_rows_are_out(world):
    row = begin(world, back_up(world), keys(1))
    before = upload_of(world, row)
    assert (before.state, before.principal_id) == ("OPEN", world.caller.principal_id)
    world.work()

    after = upload_of(world, row)

    assert (after.state, after.artifact_id != before.artifact_id) == ("FINISHED", True)
    assert (after.committed_size, after.sha256 is None) == (len(world.read(after.artifact_id)), False)
    with world.resources.db.transaction() as session:
        kept = session.get(ArtifactRow, before.artifact_id)
        assert kept is None or kept.state == "DELETING"
        assert session.get_one(ArtifactRow, after.artifact_id).owner_type == "upload"


def test_nobody_else_writes_the_file_that_is_promised(world):
    row = begin(world, back_up(world), keys(1))

    with pytest.raises(DataOpsError):
        stream = world.uploads.open_stream(world.caller, row.upload_id)
        stream.write(0, b'{"id": 1, "name": "mine"}\n', None)
        stream.finish()
    with pytest.raises(FailedPrecondition) as caught:
        world.uploads.abort(world.caller, row.upload_id)
    assert caught.value.reason == "UPLOAD_IN_USE"
    world.work()

    assert world.imports.get(world.caller, row.id).status == "AWAITING_APPROVAL"
    assert b"mine" not in world.read(upload_of(world, row).artifact_id)


def test_an_attempt_that_died_after_the_rows_were_out_begins_anew(world, monkeypatch):
    row, tried = begin(world, back_up(world), keys(1, 99)), []
    keep = Uploads.keep_promise

    def lost(self: Uploads, *arguments: Any) -> UploadRow:
        tried.append(1)
        if len(tried) == 1:
            raise Unavailable("the database: lost the connection", reason="DATABASE_LOST")
        return keep(self, *arguments)

    monkeypatch.setattr(Uploads, "keep_promise", lost)
    world.work()
    time.sleep(1.1)
    world.work()

    row = world.imports.get(world.caller, row.id)
    assert (row.status, len(tried)) == ("AWAITING_APPROVAL", 2)
    assert notices(row)["ROWS_NOT_IN_BACKUP"].startswith("1 of")
    world.resources.artifacts.sweep()
    with world.resources.db.transaction() as session:
        of_job = select(ArtifactRow).where(ArtifactRow.owner_type == "job", ArtifactRow.owner_id == row.plan_job_id)
        assert session.scalars(of_job).all() == [], "what the first attempt wrote is swept with the job's end"


def test_an_attempt_that_died_in_planning_does_not_take_them_out_again(world, monkeypatch):
    backup = back_up(world)
    row = begin(world, backup, keys(1, 99))
    from engine.imports.plan import Planner

    plan, tried = Planner.plan, []

    def lost(self: Planner) -> Any:
        tried.append(1)
        if len(tried) == 1:
            raise Unavailable("the database: lost the connection", reason="DATABASE_LOST")
        return plan(self)

    monkeypatch.setattr(Planner, "plan", lost)
    world.work()
    file = upload_of(world, row)
    time.sleep(1.1)
    world.work()

    row = world.imports.get(world.caller, row.id)
    assert (row.status, file.state) == ("AWAITING_APPROVAL", "FINISHED")
    assert upload_of(world, row).artifact_id == file.artifact_id
    assert notices(row)["ROWS_NOT_IN_BACKUP"].startswith("1 of"), "what was counted then is told"


def test_the_same_request_gives_the_same_import_and_keeps_nothing_else(world):
    backup, request = back_up(world), world.request()
    asked = ExtractRequest(backup.id, "users", keys(1))
    backups = Backups(world.resources)

    first, again = backups.extract(world.caller, asked, *request), backups.extract(world.caller, asked, *request)

    assert first.id == again.id
    with world.resources.db.transaction() as session:
        kinds = session.scalars(select(ArtifactRow.state).where(ArtifactRow.kind == "UPLOAD")).all()
        uploads = session.scalars(select(UploadRow).where(UploadRow.id == first.upload_id)).all()
    assert (kinds.count("DELETING") >= 1, len(uploads)) == (True, 1)


def test_a_backup_stays_while_rows_are_taken_out_of_it(world):
    backup = back_up(world)
    row = begin(world, backup, keys(1))

    with pytest.raises(FailedPrecondition) as caught:
        Backups(world.resources).delete(world.caller, backup.id)
    assert caught.value.reason == "BACKUP_IN_USE"
    world.work()

    assert Backups(world.resources).delete(world.caller, backup.id).status == "DELETED"
    assert world.apply(world.imports.get(world.caller, row.id)).status == "COMPLETED"


def test_what_it_cannot_be_asked_for(world):
    backup = back_up(world)
    world.sql("CREATE TABLE public.others (id int PRIMARY KEY); CREATE TABLE public.log (what text)")
    world.resources.catalogs.forget()
    whole = back_up(world)

    for asked, reason in (
        (ExtractRequest(backup.id, "others", keys(1)), "ENTITY_UNKNOWN"),
        (ExtractRequest(whole.id, "log", keys(1)), "KEY_NOT_USABLE"),
        (ExtractRequest(uuid.uuid4(), "users", keys(1)), "BACKUP_UNKNOWN"),
        (ExtractRequest(backup.id, "users", keys(1), "MERGE"), "OPTION_INVALID"),
    ):
        with pytest.raises(DataOpsError) as caught:
            Backups(world.resources).extract(world.caller, asked, *world.request())
        assert caught.value.reason == reason


def test_columns_that_came_and_went_and_changed_their_type(world):
    backup = back_up(world)
    world.sql("DELETE FROM public.users WHERE id = 7")
    world.sql("ALTER TABLE public.users DROP twice; ALTER TABLE public.users DROP name, ADD more int DEFAULT 5")
    world.sql("ALTER TABLE public.users ALTER id TYPE bigint, ALTER amount TYPE text")
    world.resources.catalogs.forget()

    row = extract(world, backup, keys(7))
    assert row.status == "AWAITING_APPROVAL", row.error
    world.apply(row)

    assert world.sql("SELECT id, amount, password, more FROM public.users WHERE id = 7") == [(7, "7.00", "hash7", 5)]


def test_a_value_of_another_type_is_read_from_the_text_it_had(fresh):
    """A cast may say something else: bpchar loses its padding by it."""
    world = fresh("CREATE TABLE public.t (id int PRIMARY KEY, c char(3), a int[], j json)")
    world.sql("""INSERT INTO public.t VALUES (1, 'a', '{1,2}', '{"a":  1}')""")
    backup = back_up(world)
    world.sql("DELETE FROM public.t")
    world.sql("ALTER TABLE public.t ALTER c TYPE text, ALTER a TYPE bigint[], ALTER j TYPE jsonb")
    world.resources.catalogs.forget()

    row = extract(world, backup, keys(1), "t")
    world.apply(row)

    assert world.sql("SELECT c, a::text, j::text FROM public.t") == [("a  ", "{1,2}", '{"a": 1}')]


def test_a_key_that_is_another_now_is_said(world):
    backup = back_up(world)
    world.sql("ALTER TABLE public.users RENAME id TO number")
    world.resources.catalogs.forget()

    row = extract(world, backup, keys(1, field="number"))

    assert world.reason(row) == "SCHEMA_INCOMPATIBLE"


def test_additive_leaves_rows_that_are_there(world):
    backup = back_up(world)
    world.sql("DELETE FROM public.users WHERE id = 1; UPDATE public.users SET name = 'x' WHERE id = 2")

    row = extract(world, backup, keys(1, 2), mode="ADDITIVE")

    assert counts(row) == {"total": 2, "insert": 1, "skip": 1}


def test_every_type_comes_back_by_an_extraction(made):
    world: World = made("SELECT 1")
    with psycopg.connect(world.resources.platform.dsn, autocommit=True) as connection:
        # a record of a file is 2 MiB at the most, and these have one of 1 MB in several columns
        cases = [replace(c, values=tuple(v for v in c.values if len(v) <= LONG)) for c in make_types(connection)]
        everything = Everything(world, cases)
    everything.fill()
    before = everything.rows("everything")
    backup = back_up(world, "everything")
    world.sql("DELETE FROM public.everything WHERE id % 2 = 0")

    row = extract(world, backup, keys(*range(len(before))), "everything")

    assert row.status == "AWAITING_APPROVAL", row.error
    assert row.failed_records == 0, world.errors(row)[:3]
    assert counts(row)["insert"] == len([n for n in range(len(before)) if n % 2 == 0])
    assert counts(row)["unchanged"] == len(before) // 2
    assert world.apply(row).status == "COMPLETED"
    assert everything.rows("everything") == before


def test_to_get_some_rows_back_never_replaces_the_others(world):
    backup = back_up(world, "users")

    with pytest.raises(InvalidRequest, match="OPTION_INVALID"):
        begin(world, backup, keys(1), mode="REPLACE")
