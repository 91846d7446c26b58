"""The one transaction of a restore: back to the backup, proven, or everything as before.

Locks that stop everybody, the definitions as planned, a backup of what is there now, the losses counted again; then the
rows out, the rows in, all that stands around them as it was, and the proof. The locks are ACCESS EXCLUSIVE from the
beginning: a weaker one first would meet every session that has read and waits to write, and neither could go on
(docs/decisions/0008).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from psycopg import sql

from engine.backups.archive import Archive
from engine.backups.differences import compare
from engine.backups.load import load
from engine.backups.manifest import BackedEntity, Manifest, Proof, columns_of
from engine.backups.rows import count_stored, counted
from engine.backups.staging import stage, staged_table
from engine.backups.work import Work
from engine.catalog import Catalog, Entity
from engine.catalog.definitions import require_same
from engine.db.platform import Connection, one_row
from engine.errors import Aborted, DataLoss, FailedPrecondition
from engine.faults import fault
from engine.imports.locks import ACCESS_EXCLUSIVE, wait_for_locks
from engine.imports.sequences import advance, numbered_fields
from engine.imports.sqltext import Temp, joined
from engine.jobs.model import Severity
from engine.restores.model import Rename
from engine.restores.schema import Fit, fits_of, renames_by_entity
from engine.restores.structure import Structure


class Effect(Work, Protocol):
    """Work that changes the platform's rows."""

    def hold(self, connection: Connection) -> None: ...
    def notice(self, code: str, message: str, *, severity: Severity = ..., **metadata: str) -> None: ...


BackUp = Callable[[Connection, Catalog, Sequence[str], int], tuple[uuid.UUID, Manifest]]
"""Takes the backup before the restore, in the session that holds the locks (`take_held`): of these entities, with this
seed; its id and its manifest."""


@dataclass(frozen=True)
class Confirmed:
    """What was planned, shown and confirmed."""

    definitions: str
    """Of `Structure.fingerprint`."""
    live: Mapping[str, tuple[int, int]]
    """By the backup's entity: rows then, and the sum of their fingerprints."""
    losses: Mapping[str, tuple[int, int]]
    """By the backup's entity: rows that are lost, rows that are changed."""
    most: int
    """Rows that may be lost or changed in all."""


@contextmanager
def _refusals() -> Iterator[None]:
    """What the tables, or the database, refuse of the change, as errors that name the rule and show no row. What may go
    away by itself (locks, lost connections, a cancelled statement) passes."""
    try:
        yield
    except psycopg.OperationalError:
        raise
    except psycopg.errors.ForeignKeyViolation as error:
        raise _refused(
            error, "rows would refer to others that are not there then", reason="RESTORE_WOULD_ORPHAN"
        ) from None
    except (psycopg.IntegrityError, psycopg.DataError) as error:
        raise _refused(error, "it refuses rows of the backup", reason="SCHEMA_INCOMPATIBLE") from None
    except psycopg.Error as error:
        raise _refused(error, "the database refuses the change", reason="RESTORE_REFUSED") from None


def _refused(error: psycopg.Error, what: str, *, reason: str) -> FailedPrecondition:
    diagnosis = error.diag
    table = f"{diagnosis.schema_name}.{diagnosis.table_name}" if diagnosis.table_name else "restore"
    rule = diagnosis.constraint_name or diagnosis.column_name or diagnosis.datatype_name or ""
    return FailedPrecondition(
        f"{table}: {rule + ': ' if rule else ''}{what} (SQLSTATE {diagnosis.sqlstate}); everything is as before",
        reason=reason,
        metadata={"table": table, "rule": rule},
    )


def confirmed_of(plan: Mapping[str, Any], most: int) -> Confirmed:
    """A plan that was confirmed, with at most so many losses."""
    return Confirmed(
        definitions=plan["definitions"],
        live={e["entity"]: (e["rows_now"], int(e["fingerprint_now"])) for e in plan["entities"]},
        losses={e["entity"]: (e["rows_lost"], e["rows_changed"]) for e in plan["entities"]},
        most=most,
    )


@dataclass(frozen=True)
class _Losses:
    """Of one entity: rows before, and of these the lost and the changed ones."""

    rows: int
    lost: int
    changed: int


class Nowhere:
    """Takes the parts of a comparison of which only the numbers are wanted."""

    def write_part(self, data: bytes, *, stream: str, index: dict[str, Any]) -> int:
        del data, stream, index
        return 0


class RestoreTransaction:
    """One restore's effect. The methods are the steps, in the order of `apply`."""

    def __init__(
        self,
        work: Effect,
        read_catalog: Callable[[Connection], Catalog],
        archive: Archive,
        names: Sequence[str],
        renames: Sequence[Rename],
        confirmed: Confirmed,
    ) -> None:
        self._work = work
        self._read_catalog = read_catalog
        self._archive = archive
        self._seed = archive.manifest.seed
        self._names = list(names)
        self._renames = list(renames)
        self._confirmed = confirmed

    def gate(self) -> None:
        """Every byte of the chosen entities, opened, hashed and counted, before anything is locked.

        Raises:
            DataLoss: what is damaged.
        """
        manifest = self._archive.manifest
        chosen = [e for e in manifest.entities if e.entity in self._names]
        self._work.stage("GATE", rows=sum(e.rows for e in chosen))
        self._archive.require_present(self._work.check)
        done = 0
        for entity in chosen:
            for block in self._archive.rows(entity, self._work.check):
                done += block.count(b"\n")
                self._work.progress(rows=done)

    def apply(self, connection: Connection, back_up: BackUp) -> dict[str, Any]:
        """Everything up to, and without, the mark and the COMMIT; the facts of it. `connection` is in no transaction
        and not in autocommit.

        Raises:
            Aborted: DEFINITIONS_MOVED, LOSSES_MOVED when what was confirmed is not what would happen now.
            FailedPrecondition: SCHEMA_INCOMPATIBLE when a table refuses the backup's rows.
            DataLoss: RESTORE_NOT_EQUAL, BACKUP_DAMAGED: what stands in a table is not what the manifest says.
            PlatformNotPrepared: RIGHTS_MISSING, SEQUENCE_NOT_OWNED; and what taking the backup raises.
        """
        work = self._work
        work.stage("LOCK")
        catalog, fits, structure = self._lock(connection)
        began = time.monotonic()
        before = structure.definitions()
        backup_id, losses = self._back_up(connection, catalog, fits, back_up)
        fault("restores.backed_up")
        work.stage("RESTORE", rows=sum(f.backed.rows for f in fits))
        with _refusals():
            structure.take_down(f.backed.rows for f in fits)
            structure.clear()
            staged = self._load(connection, fits)
            fault("restores.loaded")
            work.check()
            structure.put_up()
        moved = {name: to for f in fits for name, to in self._sequences(connection, f).items()}
        work.stage("PROVE")
        after = self._prove(connection, fits, staged)
        require_same("restore", before, Structure(connection, [f.live for f in fits]).definitions())
        structure.analyze()
        work.check()
        return {
            "backup_id": str(backup_id),
            "entities": [
                {
                    "entity": f.backed.entity,
                    "rows_before": losses[f.backed.entity].rows,
                    "rows_after": after[f.backed.entity],
                    "rows_lost": losses[f.backed.entity].lost,
                    "rows_changed": losses[f.backed.entity].changed,
                }
                for f in fits
            ],
            "sequences": moved,
            "outage_seconds": round(time.monotonic() - began, 1),
        }

    # --- before anything is changed

    def _lock(self, connection: Connection) -> tuple[Catalog, list[Fit], Structure]:
        """The locks, and under them what the plan relied on: definitions, rights."""
        _, fits, structure = self._read(connection)
        connection.rollback()
        tables = [*(f.live for f in fits), *structure.others]
        wait_for_locks(self._work, connection, [(table, ACCESS_EXCLUSIVE) for table in tables])
        catalog, fits, structure = self._read(connection)
        if structure.fingerprint() != self._confirmed.definitions:
            raise Aborted(
                "restore: a table's definition has changed since the plan; everything is as before, make a new plan",
                reason="DEFINITIONS_MOVED",
            )
        structure.require_rights()
        return catalog, fits, structure

    def _read(self, connection: Connection) -> tuple[Catalog, list[Fit], Structure]:
        catalog = self._read_catalog(connection)
        fits = fits_of(self._archive, catalog, self._names, self._renames)
        return catalog, fits, Structure(connection, [f.live for f in fits])

    def _back_up(
        self, connection: Connection, catalog: Catalog, fits: Sequence[Fit], back_up: BackUp
    ) -> tuple[uuid.UUID, dict[str, _Losses]]:
        """The backup of what is there now, which nobody can change any more; and what is lost by it, counted again."""
        backup_id, manifest = back_up(connection, catalog, [f.live.name for f in fits], self._seed)
        now = {}
        for f in fits:
            held = manifest.entity(f.live.name)
            if held is None:
                raise DataLoss(f"{f.live.name}: the backup before the restore lacks it", reason="BACKUP_INCOMPLETE")
            if held.delta is not None and held.delta.proof == Proof.CANDIDATES:
                self._require_there(connection, f.live, held)
            now[f.backed.entity] = held.rows, held.fingerprint
        if all(now[name] == self._confirmed.live.get(name) for name in now):
            # the same rows as in the plan, by number and fingerprint: so the same losses
            return backup_id, {name: _Losses(rows, *self._confirmed.losses[name]) for name, (rows, _) in now.items()}
        counted = self._count_again(connection, fits)
        found = sum(c.lost + c.changed for c in counted.values())
        planned = {name: sum(both) for name, both in self._confirmed.losses.items()}
        # where no more were allowed than planned, each entity must keep to its own
        elsewhere = any(c.lost + c.changed > planned[name] for name, c in counted.items())
        if found > self._confirmed.most or (elsewhere and self._confirmed.most == sum(planned.values())):
            raise Aborted(
                f"restore: {found} rows would be lost or changed now, {self._confirmed.most} were confirmed; everything"
                " is as before, make a new plan, or confirm more",
                reason="LOSSES_MOVED",
                metadata={"found": str(found), "confirmed": str(self._confirmed.most)},
            )
        return backup_id, counted

    def _require_there(self, connection: Connection, live: Entity, held: BackedEntity) -> None:
        """The table read as a whole: candidates were added up, and what the restore takes away will be nowhere else."""
        self._work.check()
        found = count_stored(connection, live, self._seed)
        if found != (held.rows, held.fingerprint):
            raise DataLoss(
                f"{live.name}: found {found[0]} rows, {held.rows} in the backup before the restore, or other ones;"
                " everything is as before",
                reason="BACKUP_INCOMPLETE",
                metadata={"entity": live.name},
            )

    def _count_again(self, connection: Connection, fits: Sequence[Fit]) -> dict[str, _Losses]:
        self._work.stage("COMPARE", rows=sum(f.backed.rows for f in fits))
        renames, found, done = renames_by_entity(self._renames), {}, 0
        connection.execute("SET LOCAL enable_nestloop = off")
        for number, f in enumerate(fits):
            table = staged_table(number)
            stage(self._work, connection, self._archive, f.backed, table, done=done)
            own = renames.get(f.backed.entity, {})
            c = compare(connection, f.live, f.backed, table, own, number, Nowhere(), self._seed)
            connection.execute(sql.SQL("DROP TABLE {}").format(table))
            found[f.backed.entity] = _Losses(c.only_live + c.different + c.equal, c.only_live, c.different)
            done += f.backed.rows
        connection.execute("SET LOCAL enable_nestloop = DEFAULT")
        return found

    # --- the change

    def _load(self, connection: Connection, fits: Sequence[Fit]) -> dict[str, Temp]:
        """The rows into the tables; the temporary tables of those whose columns have changed."""
        staged: dict[str, Temp] = {}
        done = 0
        for number, found in enumerate(fits):
            names = [p.new.column for p in found.pairs]
            if found.straight:
                load(self._work, connection, self._archive, found.backed, found.live.qualified, names, done=done)
            else:
                columns = joined(map(sql.Identifier, names))
                table = staged[found.backed.entity] = Temp(f"restored_{number}")
                stage(self._work, connection, self._archive, found.backed, table)
                connection.execute(
                    sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} s").format(
                        found.live.qualified, columns, columns, found.selected(table)
                    )
                )
            done += found.backed.rows
        return staged

    def _sequences(self, connection: Connection, found: Fit) -> dict[str, int]:
        """Sequences to the greater of what they have reached, what they had reached in the backup, and its rows."""
        fields = numbered_fields(p.new for p in found.pairs)
        held = {s.column: s for s in found.backed.sequences}
        reached: dict[str, tuple[int, int]] = {}
        for field in fields:
            column = sql.Identifier(field.column)
            low, high = one_row(
                connection, sql.SQL("SELECT min({0}), max({0}) FROM {1}").format(column, found.live.relation)
            )
            values = [int(v) for v in (low, high) if v is not None]
            old = next((p.old.name for p in found.pairs if p.new.column == field.column), field.column)
            if (sequence := held.get(old)) is not None:
                values.append(sequence.last_value - (0 if sequence.is_called else sequence.increment))
            if values:
                reached[field.column] = min(values), max(values)
        behind = [f for f in fields if f.column in reached]
        moved = advance(connection, found.live, behind, lambda: found.live.relation, reached)
        return {a.sequence: a.to for a in moved}

    # --- the proof

    def _prove(self, connection: Connection, fits: Sequence[Fit], staged: Mapping[str, Temp]) -> dict[str, int]:
        """Every table against the manifest; where its columns have changed, against the staged rows, which were."""
        after = {}
        for found in fits:
            self._work.check()
            restored = {p.new.column for p in found.pairs}
            columns = [c for c in columns_of(found.live) if c.name in restored]
            rows, total = counted(connection, found.live.relation, columns, self._seed)
            expected = found.backed.rows, found.backed.fingerprint
            if (table := staged.get(found.backed.entity)) is not None:
                expected = counted(connection, found.selected(table), columns, self._seed)
            if (rows, total) != expected:
                raise DataLoss(
                    f"{found.live.name}: found {rows} rows of {'the same' if total == expected[1] else 'another'}"
                    f" fingerprint, expected the {expected[0]} of the backup; everything is as before",
                    reason="RESTORE_NOT_EQUAL",
                    metadata={"entity": found.live.name},
                )
            after[found.backed.entity] = rows
        return after
