"""Key rings from making to rotation, and what is on paper: nothing is lost, nothing is shown that must not be."""

from __future__ import annotations

import base64
import os
import re
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

from engine.admin import keyfile
from engine.admin import keys as keeping
from engine.admin.cli import app
from engine.artifacts import ArtifactKind, ArtifactStore
from engine.backups.model import BackupRequest
from engine.backups.repository import Repository
from engine.backups.service import Backups
from engine.config import Settings
from engine.crypto.keyring import KeyRing, Wrapped, parse_keys
from engine.db.models import ArtifactPartRow, ArtifactRow, BackupRow, WebhookRow
from engine.errors import DataOpsError, FailedPrecondition, NotFound
from engine.ids import new_id
from engine.storage import storage_from
from engine.webhooks.model import WebhookRequest
from engine.webhooks.service import Webhooks
from engine.webhooks.signing import key_context
from tests.world import World

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def run(*arguments: str) -> Result:
    ran = CliRunner().invoke(app, arguments)
    assert ran.exception is None or isinstance(ran.exception, (SystemExit, DataOpsError)), ran.exception
    return ran


# --- the file


def test_a_ring_is_made_for_its_owner_alone_and_never_over_another(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    made = run("keys", "create", "--file", str(path))

    assert made.exit_code == 0, made.output
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ring = KeyRing.from_file(path)
    assert len(ring.ids) == 1
    assert path.read_text().strip() in made.stdout
    before = path.read_bytes()
    refused = run("keys", "create", "--file", str(path))
    assert (refused.exit_code, str(refused.exception)[:17]) == (1, "KEY_FILE_REFUSED:")
    assert path.read_bytes() == before
    assert str(run("keys", "create", "--file", str(tmp_path / "no" / "ring")).exception).startswith("KEY_FILE_REFUSED")


def test_a_rotation_puts_a_new_key_first_and_keeps_everything_else(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    keyfile.create(path, NOW)
    path.write_text("# the ring of the first house\n" + path.read_text() + "\n# end\n")
    path.chmod(0o640)
    before = path.read_text()

    for number in (2, 3):
        _, text = keyfile.rotate(None, path, NOW)
        assert text == path.read_text()
        assert next(iter(parse_keys(text))) == f"key-2026-11-26-{number}"
    assert path.read_text().endswith(before)
    assert KeyRing.from_file(path).active_id == "key-2026-11-26-3"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["ring"]


def test_a_link_to_the_ring_goes_on_leading_there(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path, link = tmp_path / "real" / "ring", tmp_path / "ring"
    keyfile.create(path, NOW)
    link.symlink_to(path)
    keyfile.rotate(None, link, NOW)

    assert link.is_symlink()
    assert len(KeyRing.from_file(path).ids) == 2


def test_rotations_at_once_lose_no_key(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    keyfile.create(path, NOW)
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda _: keyfile.rotate(None, path, NOW)[1], range(8)))

    keys = parse_keys(path.read_text())
    assert len(keys) == 9
    for text in texts:
        assert parse_keys(text).items() <= keys.items()


@pytest.mark.parametrize("point", ["_write", "_flush"])
def test_a_rotation_that_dies_leaves_the_old_ring_or_the_new_one(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ring"
    old = keyfile.create(path, NOW)

    def die(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keyfile, point, die)
    with pytest.raises(FailedPrecondition):
        keyfile.rotate(None, path, NOW)

    assert path.read_text().endswith(old)
    assert [p.name for p in tmp_path.iterdir()] == ["ring"]


def settings(**changes: object) -> Settings:
    return Settings(control_dsn="postgresql://x", platform_dsn="postgresql://x", artifacts="a", **changes)


@pytest.mark.parametrize("changes", [{"active_key": "k"}, {"keys": "k AAAA"}])
def test_a_rotation_that_would_not_count_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "ring"
    old = keyfile.create(path, NOW)
    given = settings(**({"key_file": path} if "active_key" in changes else {}), **changes)
    with pytest.raises(FailedPrecondition) as caught:
        keyfile.rotate(given, None, NOW)

    assert (caught.value.reason, path.read_text()) == ("KEY_FILE_REFUSED", old)


def test_a_file_that_is_no_ring_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    path.write_text("k not-base64!\n")
    with pytest.raises(DataOpsError):
        keyfile.rotate(None, path, NOW)
    assert path.read_text() == "k not-base64!\n"


# --- paper


def test_the_sheet_has_all_that_is_needed_and_its_lines_are_a_ring(tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    keyfile.create(ring, NOW)
    _, text = keyfile.rotate(None, ring, NOW)
    shown = keyfile.sheet(text, NOW, artifacts="/srv/data ops", file=Path("/etc/dataops/ring"))

    keys = parse_keys(text)
    typed = "\n".join(line for line in shown.splitlines() if re.fullmatch(r"key-\S+ \S{44}", line))
    assert list(parse_keys(typed).items()) == list(keys.items())
    for key_id, key in keys.items():
        assert f"{key_id}  {keyfile.check_value(key)}" in shown
    assert "dataops-admin rescue list --artifacts '/srv/data ops' --key-file FILE" in shown
    assert "archive formats 1 and 2\n" in shown
    assert max(map(len, shown.splitlines())) <= 92
    typed_file = tmp_path / "typed"
    typed_file.write_text(typed)
    checked = run("keys", "list", "--file", str(typed_file)).stdout
    assert [line.split() for line in checked.splitlines()] == [
        [key_id, keyfile.check_value(key)] for key_id, key in keys.items()
    ]


def test_the_commands_of_the_sheet_are_commands(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    shown = keyfile.sheet(keyfile.create(path, NOW), NOW, artifacts=str(tmp_path))
    commands = re.findall(r"^  dataops-admin (.*)$", shown, re.MULTILINE)
    assert len(commands) == 4
    for command in commands[:2]:  # of a folder without backups
        ran = run(*command.replace("FILE", str(path)).split())
        assert (ran.exit_code, "found no backup" in ran.stderr) == (1, True), ran.output
    for command in commands[2:]:  # of a backup that is not there
        ran = run(*command.replace("FILE", str(path)).split())
        assert isinstance(ran.exception, NotFound), ran.output


# --- what needs which key


class Site:
    """A world whose ring is a file, beside it the settings of the command; some sealed parts, and two backups."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.ring_file = world, folder / "ring"
        self.ring_file.write_text(world.resources.settings.keys + "\n")
        self.backups = Backups(world.resources)
        for number in range(3):
            self.part(b"part %d" % number)
        self.rows = [self.backup(), self.backup()]
        request = WebhookRequest("https://hooks.example.org/", job_kinds=("RESTORE",))
        self.webhook, self.key = Webhooks(world.resources).create(world.caller, request, *world.request())

    def part(self, data: bytes) -> None:
        artifacts = self.world.resources.artifacts
        with self.world.resources.db.transaction() as session:
            artifact_id = artifacts.create(session, ArtifactKind.EXPORT, "export", new_id())
        with artifacts.writer(artifact_id) as writer:
            writer.write(data)
            writer.close()

    def backup(self) -> BackupRow:
        row = self.backups.create(self.world.caller, BackupRequest(("things",)), *self.world.request())
        self.world.work()
        return self.backups.get(self.world.caller, row.id)

    def repository(self) -> Repository:
        return Repository(storage_from(self.world.resources.settings.artifacts), KeyRing.from_file(self.ring_file))

    def signing_key(self) -> bytes:
        """The webhook's, opened by the ring's file as it is now."""
        with self.world.resources.db.transaction() as session:
            row = session.get_one(WebhookRow, self.webhook.id)
        return KeyRing.from_file(self.ring_file).unwrap(Wrapped(row.key_id, row.signing_key), key_context(row.id))

    def read_parts(self) -> list[bytes]:
        """Every artifact's content, opened by the ring's file as it is now."""
        resources = self.world.resources
        ring = KeyRing.from_file(self.ring_file)
        store = ArtifactStore(resources.db, storage_from(resources.settings.artifacts), ring)
        with resources.db.transaction() as session:
            ids = session.scalars(select(ArtifactRow.id).order_by(ArtifactRow.created_at)).all()
        return [b"".join(store.reader(artifact_id).read()) for artifact_id in ids]


@pytest.fixture
def site(made: Callable[..., World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site(made("CREATE TABLE public.things (id int); INSERT INTO public.things VALUES (1)"), tmp_path)
    given = site.world.resources.settings
    for name in ("control_dsn", "platform_dsn", "artifacts"):
        monkeypatch.setenv(f"DATAOPS_{name.upper()}", str(getattr(given, name)))
    monkeypatch.setenv("DATAOPS_KEY_FILE", str(site.ring_file))
    return site


def table(output: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in output.splitlines()[1:]}


def test_a_ring_is_rotated_everything_is_wrapped_anew_and_the_old_key_may_go(site: Site) -> None:
    assert table(run("keys", "list").stdout) == {
        "test": [keyfile.check_value(bytes(range(32))), "seals", "3", "2", "1"],
    }
    rotated = run("keys", "rotate")
    assert rotated.exit_code == 0, rotated.output
    new = next(iter(parse_keys(site.ring_file.read_text())))
    assert "DATAOPS RECOVERY SHEET" in rotated.stdout
    listed = table(run("keys", "list").stdout)
    assert (listed[new][1:], listed["test"][1:]) == (["seals", "0", "0", "0"], ["opens", "3", "2", "1"])
    named = run("keys", "list", "--key", "test").stdout.splitlines()
    assert [line.split()[0] for line in named] == sorted(str(row.id) for row in site.rows)

    wrapped = run("keys", "rewrap", "--yes")
    assert wrapped.exit_code == 0, wrapped.output
    assert "3 parts, 6 keys of 2 backups, 1 webhooks" in wrapped.stdout
    assert "0 parts, 0 keys of 0 backups, 0 webhooks" in run("keys", "rewrap", "--yes").stdout
    listed = table(run("keys", "list").stdout)
    assert (listed[new][1:], listed["test"][1:]) == (["seals", "3", "2", "1"], ["opens", "0", "0", "0"])

    site.ring_file.write_text(site.ring_file.read_text().splitlines()[0] + "\n")
    assert site.read_parts() == [b"part 0", b"part 1", b"part 2"]
    assert site.signing_key() == site.key
    for artifact_id in site.repository().artifact_ids():
        archive = site.repository().open(artifact_id)
        assert b"".join(archive.rows(archive.manifest.entities[0])) == b"1\n"


def test_a_rewrap_goes_on_where_another_was_stopped(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    keyfile.rotate(None, site.ring_file, NOW)
    ring = KeyRing.from_file(site.ring_file)
    monkeypatch.setattr(keeping, "BATCH", 1)
    batch, count = keeping._batch, iter(range(100))

    def stop(*arguments: Any) -> Any:
        if next(count) == 2:
            raise KeyboardInterrupt
        return batch(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(keeping, "_batch", stop)
        with pytest.raises(KeyboardInterrupt):
            keeping.rewrap(site.world.resources.db, site.repository(), ring)
    assert site.read_parts() == [b"part 0", b"part 1", b"part 2"]

    done = keeping.rewrap(site.world.resources.db, site.repository(), ring)
    assert (done.parts, done.backups, done.failed) == (1, 2, [])


def test_what_cannot_be_wrapped_anew_is_told_and_left_and_the_rest_is_done(site: Site) -> None:
    keyfile.rotate(None, site.ring_file, NOW)
    with site.world.resources.db.transaction() as session:
        part = session.scalars(select(ArtifactPartRow)).first()
        assert part is not None
        before = part.wrapped_key = os.urandom(60)
    lost = site.rows[0].artifact_id
    assert lost is not None
    keys = Path(site.world.resources.settings.artifacts) / "keys" / lost.hex / "00000001"
    keys.write_bytes(b"{}")

    done = run("keys", "rewrap", "--yes")
    assert done.exit_code == 1
    assert "2 parts, 3 keys of 1 backups" in done.stdout
    assert "KEY_WRONG" in done.stderr
    assert f"backup {site.rows[0].id}" in done.stderr
    with site.world.resources.db.transaction() as session:
        assert session.scalars(select(ArtifactPartRow.wrapped_key).filter_by(key_id="test")).all() == [before]
    assert keys.read_bytes() == b"{}"
    assert "cannot be read" in run("keys", "list").stderr


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("", 1), (None, 1)])
def test_nothing_is_wrapped_anew_before_somebody_says_that_all_know_the_new_key(
    answer: str | None, code: int, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyfile.rotate(None, site.ring_file, NOW)
    monkeypatch.setattr("engine.admin.cli_keys.can_ask", lambda: answer is not None)

    ran = CliRunner().invoke(app, ["keys", "rewrap"], input=answer)

    assert ran.exit_code == code, ran.output
    assert "First every server and worker must have been started again" in ran.stderr
    assert ("nobody can be asked; --yes" in ran.stderr) == (answer is None)
    assert (table(run("keys", "list").stdout)["test"][2:] == ["0", "0", "0"]) == (code == 0)


def test_backups_that_need_a_key_that_there_is_not_are_not_none(site: Site) -> None:
    refused = run("keys", "list", "--key", "tset")
    assert refused.exit_code == 1
    assert str(refused.exception) == "KEY_UNKNOWN: key: found none called 'tset', expected one of test"
    assert refused.stdout == ""


def test_a_key_that_is_needed_and_missing_is_listed(site: Site) -> None:
    site.ring_file.write_text("other " + base64.b64encode(os.urandom(32)).decode() + "\n")

    assert table(run("keys", "list").stdout)["test"] == ["MISSING", "3", "2", "1"]
    assert run("keys", "rewrap", "--yes").exit_code == 1


def test_keys_are_shown_by_create_rotate_and_sheet_alone(
    site: Site, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("keys", "rotate").exit_code == 0
    material = [base64.b64encode(key).decode() for key in parse_keys(site.ring_file.read_text()).values()]
    shown = run("keys", "sheet").stdout
    assert all(text in shown for text in material)

    capfd.readouterr()
    others = [
        run("keys", *words) for words in (["list"], ["list", "--key", "test"], ["rewrap", "-y"], ["rewrap", "-y"])
    ]
    others.append(run("keys", "create", "--file", str(site.ring_file)))
    said = "".join(str(ran.output) + str(ran.stderr) + str(ran.exception) for ran in others)
    said += caplog.text + "".join(capfd.readouterr())
    with psycopg.connect(site.world.resources.settings.control_dsn) as connection:
        names = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'dataops'::regnamespace AND relkind = 'r'"
        )
        for (name,) in names.fetchall():
            said += str(connection.execute(f"SELECT array_agg(t::text) FROM dataops.{name} t".encode()).fetchall())
    assert not any(text in said for text in material)


def test_a_pinned_key_and_a_ring_in_a_variable_are_refused_by_the_command(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = site.ring_file.read_text()
    monkeypatch.setenv("DATAOPS_ACTIVE_KEY", "test")
    assert "DATAOPS_ACTIVE_KEY" in str(run("keys", "rotate").exception)
    monkeypatch.delenv("DATAOPS_ACTIVE_KEY")
    monkeypatch.delenv("DATAOPS_KEY_FILE")
    monkeypatch.setenv("DATAOPS_KEYS", before)
    assert "DATAOPS_KEYS" in str(run("keys", "rotate").exception)
    assert site.ring_file.read_text() == before
    assert "test AAECAwQ" in run("keys", "sheet").stdout
