"""What a test does with backups, in a line each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from psycopg import sql

from engine.access import Caller
from engine.artifacts import ArtifactKind
from engine.backups.archive import Archive
from engine.backups.compare import Look, compare_all, matched
from engine.backups.differences import Compared
from engine.backups.model import BackupRequest
from engine.backups.service import Backups
from engine.backups.staging import stage, staged_table
from engine.db.models import BackupRow, RoleRow
from engine.db.platform import Connection
from engine.ids import new_id
from engine.imports.changes import PlanView
from engine.imports.planfile import Plan
from engine.paging import Paging
from tests.world import World

Change = tuple[str, dict[str, str], dict[str, tuple[str | None, str | None]]]
"""Kind, key, and the fields as (old, new)."""


class Told:
    """A piece of work on a terminal: what it told, and what happens whenever it asks whether to go on."""

    def __init__(self, world: World, during: Callable[[], None] = lambda: None) -> None:
        self._world = world
        self._during = during
        self.stages: list[tuple[str, int | None]] = []
        self.rows: list[int] = []

    def check(self) -> None:
        self._during()

    def stage(self, name: str, *, rows: int | None = None, bytes: int | None = None) -> None:  # noqa: A002
        self.stages.append((name, rows))

    def progress(self, *, rows: int | None = None, bytes: int | None = None) -> None:  # noqa: A002
        self.rows.append(rows or 0)

    @contextmanager
    def platform(self, purpose: str, **settings: Any) -> Iterator[Connection]:
        with self._world.resources.platform.connect(purpose, **settings) as connection:
            yield connection


def back_up(world: World, *entities: str) -> BackupRow:
    """A backup that is complete; of all entities if none is named."""
    backups = Backups(world.resources)
    row = backups.create(world.caller, BackupRequest(entities), *world.request())
    world.work()
    row = backups.get(world.caller, row.id)
    assert row.status == "COMPLETED", row.error
    return row


def caller_with(world: World, *permissions: str) -> Caller:
    """A caller of a role of its own."""
    name = f"role-{new_id()}"
    with world.resources.db.transaction() as session:
        session.add(RoleRow(name=name, permissions=[*permissions], updated_at=world.resources.clock()))
    return world.caller_with(name, name)


def archive_of(world: World, row: BackupRow) -> Archive:
    return Backups(world.resources).archive(row)


def staged_rows(world: World, archive: Archive, entity: str) -> list[str]:
    """The entity's rows as they come out of the staged table, sorted; fingerprints and counts were proven."""
    backed = archive.manifest.entity(entity)
    assert backed is not None
    with world.resources.platform.connect("test", autocommit=True) as connection:
        stage(Told(world), connection, archive, backed, staged_table(0))
        return sorted(r[0] for r in connection.execute(b"SELECT (t.*)::text FROM pg_temp.backed_0 t"))


def live_rows(world: World, name: str) -> list[str]:
    """The entity's stored columns as texts of rows, sorted."""
    entity = world.resources.catalogs.load().entity(name)
    query = sql.SQL("SELECT (t.*)::text FROM (SELECT {} FROM {}) t").format(
        sql.SQL(", ").join(sql.Identifier(f.column) for f in entity.stored), entity.relation
    )
    with world.resources.platform.connect("test") as connection:
        return sorted(r[0] for r in connection.execute(query))


class Differences:
    """A backup compared with the live rows: what was counted, and the changes as people see them."""

    def __init__(
        self,
        world: World,
        row: BackupRow,
        names: Sequence[str] = (),
        renames: Mapping[str, Mapping[str, str]] | None = None,
        look: Look | None = None,
        during: Callable[[], None] = lambda: None,
        still: bool = True,
    ) -> None:
        """Args:
        still: nobody writes meanwhile, so that the live rows can be counted again.
        """
        resources, archive = world.resources, archive_of(world, row)
        self.told = Told(world, during)
        with resources.db.transaction() as session:
            artifact_id = resources.artifacts.create(session, ArtifactKind.DIFFERENCES, "job", new_id())
        with (
            self.told.platform("compare", autocommit=True) as connection,
            resources.artifacts.writer(artifact_id) as sink,
        ):
            self.catalog = resources.catalogs.read(connection)
            self.found, self.digest = compare_all(
                self.told,
                connection,
                archive,
                matched(self.catalog, archive, names or row.entity_types),
                renames or {},
                sink,
                resources.catalogs.read,
                look=look,
            )
            self.left = connection.execute(
                "SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()"
            ).fetchone()
            sink.close()
        self.plan = Plan.open(resources.artifacts.reader(artifact_id), self.digest)
        for compared in self.found:
            self._require_sums(world, archive, compared, still=still)

    @property
    def counts(self) -> list[tuple[int, int, int, int]]:
        """Of each entity: only_in_backup, only_live, different, equal."""
        return [(c.only_in_backup, c.only_live, c.different, c.equal) for c in self.found]

    def changes(self, entity: str = "") -> list[Change]:
        page, token = PlanView(self.plan, self.catalog).page(Paging(1000, "", "t"), (), entity)
        assert token == ""
        return [(c.kind.value, c.key, {f.field: (f.old, f.new) for f in c.fields}) for _, c in page]

    def _require_sums(self, world: World, archive: Archive, compared: Compared, *, still: bool) -> None:
        backed = archive.manifest.entity(compared.entity)
        assert backed is not None
        live = self.catalog.entity(compared.entity)
        assert backed.rows == compared.only_in_backup + compared.different + compared.equal
        if still:
            (count,) = world.sql(f"SELECT count(*) FROM {live.relation.as_string()}")[0]
            assert count == compared.only_live + compared.different + compared.equal
        written = {name.partition(".")[2]: entry["rows"] for name, entry in compared.streams.items()}
        if written:
            counted = {"INSERT": compared.only_in_backup, "UPDATE": compared.different, "DELETE": compared.only_live}
            assert written == counted
