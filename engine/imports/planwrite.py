"""The plan, written down: its streams, the head that binds them, the summary that people see, the reject file."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from psycopg import sql

from engine.artifacts import ArtifactKind, ArtifactWriter
from engine.db.binary import rows_only
from engine.db.copy import CopyOut
from engine.db.models import ImportRow, UploadRow
from engine.db.platform import Connection, one_row
from engine.errors import DataInvalid, InternalError
from engine.faults import fault
from engine.imports import planfile
from engine.imports.direct import may_go_direct
from engine.imports.early import Early
from engine.imports.effects import Effects
from engine.imports.indexes import judged_keys
from engine.imports.locks import ROW_EXCLUSIVE, SHARE_ROW_EXCLUSIVE, LockChoice, choose_lock, rows_there
from engine.imports.model import ImportOptions, ImportType, OnDrift
from engine.imports.rejects import Refusal, write_rejects
from engine.imports.replace import needs_confirmation
from engine.imports.sequences import numbered_fields
from engine.imports.sqltext import ROW, equal, joined
from engine.imports.streams import Streams, cascade_query
from engine.imports.targets import Target

if TYPE_CHECKING:
    from engine.jobs.run import JobRun


@dataclass(frozen=True)
class Counts:
    """Rows of the files: total = insert + update + unchanged + skip + failed. Of tables: delete, cascade."""

    total: int = 0
    insert: int = 0
    update: int = 0
    unchanged: int = 0
    skip: int = 0
    failed: int = 0
    delete: int = 0
    cascade: int = 0
    blank: int = 0

    def plus(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def as_record(self) -> dict[str, int]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Planned:
    """A finished plan: its artifacts are closed and still the job's."""

    artifact_id: uuid.UUID
    rejects_artifact_id: uuid.UUID | None
    digest: bytes
    counts: Counts
    summary: dict[str, Any]
    entities: tuple[str, ...]


class PlanWriter:
    """Writes one plan from tables that are judged. The methods are the steps, in the order of `write`."""

    def __init__(self, run: JobRun, row: ImportRow, upload: UploadRow, options: ImportOptions, seed: int) -> None:
        self._run = run
        self._resources = run.resources
        self._row = row
        self._upload = upload
        self._options = options
        self._mode = ImportType(row.import_type)
        self._seed = seed
        self._done = 0

    def write(
        self, connection: Connection, targets: list[Target], effects: Effects, early: Early | None = None
    ) -> Planned:
        """Args:
        early: where the new rows are already, of one entity.
        """
        run, store = self._run, self._resources.artifacts
        run.stage("PLAN", rows=sum(t.tally.records for t in targets))
        planned_at = self._resources.clock()
        streams: dict[str, Any] = {}
        if early is not None:
            artifact_id, writer, streams["0.INSERT"] = early.finish()
            self._done += streams["0.INSERT"]["rows"]
        else:
            with self._resources.db.transaction() as session:
                artifact_id = store.create(session, ArtifactKind.PLAN, "job", run.job.id)
            writer = store.writer(artifact_id)
        with writer as sink:
            alone = len(targets) == 1 and self._options.on_drift is not OnDrift.SKIP_MOVED
            entities = [self._entity(connection, t, effects, sink, streams, alone=alone) for t in targets]
            cascades = self._cascades(connection, effects, sink, streams)
            head = self._head(entities, cascades, streams) | {"planned_at": planned_at.isoformat()}
            digest = planfile.write_head(sink, head)
            sink.close()
        fault("imports.plan.written")
        total = Counts()
        for entity in entities:
            total = total.plus(Counts(**entity["counts"]))
        summary = self._summary(head, targets, total)
        rejects = self._rejects(connection, targets, total)
        names = tuple(t.entity.name for t in targets)
        return Planned(artifact_id, rejects, digest, total, summary, names)

    # --- one entity

    def _entity(
        self,
        connection: Connection,
        target: Target,
        effects: Effects,
        sink: ArtifactWriter,
        streams: dict[str, Any],
        *,
        alone: bool,
    ) -> dict[str, Any]:
        """What the head says of it, its streams written.

        Args:
            alone: new rows may go straight into their table, as far as that hangs on the import as a whole.
        """
        staging, entity = target.staging, target.entity
        made = Streams(staging, self._seed)
        rows = {}
        for kind, query in made.queries().items():
            name, types = f"{target.number}.{kind}", made.insert_types if kind == "INSERT" else []
            if name not in streams:
                streams[name] = self._stream(connection, query, sink, name, types)
            rows[kind] = streams[name]["rows"]
        counts = self._counts(connection, target, rows, effects)
        there = rows_there(connection, entity)
        assigned = [f.name for f in staging.columns.server_assigned] if counts.insert else []
        direct = alone and may_go_direct(entity, assigned, made.insert_types)
        lock = self._lock(connection, target, counts, there, judged_keys(entity, made.planned) if direct else ())
        return {
            "name": entity.name,
            "catalog": entity.fingerprint,
            "key": list(staging.key),
            "planned": made.planned,
            "touched": list(staging.touched),
            "assigned": assigned,
            "relied": made.relied,
            "reached": self._reached(connection, target) if counts.insert else {},
            "stored": [f.column for f in entity.stored],
            "secret": [f.column for f in entity.fields if f.secret],
            "lookups": [
                {"column": m.field.column, "target": m.lookup.target.name, "found": m.lookup.field.column,
                 "refers": m.lookup.reference.target_columns[0]}
                for m in staging.columns.mapped if m.lookup is not None
            ],
            "lock": lock.as_record(),
            "counts": counts.as_record(),
            "rows_before": there,
            "updated_fields": self._updated_fields(connection, target) if counts.update else {},
        }  # fmt: skip

    def _stream(
        self, connection: Connection, query: sql.Composed, sink: ArtifactWriter, name: str, types: Sequence[str] = ()
    ) -> dict[str, Any]:
        blocks = iter(CopyOut(connection, query))
        with planfile.StreamWriter(sink, name, types) as writer:
            for lines in rows_only(blocks) if types else blocks:
                writer.add(lines)
                self._run.progress(rows=self._done + writer.lines)
            entry = writer.close()
        if not name.endswith((".ERRORS", ".DELETE", ".KEEP")):
            self._done += writer.lines
        return entry

    def _counts(self, connection: Connection, target: Target, rows: dict[str, int], effects: Effects) -> Counts:
        """Raises:
        InternalError: PLAN_SUM when a record of the file is not accounted for.
        """
        found = connection.execute(
            sql.SQL(
                "SELECT count(*) FILTER (WHERE faults > 0), count(*) FILTER (WHERE faults = 0), "
                "coalesce(sum(faults), 0)::bigint FROM "
                "(SELECT count(*) FILTER (WHERE severity = 'FAILED') AS faults FROM {} GROUP BY row) r"
            ).format(target.staging.verdicts)
        ).fetchone()
        failed, skip, faults = found if found else (0, 0, 0)
        limit = self._resources.settings.max_import_errors
        if faults > limit:
            raise DataInvalid(f"file: found more than {limit:,} faults in its rows", reason="TOO_MANY_ERRORS")
        reached = effects.reached.get((target.entity.schema, target.entity.table))
        counts = Counts(
            total=target.tally.records,
            insert=rows["INSERT"],
            update=rows.get("UPDATE", 0),
            unchanged=rows.get("UNCHANGED", 0),
            skip=skip,
            failed=failed,
            delete=rows.get("DELETE", 0),
            cascade=sum(reached.counts.values()) if reached else 0,
            blank=target.tally.blank,
        )
        accounted = counts.insert + counts.update + counts.unchanged + counts.skip + counts.failed
        if accounted != counts.total:
            raise InternalError(
                f"plan: found {accounted} records accounted for, expected {counts.total}", reason="PLAN_SUM"
            )
        return counts

    def _reached(self, connection: Connection, target: Target) -> dict[str, list[int]]:
        """The least and the greatest of the planned values that a sequence may have to pass, by column."""
        staging = target.staging
        integers = ("int2", "int4", "int8")
        columns = [f.column for f in numbered_fields(staging.columns.planned) if f.base in integers]
        if not columns:
            return {}
        ends = joined(sql.SQL("ARRAY[min(s.{0}), max(s.{0})]").format(sql.Identifier(c)) for c in columns)
        found = one_row(connection, sql.SQL("SELECT {} FROM {} s WHERE {}").format(ends, staging.staged, staging.new()))
        return {column: pair for column, pair in zip(columns, found, strict=True) if pair[0] is not None}

    def _lock(
        self, connection: Connection, target: Target, counts: Counts, there: int, unique: Sequence[str]
    ) -> LockChoice:
        writes = counts.insert + counts.update + counts.delete
        only_adds = writes == counts.insert
        lock = choose_lock(connection, target.entity, writes, there, only_adds=only_adds, unique=unique)
        stays = self._options.on_drift is OnDrift.SKIP_MOVED or self._mode is ImportType.REPLACE
        if stays and lock.mode == ROW_EXCLUSIVE:
            # what has moved, or come, since the plan must not move again before COMMIT
            return LockChoice(SHARE_ROW_EXCLUSIVE, "other writers of the table", lock.seconds)
        return lock

    def _updated_fields(self, connection: Connection, target: Target) -> dict[str, int]:
        """Updates by field: a column that changes in every row may be another one's."""
        staging = target.staging
        counted = joined(
            sql.SQL("count(*) FILTER (WHERE NOT record_image_eq(ROW(s.{0}), ROW(t.{0}::{1})))").format(
                sql.Identifier(c), sql.SQL(staging.entity.column(c).storage_type)
            )
            for c in staging.written
        )
        row = connection.execute(
            sql.SQL(
                "SELECT {} FROM {} s JOIN {} m ON m.{} = s.{} AND NOT m.same JOIN {} t ON {} WHERE {}"
            ).format(
                counted, staging.staged, staging.matched, ROW, ROW, staging.entity.relation,
                equal(staging.key_fields), staging.good(),
            )
        ).fetchone()  # fmt: skip
        found = zip(staging.written, row or (), strict=True)
        return {staging.entity.column(c).name: int(n) for c, n in found if n}

    # --- what foreign keys do

    def _cascades(
        self, connection: Connection, effects: Effects, sink: ArtifactWriter, streams: dict[str, Any]
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for reached in effects.reached.values():
            if not reached.counts:
                continue
            name = f"{len(found)}.CASCADE"
            streams[name] = self._stream(connection, cascade_query(reached), sink, name)
            entity = reached.entity
            actions = [[constraint, action, rows] for (constraint, action), rows in reached.counts.items()]
            found.append(
                {
                    "name": entity.name,
                    "catalog": entity.fingerprint,
                    "key": list(entity.key),
                    "stored": [f.column for f in entity.stored],
                    "secret": [f.column for f in entity.fields if f.secret],
                    "changing": list(reached.changing),
                    "actions": actions,
                    "rows": streams[name]["rows"],
                    "rows_before": rows_there(connection, entity),
                }
            )
        return found

    # --- the head and what is shown of it

    def _head(
        self, entities: list[dict[str, Any]], cascades: list[dict[str, Any]], streams: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "format": planfile.FORMAT,
            "import_id": str(self._row.id),
            "import_type": self._row.import_type,
            "upload_sha256": (self._upload.sha256 or b"").hex(),
            "options": self._options.as_record(),
            "entities": entities,
            "cascades": cascades,
            "seed": self._seed,
            "streams": streams,
        }

    def _summary(self, head: dict[str, Any], targets: list[Target], total: Counts) -> dict[str, Any]:
        notices: list[dict[str, Any]] = []
        asked = ImportOptions.from_record(self._row.options).csv.undo_formula_guard
        if self._options.csv.undo_formula_guard and not asked:
            message = "the file is an export of ours, as it was written: its formula guard is taken off again"
            hint = "a corrected reject file of it needs undo_formula_guard"
            notices.append({"code": "FORMULA_GUARD_UNDONE", "message": f"{message}; {hint}", "severity": "INFO"})
        unchecked = [name for target in targets for name in target.unchecked]
        for target, entity in zip(targets, head["entities"], strict=True):
            unchecked += target.unchecked_new if entity["counts"]["insert"] else []
        if unchecked:
            names = ", ".join(dict.fromkeys(unchecked))
            notices.append({"code": "CHECKED_AT_APPLY", "message": f"apply decides whether {names} holds"})
        for entity in head["entities"]:
            if also := entity["lock"]["also"]:
                tables = ", ".join(f"{schema}.{table}" for schema, table in also)
                message = (
                    f"who uses {tables} waits too while {entity['name']} is filled: they refer to it, and are empty"
                )
                notices.append({"code": "ALSO_LOCKED", "message": message, "severity": "INFO"})
        if total.blank:
            notices.append({"code": "BLANK_RECORDS", "message": f"{total.blank} blank records are left out"})
        shown = ("name", "key", "counts", "lock", "rows_before", "assigned", "updated_fields")
        deletes_asked = any(
            needs_confirmation(e["counts"]["delete"], e["rows_before"], e["counts"]["total"], self._options.max_deletes)
            for e in head["entities"]
        )
        return {
            "counts": total.as_record(),
            "entities": [
                {name: e[name] for name in shown} | {"secrets": sorted(set(e["secret"]) & {*e["touched"], *_set(t)})}
                for e, t in zip(head["entities"], targets, strict=True)
            ],
            "cascades": [
                {name: c[name] for name in ("name", "actions", "rows", "rows_before")} for c in head["cascades"]
            ],
            "planned_at": head["planned_at"],
            "deletes_need_confirmation": deletes_asked,
            "notices": notices,
        }

    # --- the reject file

    def _rejects(self, connection: Connection, targets: list[Target], total: Counts) -> uuid.UUID | None:
        """The refused records of a file in its own shape; a bundle has none, its errors name entity and row."""
        if not total.failed or len(targets) != 1 or self._options.format == "BUNDLE":
            return None
        run, store, target = self._run, self._resources.artifacts, targets[0]
        run.stage("REJECTS", rows=total.failed)
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
                ).format(target.staging.verdicts)
            )
            refusals = (Refusal(*row) for row in cursor)
            write_rejects(target.reader(), target.columns, refusals, sink, target.options)
            sink.close()
        return artifact_id


def _set(target: Target) -> set[str]:
    """Columns that the file or its mapping sets in new rows; fills and defaults are not the caller's."""
    return {m.field.column for m in target.columns.mapped} | {f.column for f in target.columns.fixed}
