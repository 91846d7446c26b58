"""`dataops-admin rescue`: what storage and key ring alone tell, and how a database is restored by them."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from engine.admin import rescue as rescuing
from engine.errors import InvalidRequest
from tests.engine.admin.stores import THINGS, Store
from tests.engine.backups.bench import take_directly
from tests.world import World


@pytest.fixture
def site(made: Callable[..., World], tmp_path: Path) -> Store:
    return Store(made(THINGS), tmp_path)


def test_backups_are_listed_by_their_folder_and_the_ring_alone(site: Store, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_copy_that_is_read_only_is_read_and_nothing_is_made_in_it(site: Store) -> None:
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


def test_a_folder_that_is_not_there_is_refused_and_not_made(site: Store) -> None:
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


def test_damage_is_listed_with_its_reason_and_fails_the_proof(site: Store) -> None:
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


def test_a_proof_reads_every_byte_unless_it_is_told_not_to(site: Store) -> None:
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


def test_the_last_proof_loads_every_row_into_a_database(site: Store) -> None:
    row = site.backup()
    dsn = site.world.resources.settings.platform_dsn

    assert site.rescue("verify", "--level", "restored", "--dsn", dsn).stdout == f"{row.id}: good, restored\n"
    assert str(site.rescue("verify", "--level", "restored").exception).startswith("CONFIG_INVALID")
    away = site.rescue("verify", "--level", "restored", "--dsn", "postgresql://u@127.0.0.1:1/none")
    assert (away.exit_code, "NOT PROVEN: PLATFORM_UNREACHABLE" in away.stdout) == (1, True)


def test_a_backup_is_shown_and_found_by_how_its_id_begins(site: Store) -> None:
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


def test_the_wrong_ring_is_told_apart_from_damage(site: Store) -> None:
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


def test_work_at_a_terminal_takes_backups_too(site: Store) -> None:
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


def test_a_backup_is_proven_by_its_rows(site: Store) -> None:
    site.backup("things")

    proven = site.rescue("verify", "--level", "restored", "--dsn", site.world.resources.platform.dsn)
    without = site.rescue("verify", "--level", "restored")

    assert (proven.exit_code, "good, restored" in proven.output) == (0, True)
    assert (without.exit_code, "CONFIG_INVALID" in str(without.exception)) == (1, True)


# --- restore


def contents(world: World) -> list[tuple[object, ...]]:
    return [*world.sql("SELECT * FROM public.things ORDER BY id"), *world.sql("SELECT * FROM public.children")]


def test_a_restore_without_a_control_schema(site: Store) -> None:
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
def test_a_person_types_the_phrase_to_its_last_letter(
    right: bool, site: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_one_entity_under_another_column_name(site: Store) -> None:
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
