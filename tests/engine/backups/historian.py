"""Runs a history against a real engine, keeps plain copies of all rows at each backup's moment, and compares."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import select, update

from engine.backups import chain
from engine.backups.model import SAFETY, BackupRequest, BackupType, VerifyLevel
from engine.backups.service import Backups
from engine.backups.states import GOOD
from engine.backups.sweep import BackupSweeper
from engine.backups.verify import verify
from engine.clock import utc_now
from engine.db.models import BackupRow, JobEventRow, RestoreRow
from engine.errors import DataOpsError, FailedPrecondition
from engine.restores.model import RestoreRequest
from engine.restores.service import Restores
from tests.engine.backups.histories import Backup, Delete, History, Hold, Later, Load, Restore, Sql, Step
from tests.engine.backups.history_rows import Rows, arranged, require_equal, rows_of, scopes
from tests.engine.backups.history_tables import setup
from tests.engine.backups.kit import Told
from tests.engine.restores.kit import confirm, get, plan
from tests.engine.retention.kit import retention
from tests.world import World

FULL_INSTEAD = (
    "no good backup of the same entities",
    "its definition is another",
    f"its chain has {chain.MOST_LINKS} increments",
)
"""Why a full backup may be made where an increment was asked for. No sum may ever be wrong."""

FOLDERS = ("segments/", "keys/", "manifests/")
OPEN = ("a", "b", "c")
"""Sessions whose transactions stay open."""


class Historian:
    """One world for many histories; each begins with empty schemas and without backups."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._resources = world.resources
        self._backups = Backups(world.resources)
        self._ahead = timedelta()
        object.__setattr__(world.resources, "clock", lambda: utc_now() + self._ahead)
        self.seen: Counter[str] = Counter()
        """What has been met, so that a test can tell that it met what it is about."""
        self.log: list[str] = []
        """The history as it went, for people."""

    def run(self, history: History, *, thorough: bool = False) -> None:
        """Args:
        thorough: every backup is loaded into tables, not that of the longest chain alone.

        Raises:
            AssertionError: a backup does not give the rows of its moment, or is there, or gone, against the rules.
        """
        self.log = [f"tables {', '.join(history.kinds)} of {history.rows} rows"]
        self._moments: dict[uuid.UUID, Rows] = {}
        self._names: dict[uuid.UUID, str] = {}
        self._clear(history)
        with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
            arranged(patch, pieces=history.pieces)
            self._sessions = {name: stack.enter_context(self._session()) for name in ("", *OPEN)}
            self._copying = stack.enter_context(self._resources.platform.connect("test", autocommit=True))
            for step in history.steps:
                self.log.append(str(step))
                self._step(step)
                if not isinstance(step, Sql):
                    self._require_ancestors()
            self._end_sessions()
            self._sweep()
            self._require_readable(thorough=thorough)
            self._require_gone()
            for pick in range(history.restores):
                self.log.append("at the end: restore")
                self._restore(Restore(7 * pick))

    # --- the steps

    def _step(self, step: Step) -> None:
        match step:
            case Sql():
                self._sql(step)
            case Backup():
                self._back_up(step)
            case Load():
                self._load(step)
            case Restore():
                self._restore(step)
            case Delete():
                self._delete(step)
            case Hold():
                self._hold(step)
            case Later():
                self._ahead += timedelta(days=step.days)
                self._sweep()

    def _sql(self, step: Sql) -> None:
        try:
            self._sessions[step.session].execute(step.text.encode())
        except psycopg.Error as error:
            self._tell(f"refused: {str(error).splitlines()[0]}")
            self.seen[f"refused {type(error).__name__}"] += 1

    def _back_up(self, step: Backup) -> None:
        moment, before = self._rows(), self._good()
        entities = [name for name in step.entities if name in moment]
        kind = BackupType.INCREMENTAL if step.incremental else BackupType.FULL
        self._resources.catalogs.forget()
        with self._method(step.method):
            asked = BackupRequest(tuple(entities), backup_type=kind)
            row = self._backups.create(self._world.caller, asked, *self._world.request())
            self._world.work()
        self._note(moment)
        row = self._row(row.id)
        assert row.status == "COMPLETED", row.error
        same = [b for b in before if b.trigger_type not in SAFETY and {*b.entity_types} == {*row.entity_types}]
        parent = max(same, key=lambda b: (b.snapshot_at, b.id), default=None)
        if row.backup_type == "INCREMENTAL":
            assert parent is not None and row.parent_id == parent.id, "an increment of the newest"
            self._tell(f"of {self._names[parent.id]}: {self._deltas(row)}")
        elif step.incremental:
            why = self._why_full(row)
            assert any(reason in why for reason in FULL_INSTEAD), why
            assert ("no good backup" in why) == (parent is None), why
            self._tell(f"made full: {why}")
            self.seen["made full"] += 1

    def _load(self, step: Load) -> None:
        self._end_sessions()
        self._resources.catalogs.forget()
        moment, data = self._rows(), "".join(f"{line}\n" for line in step.lines).encode()
        try:
            row = self._world.plan(step.table, data, import_type=step.mode, max_deletes=1000)
            if row.status == "AWAITING_APPROVAL":
                deletes = (row.plan_summary or {}).get("counts", {}).get("delete", 0)
                row = self._world.apply(row, deletes=deletes or None)
            self._tell(f"{row.status} {self._world.reason(row) if row.error else ''}")
            self.seen[f"import {step.mode} {row.status}"] += 1
        except DataOpsError as error:
            self._tell(f"refused: {error}")
            self.seen["import refused"] += 1
        self._note(moment)

    def _restore(self, step: Restore) -> None:
        """Back to one of the backups: the rows of its moment, or nothing has changed."""
        if (backup := self._picked(step.pick)) is None:
            return
        self._end_sessions()
        moment, same = self._rows(), self._same(backup)
        fits = self._fits(backup, same)
        row = plan(self._world, backup)
        if row.status == "AWAITING_CONFIRMATION":
            row = confirm(self._world, row, work=False, max_losses=1_000_000)
            moment = self._work_beside(step.late, moment)
            row = get(self._world, row.id)
        self._note(moment)
        self._tell(f"{self._names[backup.id]}: {row.status} {self._world.reason(row) if row.error else ''}")
        self.seen[f"restore {row.status}"] += 1
        if row.status != "COMPLETED":
            assert not fits, f"a restore that fits was not done: {row.error}"
            assert self._rows() == moment, "a restore that was not done has changed rows"
            return
        expected = {table: self._moments[backup.id][table] for table in same}
        require_equal(self._rows(), expected, f"restored {self._names[backup.id]}")

    def _work_beside(self, late: str, moment: Rows) -> Rows:
        """Works, while another session writes that has read all tables; the rows that the worker finds then."""
        if not late:
            self._world.work()
            return moment
        writer, worker = self._sessions[""], threading.Thread(target=self._world.work)
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
        try:
            with writer.transaction():
                for table in moment:
                    writer.execute(sql.SQL("LOCK TABLE public.{} IN ACCESS SHARE MODE").format(sql.Identifier(table)))
                worker.start()
                while worker.is_alive() and self._world.sql(waiting) == [(0,)]:
                    time.sleep(0.005)
                writer.execute(late.encode())
                moment = rows_of(writer)
        except psycopg.Error as error:
            self._tell(f"while it waits, refused: {str(error).splitlines()[0]}")
        worker.join()
        return moment

    def _delete(self, step: Delete) -> None:
        if (backup := self._picked(step.pick)) is None:
            return
        needed = backup.held or any(other.parent_id == backup.id for other in self._good())
        try:
            self._backups.delete(self._world.caller, backup.id)
        except FailedPrecondition as error:
            assert error.reason == "BACKUP_IN_USE" and needed, error
            self._tell(f"{self._names[backup.id]}: {error}")
            self.seen["delete refused"] += 1
        else:
            assert not needed, f"{self._names[backup.id]} was held, or had increments"
            self._tell(f"{self._names[backup.id]} is deleted")
            self.seen["deleted"] += 1

    def _hold(self, step: Hold) -> None:
        if (backup := self._picked(step.pick)) is not None:
            self._backups.hold(self._world.caller, backup.id, held=step.held)
            self._tell(self._names[backup.id])

    def _sweep(self) -> None:
        before, now = {row.id: row for row in self._good()}, self._resources.clock()
        retention(self._world, retention_floor=1).sweep(now)
        BackupSweeper(self._resources).sweep(now)
        after = {row.id: row for row in self._good()}
        for backup_id in before.keys() - after.keys():
            row = before[backup_id]
            assert not row.held and row.expires_at is not None and row.expires_at < now
            self._tell(f"{self._names[backup_id]} has expired")
            self.seen["expired"] += 1
        assert scopes(after.values()) == scopes(before.values()), "the last backup of its entities is gone"

    # --- what must hold

    def _require_ancestors(self) -> None:
        good = {row.id: row for row in self._good()}
        for row in good.values():
            assert row.parent_id is None or row.parent_id in good, f"{self._names[row.id]} has lost its parent"

    def _require_readable(self, *, thorough: bool) -> None:
        """Every good backup gives the rows of its moment, from its bytes; some, or all, are loaded and proven too."""
        archives = [self._backups.archive(row) for row in self._good()]
        longest = max(archives, key=lambda archive: len(archive.chain), default=None)
        for archive in archives:
            manifest, name = archive.manifest, self._names[archive.manifest.backup_id]
            archive.require_present()
            self.seen[f"chain of {len(archive.chain)}"] += 1
            found = {}
            for entity in manifest.entities:
                found[entity.table] = sorted(b"".join(archive.rows(entity)).splitlines(keepends=True))
                if entity.delta is not None:
                    changed = entity.delta.rows + entity.delta.gone
                    self.seen[f"{entity.delta.proof}, {'changed' if changed else 'as before'}"] += 1
            expected = {table: self._moments[manifest.backup_id][table] for table in found}
            require_equal(found, expected, name)
            if thorough or archive is longest:
                verify(Told(self._world), archive, VerifyLevel.RESTORED)

    def _require_gone(self) -> None:
        """Nobody can read a backup that is no more, and storage holds nothing of it, nor of anything else."""
        good = {row.artifact_id for row in self._good()}
        with self._resources.db.transaction() as session:
            gone = session.scalars(select(BackupRow).where(BackupRow.id.in_(self._moments))).all()
        for row in gone:
            if row.status not in GOOD:
                with pytest.raises(DataOpsError):
                    self._backups.archive(row)
                with pytest.raises(DataOpsError):
                    request = RestoreRequest(row.id)
                    Restores(self._resources).create(self._world.caller, request, *self._world.request())
        storage = self._resources.repository._storage
        stored = {found.name.split("/")[1] for folder in FOLDERS for found in storage.list(folder)}
        assert stored == {artifact_id.hex for artifact_id in good if artifact_id}, "objects without a backup, or none"

    # --- looking

    def _rows(self) -> Rows:
        return rows_of(self._copying)

    def _good(self) -> list[BackupRow]:
        """Good backups of this history, oldest first."""
        with self._resources.db.transaction() as session:
            query = select(BackupRow).where(BackupRow.status.in_(GOOD), BackupRow.id.in_(self._moments))
            return list(session.scalars(query.order_by(BackupRow.id)))

    def _row(self, backup_id: uuid.UUID) -> BackupRow:
        return self._backups.get(self._world.caller, backup_id)

    def _picked(self, pick: int) -> BackupRow | None:
        good = self._good()
        return good[pick % len(good)] if good else None

    def _note(self, moment: Rows) -> None:
        """Backups that are new since are of this moment: nobody wrote before they were taken."""
        with self._resources.db.transaction() as session:
            rows = session.scalars(select(BackupRow).where(BackupRow.status.in_(GOOD)).order_by(BackupRow.id)).all()
        for row in rows:
            if row.id not in self._moments:
                self._moments[row.id] = moment
                self._names[row.id] = f"backup {len(self._names) + 1}"
                self._tell(f"{self._names[row.id]}, {row.backup_type} {row.trigger_type}")

    def _same(self, backup: BackupRow) -> set[str]:
        """The tables of the backup that are as they were then, but for their rows."""
        self._resources.catalogs.forget()
        catalog, same = self._resources.catalogs.load(), set()
        for entity in self._backups.archive(backup).manifest.entities:
            live = catalog.of_table(entity.schema, entity.table)
            if live is not None and live.definition == entity.schema_fingerprint:
                same.add(entity.table)
        return same

    @staticmethod
    def _fits(backup: BackupRow, same: set[str]) -> bool:
        """Whether a restore must be possible: definitions are as they were, and whole families of tables go back."""
        if len(same) < len(backup.entity_types) or "parts" in same:
            return False
        return not same & {"tree", "fruits"} or {"tree", "fruits"} <= same

    def _why_full(self, row: BackupRow) -> str:
        with self._resources.db.transaction() as session:
            query = select(JobEventRow.payload).filter_by(job_id=row.job_id, kind="NOTICE")
            return "; ".join(str(payload["message"]) for payload in session.scalars(query))

    def _deltas(self, row: BackupRow) -> str:
        deltas = ((e.table, e.delta) for e in self._backups.archive(row).manifest.entities)
        return ", ".join(f"{table} +{d.rows} -{d.gone} {d.proof}" for table, d in deltas if d is not None)

    def _tell(self, text: str) -> None:
        self.log.append(f"    -> {text}")

    # --- the stage

    def _clear(self, history: History) -> None:
        storage = self._resources.repository._storage
        with self._resources.db.transaction() as session:
            session.execute(update(BackupRow).values(status="DELETED", artifact_id=None))
            session.execute(update(RestoreRow).values(status="FAILED"))
        for folder in FOLDERS:
            for found in list(storage.list(folder)):
                storage.delete(found.name)
        self._world.sql(setup(history.kinds, history.rows))
        self._resources.catalogs.forget()

    @contextmanager
    def _session(self) -> Iterator[psycopg.Connection]:
        options = "-c search_path=public -c timezone=UTC -c lock_timeout=30ms -c client_min_messages=error"
        connection = psycopg.connect(self._resources.platform.dsn, autocommit=True, options=options)
        try:
            yield connection
        finally:
            connection.close()

    def _end_sessions(self) -> None:
        """For what would wait for them."""
        for name in OPEN:
            connection = self._sessions[name]
            if connection.info.transaction_status is not psycopg.pq.TransactionStatus.IDLE:
                connection.execute("COMMIT")
                self._tell(f"{name} commits")

    @contextmanager
    def _method(self, name: str) -> Iterator[None]:
        settings = self._resources.settings
        changed = settings.model_copy(update={"incremental_method": name})
        object.__setattr__(self._resources, "settings", changed)
        try:
            yield
        finally:
            object.__setattr__(self._resources, "settings", settings)
