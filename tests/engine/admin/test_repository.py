"""After a disaster: what storage and key ring alone tell, and how a new control schema learns of it."""

from __future__ import annotations

import json
import os
import stat
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

from engine.admin import adopt as adopting
from engine.admin import rescue as rescuing
from engine.admin.cli import app
from engine.backups.model import BackupRequest
from engine.backups.repository import Repository
from engine.backups.service import Backups
from engine.backups.sweep import BackupSweeper
from engine.config import Settings
from engine.db import migrate
from engine.db.models import AuditEventRow, BackupRow, GrantRow, PrincipalRow, RoleRow
from engine.errors import DataOpsError, InvalidRequest, NotFound
from engine.ids import new_id
from engine.resources import open_resources
from engine.schedules.model import ScheduleSpec
from engine.schedules.service import Schedules
from examples.stack.servers import PostgresServer
from tests.engine.backups.bench import records, take_directly
from tests.engine.retention.kit import retain
from tests.world import World

THINGS = (
    "CREATE TABLE public.things (id serial PRIMARY KEY, note text, password_hash text);"
    "INSERT INTO public.things (note) SELECT 'row ' || n FROM generate_series(1, 1000) n;"
    "CREATE TABLE public.children (id int PRIMARY KEY, parent int REFERENCES public.things);"
    "CREATE VIEW public.seen AS SELECT 1"
)


def run(*arguments: str) -> Result:
    ran = CliRunner().invoke(app, arguments)
    assert ran.exception is None or isinstance(ran.exception, (SystemExit, DataOpsError)), ran.exception
    return ran


class Site:
    """A world with backups, and its control schema's loss."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.key_file = folder / "ring"
        self.key_file.write_text(world.resources.settings.keys)
        self.artifacts = Path(world.resources.settings.artifacts)

    def backup(self, *entities: str, name: str = "", hold: bool = False) -> BackupRow:
        backups = Backups(self.world.resources)
        row = backups.create(self.world.caller, BackupRequest(entities, name=name, hold=hold), *self.world.request())
        self.world.work()
        return backups.get(self.world.caller, row.id)

    def rescue(self, command: str, *more: str) -> Result:
        return run("rescue", command, *more, "--artifacts", str(self.artifacts), "--key-file", str(self.key_file))

    def stored(self, row: BackupRow, kind: str) -> Path:
        assert row.artifact_id is not None
        return sorted((self.artifacts / kind / row.artifact_id.hex).iterdir())[0]


@pytest.fixture
def site(made: Callable[..., World], tmp_path: Path) -> Site:
    return Site(made(THINGS), tmp_path)


# --- rescue


def test_backups_are_listed_by_their_folder_and_the_ring_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DATAOPS_")]:
        monkeypatch.delenv(name)
    first, second = site.backup("things", name="the first"), site.backup()

    listed = site.rescue("list")
    assert listed.exit_code == 0, listed.output
    lines = listed.stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [str(second.id), str(first.id)], "newest first"
    assert "the first" in lines[1]
    assert "1,000" in lines[0]
    found = json.loads(site.rescue("list", "-o", "json").stdout)
    assert [one["rows"] for one in found] == [1000, 1000]
    assert [one["entities"] for one in found] == [2, 1]
    assert found[1]["size_bytes"] == first.file_size_bytes


def test_a_copy_that_is_read_only_is_read_and_nothing_is_made_in_it(site: Site) -> None:
    row = site.backup("things")
    (site.artifacts / ".tmp").rmdir()
    for path in [site.artifacts, *site.artifacts.rglob("*")]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        assert site.rescue("list").exit_code == 0
        assert site.rescue("verify").stdout == f"{row.id}: good, decoded\n"
        assert not (site.artifacts / ".tmp").exists()
    finally:
        for path in [site.artifacts, *site.artifacts.rglob("*")]:
            path.chmod(0o700 if path.is_dir() else 0o600)


def test_a_folder_that_is_not_there_is_refused_and_not_made(site: Site) -> None:
    site.artifacts = site.folder / "mistyped"
    refused = site.rescue("list")
    assert str(refused.exception).startswith("STORAGE_SETTING")
    assert not site.artifacts.exists()
    site.artifacts.mkdir()
    for command in ("list", "verify"):
        empty = site.rescue(command)
        assert (empty.exit_code, empty.stdout) == (1, "")
        assert "found no backup" in empty.stderr
    empty = site.rescue("list", "-o", "json")
    assert (empty.exit_code, json.loads(empty.stdout)) == (1, [])


def test_damage_is_listed_with_its_reason_and_fails_the_proof(site: Site) -> None:
    good, missing, broken = site.backup("things"), site.backup("things"), site.backup("things")
    site.stored(missing, "segments").unlink()
    site.stored(broken, "keys").write_bytes(b"{}")

    listed = site.rescue("list")
    assert listed.exit_code == 1
    assert f"DAMAGED {missing.id}: BACKUP_INCOMPLETE" in listed.stdout
    assert f"DAMAGED of artifact {broken.artifact_id}: BACKUP_DAMAGED" in listed.stdout
    damaged = [one["damaged"] for one in json.loads(site.rescue("list", "-o", "json").stdout)]
    assert [bool(text) for text in damaged] == [False, True, True]
    verified = site.rescue("verify")
    assert verified.exit_code == 1
    assert f"{good.id}: good, decoded" in verified.stdout
    assert verified.stdout.count(": DAMAGED: ") == 2


def test_a_proof_reads_every_byte_unless_it_is_told_not_to(site: Site) -> None:
    row = site.backup("things")
    path = site.stored(row, "segments")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    assert site.rescue("verify", "--level", "present").exit_code == 0
    refused = site.rescue("verify", "--backup", str(row.id))
    assert (refused.exit_code, "PART_DAMAGED" in refused.stdout) == (1, True)
    assert site.rescue("verify", str(row.id)).stdout == refused.stdout
    assert site.rescue("verify", str(row.id), "--backup", str(row.id)).exit_code == 2
    (proof,) = json.loads(site.rescue("verify", str(row.id)[:30], "-o", "json").stdout)
    assert (proof["backup_id"], proof["level"], proof["result"]) == (str(row.id), "decoded", "damaged")
    assert "PART_DAMAGED" in proof["error"]


def test_the_last_proof_loads_every_row_into_a_database(site: Site) -> None:
    row = site.backup()
    dsn = site.world.resources.settings.platform_dsn

    assert site.rescue("verify", "--level", "restored", "--dsn", dsn).stdout == f"{row.id}: good, restored\n"
    assert str(site.rescue("verify", "--level", "restored").exception).startswith("CONFIG_INVALID")
    away = site.rescue("verify", "--level", "restored", "--dsn", "postgresql://u@127.0.0.1:1/none")
    assert (away.exit_code, "NOT PROVEN: PLATFORM_UNREACHABLE" in away.stdout) == (1, True)


def test_a_backup_is_shown_and_found_by_how_its_id_begins(site: Site) -> None:
    row = site.backup(name="to be shown")
    shown = site.rescue("show", str(row.id)[:20])

    assert shown.exit_code == 0, shown.output
    for text in (
        str(row.id),
        "to be shown",
        "by tests root",
        (row.manifest_sha256 or b"").hex(),
        "password_hash  text  secret",
        "parent refers to public.things (id)",
        "sequence public.things_id_seq of id, at 1000",
        "public.seen: it is a view",
    ):
        assert text in shown.stdout, shown.stdout
    assert json.loads(site.rescue("show", str(row.artifact_id), "-o", "json").stdout)["backup_id"] == str(row.id)
    site.backup(name="another")
    for name in ("", str(row.id)[:2], str(uuid.uuid4())):
        assert str(site.rescue("show", name).exception).startswith("BACKUP_UNKNOWN")


def test_the_wrong_ring_is_told_apart_from_damage(site: Site) -> None:
    row = site.backup("things")
    site.key_file.write_text("other QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=\n")

    for command in ("list", "verify"):
        told = site.rescue(command)
        assert told.exit_code == 1
        assert f"artifact {row.artifact_id}" in told.stdout
        assert "cannot be opened by this ring (KEY_UNKNOWN" in told.stdout
        assert "DAMAGED" not in told.stdout
    (listed,) = json.loads(site.rescue("list", "-o", "json").stdout)
    assert (listed["damaged"], "KEY_UNKNOWN" in listed["cannot_be_opened"]) == ("", True)
    (proof,) = json.loads(site.rescue("verify", "-o", "json").stdout)
    assert (proof["backup_id"], proof["result"]) == ("", "key_unknown")
    assert "expected one; 1 cannot be opened by this ring" in str(site.rescue("show", str(row.id)).exception)


def test_work_at_a_terminal_takes_backups_too(site: Site) -> None:
    work = rescuing.Terminal(site.world.resources.settings.platform_dsn)
    archive = take_directly(site.world, "things", work=work)  # type: ignore[arg-type]

    assert archive.manifest.entities[0].rows == 1000
    with pytest.raises(InvalidRequest):
        rescuing.Terminal().platform("x")
    with pytest.raises(InvalidRequest):
        rescuing.Terminal("no dsn")


def test_a_terminal_is_told_how_far_it_is_at_most_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen:
        text = ""

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> None:
            self.text += text

        def flush(self) -> None:
            pass

    screen, now = Screen(), iter([0.0, 0.1, 0.7, 0.7, 0.8])
    monkeypatch.setattr("engine.admin.rescue.time.monotonic", lambda: next(now))
    work = rescuing.Terminal(out=screen)  # type: ignore[arg-type]
    work.stage("VERIFY", rows=1000)
    for rows in (1, 500, 600):
        work.progress(rows=rows)
    assert screen.text.split("\r")[1:] == ["VERIFY: 500 rows of about 1,000  "]


# --- adopt


class Disaster:
    """The same storage and ring under a new control schema, as after the loss of the old one."""

    def __init__(self, site: Site, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
        migrate.upgrade(dsn)
        old = site.world.resources.settings
        settings = Settings(**old.model_dump(exclude_unset=True) | {"control_dsn": dsn})
        self.world = World(open_resources(settings, name="tests", pool_size=3))
        for name in ("control_dsn", "platform_dsn", "artifacts", "keys"):
            monkeypatch.setenv(f"DATAOPS_{name.upper()}", str(getattr(settings, name)))

    def adopt(self, *more: str) -> Result:
        return run("repository", "adopt", *more)

    def audits(self, operation: str) -> list[AuditEventRow]:
        with self.world.resources.db.transaction() as session:
            query = select(AuditEventRow).filter_by(operation=operation, kind="INTENT", issuer="dataops-admin")
            return list(session.scalars(query))


@pytest.fixture
def disaster(site: Site, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Disaster]]:
    name, opened = f"after_{uuid.uuid4().hex[:8]}", []

    def strike() -> Disaster:
        opened.append(Disaster(site, postgres.create_database(name), monkeypatch))
        return opened[-1]

    yield strike
    for one in opened:
        one.world.resources.close()
    postgres.drop_database(name)


def test_every_whole_backup_gets_its_record_again(site: Site, disaster: Callable[[], Disaster]) -> None:
    first, second = site.backup("things", name="the first"), site.backup()
    site.world.load("things", b"id,note\n5000,new\n")
    after = disaster()
    assert records(after.world) == []

    dry = after.adopt("--dry-run")
    assert (dry.exit_code, dry.stdout.count("would be adopted")) == (0, 3)
    assert records(after.world) == []
    assert after.adopt().stdout.count("adopted: ") == 3
    again = after.adopt()
    assert (again.exit_code, again.stdout.count("known: ")) == (0, 3)

    found = {row.id: row for row in records(after.world)}
    for before in records(site.world):
        row = found.pop(before.id)
        for name in ("status", "trigger_type", "name", "artifact_id", "manifest_sha256", "file_size_bytes"):
            assert getattr(row, name) == getattr(before, name), name
        for name in ("backup_type", "parent_id", "chain_id", "total_size_bytes"):
            assert getattr(row, name) == getattr(before, name), name
        for name in ("entities", "entity_types", "not_covered", "created_at", "snapshot_at", "principal_id"):
            assert getattr(row, name) == getattr(before, name), name
        Backups(after.world.resources).archive(row).require_present()
    assert found == {}
    assert [row.backup_type for row in records(after.world)] == ["FULL", "FULL", "INCREMENTAL"]
    assert {first.id, second.id} <= {uuid.UUID(event.resource_id) for event in after.audits("backups.create")}


def test_an_adopted_safety_backup_is_not_swept_for_its_age(site: Site, disaster: Callable[[], Disaster]) -> None:
    site.world.load("things", b"id,note\n5000,new\n")
    after = disaster()
    later = after.world.resources.clock() + timedelta(days=400)
    settings = after.world.resources.settings
    told = list(adopting.adopt(after.world.resources.db, after.world.resources.repository, settings, later))
    assert [one.outcome for one in told] == ["adopted"]

    retain(after.world, later + timedelta(days=29))
    assert [row.status for row in records(after.world)] == ["COMPLETED"]
    retain(after.world, later + timedelta(days=31))
    assert [row.status for row in records(after.world)] == ["EXPIRED"]


def test_a_new_control_schema_sweeps_no_backup_that_it_does_not_know(
    site: Site, disaster: Callable[[], Disaster]
) -> None:
    row = site.backup("things")
    after = disaster()
    BackupSweeper(after.world.resources).sweep(after.world.resources.clock() + timedelta(days=400))

    assert after.adopt().exit_code == 0
    Backups(after.world.resources).archive(records(after.world)[0]).require_present()
    assert records(after.world)[0].id == row.id


def test_damaged_ones_are_told_and_left(site: Site, disaster: Callable[[], Disaster]) -> None:
    good, missing, broken = site.backup("things"), site.backup("things"), site.backup("things")
    site.stored(missing, "segments").unlink()
    site.stored(broken, "keys").write_bytes(b"{}")
    before = sorted(str(path) for path in site.artifacts.rglob("*"))
    after = disaster()

    told = after.adopt()
    assert told.exit_code == 1
    assert told.stdout.count("left: ") == 2
    assert "BACKUP_INCOMPLETE" in told.stdout
    assert [row.id for row in records(after.world)] == [good.id]
    assert sorted(str(path) for path in site.artifacts.rglob("*")) == before


def test_a_recorded_backup_keeps_its_record_whatever_else_bears_its_id(
    site: Site, disaster: Callable[[], Disaster]
) -> None:
    row = site.backup("things")
    after = disaster()
    assert after.adopt().exit_code == 0
    with after.world.resources.db.transaction() as session:
        known = session.get(BackupRow, row.id)
        assert known is not None
        known.status, known.artifact_id = "DELETED", None

    told = after.adopt()
    assert (told.exit_code, "recorded as DELETED" in told.stdout) == (1, True)
    assert records(after.world)[0].status == "DELETED"


def test_two_adoptions_at_once_make_one_record_each(site: Site, disaster: Callable[[], Disaster]) -> None:
    for _ in range(5):
        site.backup("things")
    resources, outcomes = disaster().world.resources, []

    def adopt() -> None:
        for told in adopting.adopt(resources.db, resources.repository, resources.settings, resources.clock()):
            outcomes.append(told.outcome)

    threads = [threading.Thread(target=adopt) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(outcomes) == ["adopted"] * 5 + ["known"] * 10


def test_settings_are_put_back_where_they_are_missing_and_nothing_is_overwritten(
    site: Site, disaster: Callable[[], Disaster]
) -> None:
    now = site.world.resources.clock()
    ann, bob = site.world.caller_with("admin", "ann"), site.world.caller_with("admin", "bob")
    with site.world.resources.db.transaction() as session:
        for name, permissions in (("loader", ["imports.*"]), ("reader", ["exports.*"])):
            session.add(RoleRow(name=name, description="d", permissions=permissions, built_in=False, updated_at=now))
        session.flush()
        for role, ends in (("loader", None), ("reader", now - timedelta(days=1))):
            session.add(
                GrantRow(
                    id=new_id(), principal_id=bob.principal_id, role=role, granted_by=ann.principal_id,
                    granted_at=now, expires_at=ends,
                )
            )  # fmt: skip
    schedules = Schedules(site.world.resources)
    nightly, gone = (
        schedules.create(bob, ScheduleSpec(name, "@daily", entity_types=("things",)), *site.world.request()).id
        for name in ("nightly", "gone")
    )
    schedules.delete(bob, gone)
    held = site.backup("things", hold=True)
    carrier = site.backup("things")
    after = disaster()
    resources = after.world.resources
    ann_now = after.world.caller_with("admin", "ann")
    with resources.db.transaction() as session:
        session.add(RoleRow(name="reader", description="", permissions=["none.at.all"], built_in=False, updated_at=now))
    assert ann_now.principal_id != ann.principal_id, "she has called before the settings came back"

    dry = after.adopt("--dry-run", "--settings", str(carrier.id))
    assert "would be put back" in dry.stdout
    assert after.audits("access.write") == []
    done = after.adopt("--settings", str(carrier.id))
    assert done.exit_code == 0, done.output
    put_back = [line.removeprefix("put back: ") for line in done.stdout.splitlines() if line.startswith("put back")]
    assert put_back == [
        "role loader",
        "principal tests bob",
        "grant of admin to tests bob",
        "grant of loader to tests bob",
        "schedule nightly, paused",
        f"hold on backup {held.id}",
    ]
    with resources.db.transaction() as session:
        roles = {row.name: row.permissions for row in session.scalars(select(RoleRow).filter_by(built_in=False))}
        grants = session.execute(
            select(PrincipalRow.subject, GrantRow.role, GrantRow.granted_by).join(
                GrantRow, GrantRow.principal_id == PrincipalRow.id
            )
        ).all()
    assert roles == {"loader": ["imports.*"], "reader": ["none.at.all"]}
    assert sorted((s, r) for s, r, _ in grants) == [
        ("ann", "admin"), ("bob", "admin"), ("bob", "loader"), ("root", "super_admin"),
    ]  # fmt: skip
    assert {by for s, r, by in grants if r == "loader"} == {ann_now.principal_id}
    assert [row.held for row in records(after.world) if row.id == held.id] == [True]
    assert len(after.audits("access.write")) == 3
    assert len(after.audits("backups.hold")) == 1
    assert len(after.audits("schedules.change")) == 1
    back = Schedules(resources).get(after.world.caller, nightly)
    assert (back.paused, back.next_run_at, back.entity_types, back.cron) == (True, None, ["things"], "@daily")
    assert back.principal_id == bob.principal_id
    assert Schedules(resources).resume(after.world.caller, nightly).next_run_at is not None
    again = after.adopt("--settings", str(carrier.id))
    assert "put back" not in again.stdout


def test_settings_of_a_backup_that_there_is_not_are_refused(site: Site, disaster: Callable[[], Disaster]) -> None:
    site.backup("things")
    after = disaster()

    assert str(after.adopt("--settings", str(uuid.uuid4())).exception).startswith("BACKUP_UNKNOWN")
    assert str(after.adopt("--settings", "x").exception).startswith("INVALID_ID")
    with pytest.raises(NotFound):
        adopting.archive_of(after.world.resources.repository, uuid.uuid4())
    assert isinstance(after.world.resources.repository, Repository)
    assert stat.S_ISDIR(site.artifacts.stat().st_mode)
    with psycopg.connect(after.world.resources.settings.control_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM dataops.backups").fetchone() == (1,)


# --- restore


def contents(world: World) -> list[tuple[object, ...]]:
    return [*world.sql("SELECT * FROM public.things ORDER BY id"), *world.sql("SELECT * FROM public.children")]


def test_a_restore_without_a_control_schema(site: Site) -> None:
    world = site.world
    world.sql("INSERT INTO public.children SELECT n, n FROM generate_series(1, 10) n")
    before = contents(world)
    row = site.backup("things", "children")
    world.sql("UPDATE public.things SET note = 'gone' WHERE id > 500; DELETE FROM public.children WHERE id = 3")
    damaged = contents(world)
    with psycopg.connect(world.resources.settings.control_dsn, autocommit=True) as connection:
        connection.execute("DROP SCHEMA dataops CASCADE")
    dsn = world.resources.platform.dsn

    shown = site.rescue("restore", str(row.id), "--dsn", dsn, "--plan")
    assert shown.exit_code == 0, shown.output
    assert "things" in shown.output
    assert "--phrase 'restore 2 entities and lose 500 rows'" in shown.stdout
    assert contents(world) == damaged

    nobody = site.rescue("restore", str(row.id), "--dsn", dsn)
    assert nobody.exit_code == 1
    assert "nobody can be asked; --phrase 'restore 2 entities and lose 500 rows' confirms" in nobody.stderr
    for wrong in ("restore 2 entities and lose 3 rows", "restore 2 entities and lose 500 rows, please"):
        other = site.rescue("restore", str(row.id), "--dsn", dsn, "--phrase", wrong)
        assert other.exit_code == 1
        assert "expected: restore 2 entities and lose 500 rows\n" in other.stderr
    assert contents(world) == damaged

    done = site.rescue("restore", str(row.id), "--dsn", dsn, "--phrase", "restore 2 entities and lose 500 rows")

    assert done.exit_code == 0, done.output
    assert contents(world) == before
    assert world.sql("SELECT nextval('public.things_id_seq')") == [(1001,)]
    repository = rescuing.open_repository(str(site.artifacts), site.key_file)
    safety = [f.archive for f in rescuing.find_all(repository) if f.archive and f.archive.manifest.backup_id != row.id]
    assert [archive.manifest.trigger_type for archive in safety] == ["PRE_RESTORE"]
    back = site.rescue(
        "restore",
        str(safety[0].manifest.backup_id),
        *("--dsn", dsn, "--phrase", "restore 2 entities and lose 501 rows QWERT"),
    )
    assert back.exit_code == 0, back.output
    assert contents(world) == damaged


@pytest.mark.parametrize("right", [True, False])
def test_a_person_types_the_phrase_to_its_last_letter(right: bool, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    row = site.backup("things")
    site.world.sql("UPDATE public.things SET note = 'gone' WHERE id = 7")
    monkeypatch.setattr("engine.admin.cli_repository.can_ask", lambda: True)

    def answer(question: str) -> str:
        phrase = question.partition("type: ")[2].partition("\n")[0]
        return phrase if right else phrase.rpartition(" ")[0]

    monkeypatch.setattr("engine.admin.cli_repository.ask", answer)

    done = site.rescue("restore", str(row.id), "--dsn", site.world.resources.platform.dsn)

    assert done.exit_code == (0 if right else 1), done.output
    assert ("expected the one above, with its last word" in done.stderr) == (not right)
    assert (site.world.sql("SELECT note FROM public.things WHERE id = 7") == [("row 7",)]) == right


def test_one_entity_under_another_column_name(site: Site) -> None:
    row = site.backup("things")
    site.world.sql("ALTER TABLE public.things RENAME note TO remark; UPDATE public.things SET remark = 'x'")
    asked = ("restore", str(row.id), "--dsn", site.world.resources.platform.dsn, "--entity", "things")
    phrase = ("--phrase", "restore things and lose 1000 rows")

    refused = site.rescue(*asked, *phrase)
    assert "SCHEMA_INCOMPATIBLE" in str(refused.exception)
    wrong = site.rescue(*asked, *phrase, "--rename", "note=remark")
    assert "OPTION_INVALID" in str(wrong.exception)
    done = site.rescue(*asked, *phrase, "--rename", "things.note=remark")

    assert done.exit_code == 0, done.output
    assert site.world.sql("SELECT remark FROM public.things WHERE id = 7") == [("row 7",)]


def test_a_backup_is_proven_by_its_rows(site: Site) -> None:
    site.backup("things")

    proven = site.rescue("verify", "--level", "restored", "--dsn", site.world.resources.platform.dsn)
    without = site.rescue("verify", "--level", "restored")

    assert (proven.exit_code, "good, restored" in proven.output) == (0, True)
    assert (without.exit_code, "CONFIG_INVALID" in str(without.exception)) == (1, True)
