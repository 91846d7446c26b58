"""The format page against the bytes of a backup: an independent reader, run as a script, that knows nothing of ours."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from engine.backups.model import BackupRequest, BackupType
from engine.backups.repository import Repository
from engine.backups.service import Backups
from engine.crypto.keyring import KeyRing
from engine.db.models import BackupRow
from engine.storage import storage_from
from engine.storage.local import LocalStorage
from examples.stack.servers import postgres_bin
from tests.engine.backups.bench import OLD, RING, write
from tests.every_type import make_types
from tests.world import World

DOCS = Path(__file__).resolve().parents[3] / "docs"
SCRIPT = DOCS / "read_backup.py"

SCHEMA = (
    "CREATE TABLE public.things (id int PRIMARY KEY, note text);"
    "INSERT INTO public.things SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 20000) n;"
    "CREATE TABLE public.empty (id int);"
)


class Site:
    """A world with a backup, and the two things that a reader gets."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.artifacts = world, Path(world.resources.settings.artifacts)
        self.key_file = folder / "ring"
        self.key_file.write_text(world.resources.settings.keys)

    def backup(self, *entities: str, kind: BackupType = BackupType.FULL) -> BackupRow:
        backups = Backups(self.world.resources)
        request = BackupRequest(entities, backup_type=kind)
        row = backups.create(self.world.caller, request, *self.world.request())
        self.world.work()
        row = backups.get(self.world.caller, row.id)
        assert row.status == "COMPLETED", row.error
        return row

    def read(self, *options: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-I", str(SCRIPT), str(self.artifacts), "--key-file", str(self.key_file), *options]
        environment = {"PATH": os.defpath, "LANG": "C.UTF-8"}
        return subprocess.run(command, capture_output=True, timeout=120, check=False, env=environment, cwd="/")

    def psql(self, query: str) -> bytes:
        """What psql's COPY gives, under the settings that the format's page names."""
        pinned = {"DateStyle": "ISO,MDY", "IntervalStyle": "postgres", "TimeZone": "UTC", "extra_float_digits": "3"}
        pinned |= {"bytea_output": "hex", "lc_monetary": "C", "search_path": "pg_catalog", "client_encoding": "UTF8"}
        environment = {"PGOPTIONS": " ".join(f"-c {name}={value}" for name, value in pinned.items())}
        command = [str(postgres_bin() / "psql"), "-X", "-q", "-d", self.world.resources.platform.dsn]
        done = subprocess.run(
            [*command, "-c", f"COPY ({query}) TO STDOUT"], capture_output=True, timeout=60, env=environment, check=True
        )
        return done.stdout

    def stored(self, kind: str) -> list[Path]:
        return sorted(path for path in (self.artifacts / kind).rglob("*") if path.is_file())


@pytest.fixture
def site(made: Callable[..., World], tmp_path: Path) -> Site:
    return Site(made(SCHEMA), tmp_path)


def test_rows_are_those_of_psqls_copy(site: Site) -> None:
    row = site.backup()
    assert len(site.stored("segments")) >= 3

    shown = site.read("--entity", "things", "--backup", str(row.id))
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert shown.stdout == site.psql("SELECT * FROM public.things ORDER BY id")
    assert site.read("--entity", "empty").stdout == b""


def test_rows_of_a_chain_are_those_of_now(site: Site) -> None:
    site.backup()
    for change in (
        "UPDATE public.things SET note = 'first' WHERE id % 1000 = 1; DELETE FROM public.things WHERE id > 19990",
        "UPDATE public.things SET note = 'second' WHERE id IN (1, 5); INSERT INTO public.things VALUES (0, NULL)",
        "DELETE FROM public.things WHERE id IN (0, 1, 2)",
    ):
        site.world.sql(change)
        row = site.backup(kind=BackupType.INCREMENTAL)
        assert row.backup_type == "INCREMENTAL"

        shown = site.read("--entity", "things", "--backup", str(row.id))
        assert (shown.returncode, shown.stderr) == (0, b"")
        assert sorted(shown.stdout.splitlines()) == sorted(site.psql("TABLE public.things").splitlines())

    (site.artifacts / "manifests" / artifact(site.backup()).hex / "0").unlink()
    assert site.read("--entity", "things", "--backup", str(row.id)).returncode == 0, (
        "another full one is not its parent"
    )
    chain = Backups(site.world.resources).archive(row).chain
    (site.artifacts / "manifests" / chain[1].manifest.artifact_id.hex / "0").unlink()
    lacking = site.read()
    assert lacking.returncode == 1
    assert b"its parent, the backup" in lacking.stderr


def artifact(row: BackupRow) -> uuid.UUID:
    assert row.artifact_id is not None
    return row.artifact_id


def test_every_type_reads_as_psqls_copy_gives_it(made: Callable[..., World], empty_dsn: str, tmp_path: Path) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        types = make_types(connection)
        columns = ", ".join(f"c{n} {case.type}" for n, case in enumerate(types))
        connection.execute(f"CREATE TABLE public.every (id serial PRIMARY KEY, {columns})".encode())
        for number, case in enumerate(types):
            with connection.cursor() as cursor:
                insert = f"INSERT INTO public.every (c{number}) VALUES (%s)".encode()
                cursor.executemany(insert, [(value,) for value in (*case.values, None)])
    site = Site(made(""), tmp_path)
    site.backup("every")

    shown = site.read("--entity", "every")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == site.psql("SELECT * FROM public.every ORDER BY id")
    assert shown.stdout.count(b"\n") > len(types)


def test_backups_and_their_entities_are_listed(site: Site) -> None:
    first, second = site.backup("empty"), site.backup()
    listed = site.read()
    assert listed.returncode == 0, listed.stderr
    lines = [line.split("\t") for line in listed.stdout.decode().splitlines()]
    assert [line[0] for line in lines] == [str(first.id), str(second.id)]
    assert lines[1][1:2] + lines[1][3:] == ["MANUAL", "20000", (second.manifest_sha256 or b"").hex(), second.name]

    entities = site.read("--backup", str(second.id))
    assert (entities.returncode, entities.stderr) == (0, b"")
    assert sorted(entities.stdout.decode().splitlines()) == ["empty\t0\tid", "things\t20000\tid, note"]
    assert site.read("--entity", "things").returncode == 1, "there are two, and none was named"
    assert site.read("--entity", "none", "--backup", str(second.id)).returncode == 1


@pytest.mark.parametrize("kind", ["segments", "keys", "manifests"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "swap"])
def test_damage_is_refused(kind: str, damage: str, site: Site) -> None:
    row = site.backup()
    path, *others = site.stored(kind)
    data = path.read_bytes()
    if damage == "flip":
        path.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])
    elif damage == "cut":
        path.write_bytes(data[:-20])
    elif damage == "swap" and others:
        path.write_bytes(others[0].read_bytes())
    else:
        path.unlink()

    shown = site.read("--backup", str(row.id))
    assert shown.returncode == 1
    assert b"Traceback" not in shown.stderr, shown.stderr
    assert shown.stderr != b""


def test_a_stream_that_is_not_what_its_manifest_says_is_refused_at_its_end(tmp_path: Path) -> None:
    """Every part is whole; the one who made the manifest was wrong."""
    repository = Repository(LocalStorage(tmp_path / "artifacts"), RING)
    wrong = replace(write(repository, {"things": b"1\n2\n"}).manifest, backup_id=uuid.uuid4())
    keys = repository._newest(wrong.artifact_id)
    assert keys is not None
    wrong = replace(wrong, entities=(replace(wrong.entities[0], rows=3),))
    repository.unpublish(wrong.artifact_id)
    for path in (tmp_path / "artifacts" / "keys").rglob("*"):
        if path.is_file():
            path.unlink()
    repository.publish(wrong, keys[1].segments)
    ring = tmp_path / "ring"
    ring.write_text(f"old {base64.b64encode(OLD).decode()}\n")

    command = [sys.executable, "-I", str(SCRIPT), str(tmp_path / "artifacts"), "--key-file", str(ring)]
    shown = subprocess.run([*command, "--entity", "things"], capture_output=True, timeout=60, check=False)
    assert (shown.returncode, shown.stdout) == (1, b"1\n2\n")
    assert b"not what the manifest says" in shown.stderr


def test_the_wrong_ring_is_refused_and_a_rotated_one_reads(site: Site, tmp_path: Path) -> None:
    row = site.backup("things")
    assert row.artifact_id is not None
    good = site.key_file.read_text().strip()
    other = "new " + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
    site.key_file.write_text(other)
    for options in ((), ("--entity", "things")):
        refused = site.read(*options)
        assert (refused.returncode, b"DAMAGED" in refused.stderr) == (1, False)
        assert b"cannot be opened by this ring (KEY_UNKNOWN: the key ring lacks the key 'test')" in refused.stderr
    site.key_file.write_text(f"{other}\n{good}\n# a comment\n")
    Repository(storage_from(str(site.artifacts)), KeyRing.parse(site.key_file.read_text())).rewrap(row.artifact_id)
    site.key_file.write_text(other)

    shown = site.read("--entity", "things")
    assert shown.stdout == site.psql("SELECT * FROM public.things ORDER BY id")
    for content in ("", "new", "new AAAA", "new !"):
        site.key_file.write_text(content)
        refused = site.read()
        assert (refused.returncode, b"Traceback" in refused.stderr) == (1, False)


def test_nothing_to_read_is_told_and_fails(site: Site, tmp_path: Path) -> None:
    for folder, said in ((tmp_path / "mistyped", b"found no folder"), (tmp_path, b"found no backup in")):
        site.artifacts = folder
        refused = site.read()
        assert (refused.returncode, refused.stdout) == (1, b"")
        assert refused.stderr.startswith(said)
    for path in (tmp_path / "no ring", tmp_path):
        site.key_file = path
        refused = site.read()
        assert (refused.returncode, refused.stderr.startswith(b"the key file cannot be read: ")) == (1, True)


def test_the_reader_knows_nothing_of_ours() -> None:
    source = SCRIPT.read_text()
    imports = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}

    assert imports - set(sys.stdlib_module_names) == {"cryptography", "zstandard"}
