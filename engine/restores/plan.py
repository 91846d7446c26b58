"""The plan of a restore: what it would do, and whether it can be done; nothing is touched.

The backup's rows are loaded into temporary tables, which opens and proves every byte of them; what is lost is what the
comparison with the live rows finds. Everything that a refusal needs is looked for before it is said, all of it at once.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from psycopg import sql

from engine.backups.archive import Archive
from engine.backups.compare import compare_all
from engine.backups.covered import database_of
from engine.backups.differences import Compared
from engine.backups.manifest import BackedEntity
from engine.backups.rows import count_stored
from engine.backups.work import Work
from engine.catalog import Catalog, Entity, Field
from engine.catalog.foreign_keys import Key
from engine.db.platform import Connection
from engine.errors import MAX_VIOLATIONS, FailedPrecondition, ResourceExhausted, Violation
from engine.imports import planfile
from engine.imports.shown import MASK
from engine.imports.sqltext import Temp, joined
from engine.restores.judge import faults_of
from engine.restores.model import Notice, Rename
from engine.restores.schema import Fit, fits_of, incompatible, renames_by_entity
from engine.restores.structure import Structure

SHOWN_KEYS = 5
"""Keys of rows that would be orphaned, in the refusal."""

ROWS_PER_SECOND = 150_000
"""Of backing up 1,000,000 users, and of loading and proving them with their indexes, on 2 cores: 4.3 and 8.3 s. An
outage is estimated by it."""


class WouldOrphan(FailedPrecondition):
    """RESTORE_WOULD_ORPHAN. The keys of rows are shown to who may read the restore, not to everybody who may read its
    job: they stand apart."""

    keys: Sequence[str] = ()

    def with_keys(self) -> dict[str, Any]:
        """The record that the restore keeps."""
        told = [[v.subject, f"{v.description}; {k}"] for v, k in zip(self.violations, self.keys, strict=True)]
        record: dict[str, Any] = self.as_record()
        return record | {"violations": told[:MAX_VIOLATIONS]}


class RestorePlanner:
    """Plans one restore, for a job or at a terminal. The methods are the steps, in the order of `plan`."""

    def __init__(
        self,
        work: Work,
        read_catalog: Callable[[Connection], Catalog],
        archive: Archive,
        names: Sequence[str],
        renames: Sequence[Rename],
    ) -> None:
        self._work = work
        self._read_catalog = read_catalog
        self._archive = archive
        self._names = list(names)
        self._renames = list(renames)
        self._catalog = Catalog([])
        self._orphans: list[Violation] = []
        self._keys: list[str] = []
        """Of some of the orphans, by violation."""
        self._misfits: list[Violation] = []

    def plan(self, sink: planfile.PartSink, folder: str = "") -> dict[str, Any]:
        """The plan, as `engine.restores.model` has it; the rows that are lost or changed go into `sink`.

        Args:
            folder: where the artifacts are, to be asked for its room.

        Raises:
            FailedPrecondition: SCHEMA_INCOMPATIBLE, RESTORE_WOULD_ORPHAN, with every fault as a violation.
            PlatformNotPrepared: RIGHTS_MISSING, with the SQL that gives them.
            ResourceExhausted: STORAGE_FULL when the backup before the restore has no room.
            Aborted: CATALOG_MOVED; DataLoss: what reading the backup meets.
        """
        work = self._work
        with work.platform("restore plan", autocommit=True, idle_in_transaction_session_timeout="0") as connection:
            self._catalog = catalog = self._read_catalog(connection)
            fits = fits_of(self._archive, catalog, self._names, self._renames)
            structure = Structure(connection, [f.live for f in fits])
            structure.require_rights()
            _require_room(folder, fits)
            fitting = {f.backed.entity: f for f in fits}
            totals: dict[str, tuple[int, int]] = {}
            staged: dict[str, Temp] = {}

            def look(live: Entity, backed: BackedEntity, table: Temp) -> None:
                """Within the snapshot of the comparison; what needs all tables is looked at when all are staged."""
                staged[backed.entity] = table
                totals[backed.entity] = count_stored(connection, live, self._archive.manifest.seed)
                self._judge(connection, fitting[backed.entity], table)
                if len(staged) == len(fits) and not self._misfits:
                    self._look_outside(connection, fits, structure, staged)

            compared, losses_digest = compare_all(
                work,
                connection,
                self._archive,
                [(f.live, f.backed) for f in fits],
                renames_by_entity(self._renames),
                sink,
                self._read_catalog,
                look=look,
            )
            self._refuse()
            notices = list(self._notices(connection, fits))
            return self._record(fits, compared, totals, losses_digest, structure.fingerprint(), notices)

    # --- what rows tell

    def _judge(self, connection: Connection, found: Fit, staged: Temp) -> None:
        if not found.same:
            self._misfits += [Violation(found.live.name, fault) for fault in faults_of(connection, found, staged)]

    def _look_outside(
        self, connection: Connection, fits: Sequence[Fit], structure: Structure, staged: dict[str, Temp]
    ) -> None:
        """Rows that would refer to nothing: those outside that refer to restored tables, and the other way round."""
        inside = {(f.live.schema, f.live.table): f for f in fits}
        for key in structure.keys:
            source = inside.get((key.schema, key.table))
            target = inside.get((key.target_schema, key.target_table))
            if self._left_to_the_table(key) or (source is not None and target is not None and source.same):
                continue  # of one that was there then, one snapshot held both sides
            for side in (source, target):
                if side is not None and not self._has(side, key, side is source):
                    break
            else:
                self._orphans_of(connection, key, source, target, staged)

    @staticmethod
    def _left_to_the_table(key: Key) -> bool:
        """What cannot be judged by the rows of whole tables, or is not kept for those that are there: the key proves it
        when it is made again."""
        unproven = "NOT ENFORCED" in key.definition or "NOT VALID" in key.definition
        return unproven or key.of_part or key.to_part or "PERIOD" in key.definition

    @staticmethod
    def _has(side: Fit, key: Key, refers: bool) -> bool:
        """Whether the backup fills the columns of the key: else restored rows get a default, which the key proves."""
        return set(key.columns if refers else key.target_columns) <= {p.new.column for p in side.pairs}

    def _orphans_of(
        self, connection: Connection, key: Key, source: Fit | None, target: Fit | None, staged: dict[str, Temp]
    ) -> None:
        of_source = source.selected(staged[source.backed.entity]) if source else _all(key.source)
        of_target = target.selected(staged[target.backed.entity]) if target else _all(key.target)
        mine = self._fields(key.schema, key.table, key.columns)
        theirs = self._fields(key.target_schema, key.target_table, key.target_columns)
        equal = [
            sql.SQL("t.{} {} s.{}").format(
                sql.Identifier(there), sql.SQL(field.equality if field else "="), sql.Identifier(here)
            )
            for here, there, field in zip(key.columns, key.target_columns, theirs, strict=True)
        ]
        query = sql.SQL(
            "SELECT count(*) OVER (), {shown} FROM {source} s WHERE {present} AND NOT EXISTS"
            " (SELECT FROM {target} t WHERE {equal}) LIMIT {limit}"
        ).format(
            shown=joined(sql.SQL("s.{}::text").format(sql.Identifier(c)) for c in key.columns),
            source=of_source,
            target=of_target,
            present=joined((sql.SQL("s.{} IS NOT NULL").format(sql.Identifier(c)) for c in key.columns), " AND "),
            equal=joined(equal, " AND "),
            limit=sql.Literal(SHOWN_KEYS),
        )
        rows = connection.execute(query).fetchall()
        if not rows:
            return
        # a table that is no entity has fields nobody has said to be harmless
        secret = any(field is None or field.secret for field in (*mine, *theirs))
        keys = ", ".join(MASK if secret else " ".join(map(str, row[1:])) for row in rows)
        self._orphans.append(
            Violation(
                f"{key.schema}.{key.table}",
                f"{key.name}: {rows[0][0]} rows would refer to rows of {key.target_schema}.{key.target_table} that are"
                " not there then",
            )
        )
        self._keys.append(f"{', '.join(key.columns)} of some: {keys}")

    def _fields(self, schema: str, table: str, columns: Sequence[str]) -> list[Field | None]:
        entity = self._catalog.of_table(schema, table)
        known = {f.column: f for f in entity.fields} if entity is not None else {}
        return [known.get(column) for column in columns]

    def _refuse(self) -> None:
        if self._misfits:
            raise incompatible(self._misfits)
        if self._orphans:
            error = WouldOrphan(
                f"restore: {len(self._orphans)} foreign keys would not hold; nothing was touched. The first:"
                f" {self._orphans[0].subject}: {self._orphans[0].description}",
                reason="RESTORE_WOULD_ORPHAN",
                violations=self._orphans,
            )
            error.keys = self._keys
            raise error

    # --- what it needs

    def _notices(self, connection: Connection, fits: Sequence[Fit]) -> Iterator[Notice]:
        manifest = self._archive.manifest
        there = database_of(connection)
        same = all(there[name] == manifest.database.get(name) for name in ("name", "system_identifier"))
        if not same:
            yield _notice(
                "OTHER_DATABASE",
                f"the backup is of the database {manifest.database.get('name')!r} of another server or name; this is"
                f" {there['name']!r}",
            )
        yield _notice(
            "EVERYBODY_WAITS",
            "readers and writers of the tables wait from the beginning to the end, while the backup before the restore"
            " is taken as well; a session whose snapshot is older than that, and that has not read the tables yet, will"
            " find them empty",
        )
        if len(fits) < len(manifest.entities):
            left = len(manifest.entities) - len(fits)
            yield _notice("PARTIAL_RESTORE", f"{left} other entities of the backup stay as they are now")

    def _record(
        self,
        fits: Sequence[Fit],
        compared: Sequence[Compared],
        totals: dict[str, tuple[int, int]],
        losses_digest: bytes,
        definitions: str,
        notices: list[Notice],
    ) -> dict[str, Any]:
        entities = []
        for found, result in zip(fits, compared, strict=True):
            rows, total = totals[found.backed.entity]
            entities.append(
                {
                    "entity": found.backed.entity,
                    "rows_now": rows,
                    "rows_in_backup": found.backed.rows,
                    "rows_lost": result.only_live,
                    "rows_changed": result.different,
                    "schema_differences": found.differences,
                    "fingerprint_now": str(total),
                    "table": found.live.name,
                }
            )
        raw, now = sum(f.backed.bytes for f in fits), sum(rows for rows, _ in totals.values())
        disk = sum(_bytes_after(f) for f in fits)
        return {
            "backup_id": str(self._archive.manifest.backup_id),
            "backup_checksum": self._archive.checksum.hex(),
            "entities": entities,
            "definitions": definitions,
            "losses_digest": losses_digest.hex(),
            "disk_bytes": disk,
            "wal_bytes": disk + raw // 2,
            "outage_seconds": round(1 + (sum(f.backed.rows for f in fits) + now) / ROWS_PER_SECOND, 1),
            "notices": notices,
            "approval_needed": False,
        }


def phrase_of(record: dict[str, Any]) -> str:
    """What has to be typed: it says what happens, and ends in letters that nobody types by habit."""
    entities = record["entities"]
    losses = sum(e["rows_lost"] + e["rows_changed"] for e in entities)
    what = entities[0]["entity"] if len(entities) == 1 else f"{len(entities)} entities"
    code = "".join(secrets.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(5))
    return f"restore {what} and lose {losses} rows {code}"


def _require_room(folder: str, fits: Sequence[Fit]) -> None:
    """Room for the backup that is taken before the restore, where the artifacts are in a folder of ours."""
    needed = sum(f.live.size_bytes for f in fits) // 2  # compressed, and without indexes: about a third was seen
    if folder and Path(folder).is_dir() and (free := shutil.disk_usage(folder).free) < needed:
        raise ResourceExhausted(
            f"artifacts: found {free:,} bytes free, expected {needed:,} for the backup before the restore",
            reason="STORAGE_FULL",
        )


def _bytes_after(found: Fit) -> int:
    """Of the table with its indexes when it is restored: by what its rows take now, else by what their text takes."""
    now = found.live.estimated_rows
    if now and found.live.size_bytes:
        return found.live.size_bytes * found.backed.rows // now
    return found.backed.bytes * 2


def _all(table: sql.Identifier) -> sql.Composed:
    return sql.SQL("(SELECT * FROM {} o)").format(table)


def _notice(code: str, message: str) -> Notice:
    return {"code": code, "message": message, "severity": "WARNING", "metadata": {}}
