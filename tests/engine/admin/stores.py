"""A world with backups, and `dataops-admin` over their folder and key ring."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from engine.admin.cli import app
from engine.backups.model import BackupRequest
from engine.backups.service import Backups
from engine.db.models import BackupRow
from engine.errors import DataOpsError
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


class Store:
    """Backups, their folder and their ring."""

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
