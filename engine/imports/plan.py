"""Plan: what apply will do, computed in a read-only transaction, written down, bound by a digest.

The transaction is REPEATABLE READ READ ONLY and locks the table before it takes its snapshot: without the lock another
session's TRUNCATE or rewriting ALTER would let the snapshot read nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import IsolationLevel, sql

from engine.access import Caller
from engine.artifacts import ArtifactKind
from engine.catalog import Catalog, Entity
from engine.db.copy import CopyOut
from engine.db.models import ImportRow, UploadRow
from engine.db.platform import Connection
from engine.errors import Aborted, DataInvalid, FailedPrecondition, NotBuilt
from engine.faults import fault
from engine.formats.base import ByteSource, RawBatch, Reader
from engine.imports import planfile
from engine.imports.backup import NOT_BACKED_UP
from engine.imports.decode import open_reader, without_guard
from engine.imports.fingerprints import fingerprint, new_seed
from engine.imports.locks import LockChoice, choose_lock, rows_there
from engine.imports.mapping import Columns, map_columns
from engine.imports.model import ColumnMapping, ImportOptions, ImportType
from engine.imports.rejects import Refusal, write_rejects
from engine.imports.rules import Rules
from engine.imports.staging import ROW, STAGED, VERDICTS, Staging, equal
from engine.imports.validate import Judge, Judged

if TYPE_CHECKING:
    from engine.jobs.run import JobRun


OWN_COLUMNS = {"#row", "#print", "#shown", "#first"}
"""What stands beside a table's own columns in temp tables."""

MOST_FIELDS = 1_598
"""PostgreSQL's 1,600 columns of a table, less two of ours."""


@dataclass(frozen=True)
class Counts:
    """Rows of the file: total = insert + skip + failed."""

    total: int
    insert: int
    skip: int
    failed: int
    blank: int


@dataclass(frozen=True)
class Planned:
    """A finished plan: its artifacts are closed and still the job's."""

    artifact_id: uuid.UUID
    rejects_artifact_id: uuid.UUID | None
    digest: bytes
    counts: Counts
    summary: dict[str, Any]


@dataclass
class _Tally:
    records: int = 0
    blank: int = 0
    verdicts: int = 0
    bytes_read: int = 0


class Planner:
    """Makes one plan. The methods are the stages, in the order of `plan`."""

    def __init__(self, run: JobRun, row: ImportRow, upload: UploadRow, caller: Caller) -> None:
        self._run = run
        self._resources = run.resources
        self._row = row
        self._upload = upload
        self._caller = caller
        self._options = ImportOptions.from_record(row.options)
        self._tally = _Tally()
        self._seed = new_seed()

    def plan(self) -> Planned:
        """Raises:
        DataInvalid: the file cannot be used: its reader's, the mapping's reasons, TOO_MANY_ERRORS.
        NotBuilt: NOT_BUILT for a mode of a later release.
        FailedPrecondition: ENTITY_NOT_IMPORTABLE.
        """
        run = self._run
        with run.platform("plan", autocommit=True) as connection:
            entity = self._entity(self._resources.catalogs.read(connection))
            reader = self._reader()
            columns = map_columns(
                reader.header,
                entity,
                tuple(ColumnMapping(**m) for m in self._row.options.get("mapping", [])),
                may_set_secrets=lambda: self._caller.may("secrets.set", entity.name),
            )
            staging = Staging(connection, entity, columns)
            staging.create()
            connection.isolation_level, connection.read_only = IsolationLevel.REPEATABLE_READ, True
            with connection.transaction():
                connection.execute(_lock_what_is_read(entity))
                catalog = self._same_catalog(connection, entity)
                unchecked = self._load(staging, reader, columns, catalog)
                return self._write(connection, entity, columns, staging, unchecked)

    def _entity(self, catalog: Catalog) -> Entity:
        entity = catalog.entity(self._row.entity_type)
        if entity.refused or entity.has_rules:
            why = entity.refused or "it has rules, which would change what is written"
            raise FailedPrecondition(f"{entity.name}: {why}", reason="ENTITY_NOT_IMPORTABLE")
        if (clash := {f.column for f in entity.stored} & OWN_COLUMNS) or len(entity.stored) > MOST_FIELDS:
            why = f"it has a column {clash.pop()!r}, which staging needs" if clash else "it has over 1,598 columns"
            raise FailedPrecondition(f"{entity.name}: {why}", reason="ENTITY_NOT_IMPORTABLE")
        if ImportType(self._row.import_type) is not ImportType.ADDITIVE:
            raise NotBuilt(f"import type: found {self._row.import_type}, expected ADDITIVE", reason="NOT_BUILT")
        return entity

    def _reader(self) -> Reader:
        return open_reader(self._open_upload, self._options)

    def _open_upload(self) -> ByteSource:
        assert self._upload.artifact_id is not None
        return self._resources.artifacts.reader(self._upload.artifact_id).open()

    def _same_catalog(self, connection: Connection, entity: Entity) -> Catalog:
        catalog = self._resources.catalogs.read(connection)
        if catalog.entity(entity.name).fingerprint != entity.fingerprint:
            raise Aborted(f"{entity.name}: its definition changed while planning began", reason="CATALOG_MOVED")
        return catalog

    def _load(self, staging: Staging, reader: Reader, columns: Columns, catalog: Catalog) -> list[str]:
        """The file, staged and judged; gives the names of what only apply can judge."""
        run = self._run
        run.stage("VALIDATE", bytes=self._upload.committed_size)
        judge = Judge(columns)
        unsure = staging.load((judge.judge(batch) for batch in self._batches(reader)), self._seen)
        run.progress(rows=self._tally.records, bytes=self._upload.committed_size)
        run.stage("COMPARE", rows=self._tally.records)
        fault("imports.plan.staged")
        rules = Rules(staging)
        rules.judge(unsure, catalog, check=run.check)
        return rules.unchecked

    def _batches(self, reader: Reader) -> Iterator[RawBatch]:
        for batch in reader.batches():
            self._tally.records += batch.cells.num_rows + len(batch.broken)
            self._tally.blank += batch.blank
            self._tally.bytes_read = batch.bytes_read
            yield without_guard(batch) if self._options.csv.undo_formula_guard else batch

    def _seen(self, judged: Judged) -> None:
        self._tally.verdicts += judged.verdicts.num_rows
        self._refuse_many(self._tally.verdicts)
        self._run.progress(rows=self._tally.records, bytes=self._tally.bytes_read)

    def _refuse_many(self, faults: int) -> None:
        limit = self._resources.settings.max_import_errors
        if faults > limit:
            raise DataInvalid(f"file: found more than {limit:,} faults in its rows", reason="TOO_MANY_ERRORS")

    def _write(
        self, connection: Connection, entity: Entity, columns: Columns, staging: Staging, unchecked: list[str]
    ) -> Planned:
        counts = self._counts(connection)
        run, store = self._run, self._resources.artifacts
        run.stage("PLAN", rows=counts.insert)
        planned_at = self._resources.clock()
        there = rows_there(connection, entity)
        lock = choose_lock(connection, entity, counts.insert, there)
        with self._resources.db.transaction() as session:
            artifact_id = store.create(session, ArtifactKind.PLAN, "job", run.job.id)
        proven = not columns.server_assigned
        with store.writer(artifact_id) as sink:
            streams = {
                "INSERT": self._inserts(connection, entity, columns, sink, proven),
                "SKIP": self._skips(connection, entity, columns, staging, sink),
                "ERRORS": self._errors(connection, sink),
            }
            head = self._head(entity, columns, counts, lock, streams)
            head |= {"planned_at": planned_at.isoformat(), "rows_before": there}
            digest = planfile.write_head(sink, head)
            sink.close()
        fault("imports.plan.written")
        rejects = self._rejects(connection, columns, counts)
        return Planned(artifact_id, rejects, digest, counts, self._summary(head, unchecked, columns, lock))

    def _counts(self, connection: Connection) -> Counts:
        row = connection.execute(
            sql.SQL(
                "SELECT count(*) FILTER (WHERE faults > 0), count(*) FILTER (WHERE faults = 0), "
                "coalesce(sum(faults), 0)::bigint FROM "
                "(SELECT count(*) FILTER (WHERE severity = 'FAILED') AS faults FROM {} GROUP BY row) r"
            ).format(VERDICTS)
        ).fetchone()
        failed, skip, faults = row if row else (0, 0, 0)
        self._refuse_many(faults)
        total = self._tally.records
        return Counts(total, total - failed - skip, skip, failed, self._tally.blank)

    # --- the streams

    def _inserts(
        self, connection: Connection, entity: Entity, columns: Columns, sink: planfile.PartSink, proven: bool
    ) -> dict[str, Any]:
        """Good rows in key order, each with the fingerprint it will have if nothing but the plan decides it."""
        stored = [f.column for f in entity.stored]
        planned = [f.column for f in columns.planned]
        printed = fingerprint("s", stored, self._seed) if proven else sql.SQL("NULL::bigint")
        keyed = [c for c in entity.key if c in planned]
        order = [sql.Identifier(c) for c in keyed] if keyed == list(entity.key) and keyed else [ROW]
        query = sql.SQL(
            "COPY (SELECT s.{row}, {print}, {columns} FROM {staged} s "
            "WHERE NOT EXISTS (SELECT FROM {verdicts} v WHERE v.row = s.{row}) ORDER BY {order}) TO STDOUT"
        ).format(
            row=ROW,
            print=printed,
            columns=sql.SQL(", ").join(sql.SQL("s.") + sql.Identifier(c) for c in planned),
            staged=STAGED,
            verdicts=VERDICTS,
            order=sql.SQL(", ").join(sql.SQL("s.") + column for column in order),
        )
        return self._stream(connection, query, sink, "INSERT", tuple(2 + planned.index(c) for c in keyed))

    def _skips(
        self, connection: Connection, entity: Entity, columns: Columns, staging: Staging, sink: planfile.PartSink
    ) -> dict[str, Any]:
        """Rows left because the table has their key, with the fingerprint of what apply must still find there."""
        if not staging.keyed:
            return planfile.StreamWriter(sink, "SKIP").close()
        keys = sql.SQL(", ").join(sql.SQL("t.") + sql.Identifier(c) for c in entity.key)
        query = sql.SQL(
            "COPY (SELECT s.{row}, {print}, {keys} FROM {staged} s JOIN {table} t ON {equal} WHERE s.{row} IN "
            "(SELECT row FROM {verdicts} WHERE code = 'KEY_EXISTS') ORDER BY {keys}) TO STDOUT"
        ).format(
            row=ROW,
            print=fingerprint("t", relied_columns(entity, columns), self._seed),
            keys=keys,
            staged=STAGED,
            table=entity.relation,
            equal=equal(map(entity.column, entity.key)),
            verdicts=VERDICTS,
        )
        return self._stream(connection, query, sink, "SKIP", tuple(range(2, 2 + len(entity.key))))

    def _errors(self, connection: Connection, sink: planfile.PartSink) -> dict[str, Any]:
        query = sql.SQL(
            "COPY (SELECT row, severity, field, code, message, value FROM {} ORDER BY row, field, code) TO STDOUT"
        ).format(VERDICTS)
        return self._stream(connection, query, sink, "ERRORS", ())

    def _stream(
        self,
        connection: Connection,
        query: sql.Composed,
        sink: planfile.PartSink,
        name: str,
        key_at: tuple[int, ...],
    ) -> dict[str, Any]:
        writer = planfile.StreamWriter(sink, name, key_at=key_at)
        for lines in CopyOut(connection, query):
            writer.add(lines)
            self._run.progress(rows=writer.lines if name == "INSERT" else None)
        return writer.close()

    # --- the head and what is shown of it

    def _head(
        self, entity: Entity, columns: Columns, counts: Counts, lock: LockChoice, streams: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "format": planfile.FORMAT,
            "import_id": str(self._row.id),
            "import_type": self._row.import_type,
            "entity": entity.name,
            "catalog": entity.fingerprint,
            "upload_sha256": (self._upload.sha256 or b"").hex(),
            "options": self._options.as_record(),
            "planned": [f.column for f in columns.planned],
            "assigned": [f.name for f in columns.server_assigned],
            "relied": relied_columns(entity, columns),
            "seed": self._seed,
            "lock": lock.as_record(),
            "counts": {name: getattr(counts, name) for name in ("total", "insert", "skip", "failed", "blank")},
            "streams": streams,
        }

    def _summary(
        self, head: dict[str, Any], unchecked: list[str], columns: Columns, lock: LockChoice
    ) -> dict[str, Any]:
        notices = [NOT_BACKED_UP]
        if unchecked:
            names = ", ".join(unchecked)
            notices.append({"code": "CHECKED_AT_APPLY", "message": f"apply decides whether {names} holds"})
        if self._tally.blank:
            notices.append({"code": "BLANK_RECORDS", "message": f"{self._tally.blank} blank records are left out"})
        return {
            "counts": head["counts"],
            "lock": lock.as_record(),
            "planned_at": head["planned_at"],
            "rows_before": head["rows_before"],
            "server_assigned": [f.name for f in columns.server_assigned],
            "mapped": {columns.header[m.index]: m.field.name for m in columns.mapped},
            "notices": notices,
        }

    # --- the reject file

    def _rejects(self, connection: Connection, columns: Columns, counts: Counts) -> uuid.UUID | None:
        if not counts.failed:
            return None
        run, store = self._run, self._resources.artifacts
        run.stage("REJECTS", rows=counts.failed)
        with self._resources.db.transaction() as session:
            artifact_id = store.create(session, ArtifactKind.REJECTS, "job", run.job.id)
        with store.writer(artifact_id) as sink, connection.cursor("refusals") as cursor:
            cursor.itersize = 10_000
            cursor.execute(
                sql.SQL(
                    "SELECT row, (array_agg(code ORDER BY field, code))[1], "
                    "(array_agg(field ORDER BY field, code))[1], "
                    "left(string_agg(message, '; ' ORDER BY field, code), 1000) "
                    "FROM {} WHERE severity = 'FAILED' GROUP BY row ORDER BY row"
                ).format(VERDICTS)
            )
            refusals = (Refusal(*row) for row in cursor)
            write_rejects(self._reader(), columns, refusals, sink, self._options.csv.delimiter)
            sink.close()
        return artifact_id


def relied_columns(entity: Entity, columns: Columns) -> list[str]:
    """What a skipped row's stay depends on: its key, unique and mapped fields, in catalog order. Others may move."""
    relied = set(entity.key) | {m.field.column for m in columns.mapped}
    for key in entity.unique:
        relied |= set(key.columns)
    return [f.column for f in entity.stored if f.column in relied]


def _lock_what_is_read(entity: Entity) -> sql.Composed:
    """The table and those it refers to: none of them may be rewritten under the snapshot, which would read it empty."""
    targets = {(r.target_schema, r.target_table) for r in entity.references} - {(entity.schema, entity.table)}
    tables = [entity.relation, *(sql.Identifier(*target) for target in sorted(targets))]
    return sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.SQL(", ").join(tables))
