"""The job of an export: lock, snapshot, stream.

The locks come before the snapshot: without them another session's TRUNCATE or rewriting ALTER would make it read
no rows. Bytes come from COPY and go through sealing as they come; no file is ever whole in memory.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from engine.artifacts import ArtifactKind
from engine.catalog import Catalog, Entity
from engine.catalog.moment import lock_shared, one_moment, require_unchanged
from engine.clock import utc_now
from engine.db.models import ExportRow, JobRow
from engine.db.platform import Connection
from engine.errors import DataOpsError, FailedPrecondition, InternalError
from engine.exports.model import ExportFormat, ExportOptions, ExportType, Selection
from engine.exports.request import Notice, not_covered, not_exportable
from engine.exports.selection import check_selection, check_values
from engine.exports.states import ExportStatus, move
from engine.exports.write import Wanted, Written, write_export
from engine.faults import fault
from engine.jobs.handlers import Ending
from engine.jobs.service import caller_of_job

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

S = ExportStatus


@dataclass(frozen=True)
class Exported:
    """What was written: its artifact is closed and still the job's."""

    artifact_id: uuid.UUID
    snapshot_at: datetime
    size: int
    sha256: bytes
    entities: tuple[Written, ...]
    notices: list[Notice]


class ExportHandler:
    """From a snapshot of one entity or several to a file."""

    def started(self, session: Session, job: JobRow) -> None:
        move(_export(session, job), S.PROCESSING, utc_now())

    def run(self, run: JobRun) -> Ending:
        resources = run.resources
        with resources.db.transaction() as session:
            run.require_hold(session)
            row = _export(session, run.job)
            caller = caller_of_job(session, run.job, resources.clock())
            for entity in row.entity_types:
                caller.require("exports.create", entity)
            # the file is known from its first part on, so that a download can follow it
            artifact_id = resources.artifacts.create(session, ArtifactKind.EXPORT, "job", run.job.id)
            row.artifact_id = artifact_id
            wanted = _wanted(row)
        exported = _export_snapshot(run, wanted, artifact_id)
        return lambda session: self._end(session, run, exported)

    def failed(self, session: Session, job: JobRow, error: DataOpsError) -> None:
        row = _export(session, job)
        move(row, S.FAILED, utc_now())
        row.error, row.artifact_id = error.as_record(), None

    def cancelled(self, session: Session, job: JobRow) -> None:
        row = _export(session, job)
        move(row, S.CANCELLED, utc_now())
        row.artifact_id = None

    def retried(self, session: Session, job: JobRow) -> None:
        move(_export(session, job), S.PENDING, utc_now())

    def _end(self, session: Session, run: JobRun, exported: Exported) -> None:
        resources, now = run.resources, run.resources.clock()
        row = _export(session, run.job)
        row.expires_at = now + timedelta(seconds=resources.settings.export_seconds)
        resources.artifacts.adopt(session, exported.artifact_id, "exports", row.id, row.expires_at)
        row.artifact_id, row.sha256 = exported.artifact_id, exported.sha256
        row.snapshot_at = exported.snapshot_at
        row.file_size_bytes, row.record_count = exported.size, sum(written.rows for written in exported.entities)
        row.entities = [written.as_record() for written in exported.entities]
        row.options = row.options | {"notices": exported.notices}
        move(row, S.COMPLETED, now)


def _wanted(row: ExportRow) -> Wanted:
    export_type = ExportType(row.export_type)
    partial = export_type is ExportType.PARTIAL
    return Wanted(
        export_id=row.id,
        export_type=export_type,
        entities=tuple(row.entity_types),
        format=ExportFormat(row.format),
        options=ExportOptions.from_record(row.options),
        selection=Selection.from_record(row.options.get("selection") or {}) if partial else None,
        created_at=row.created_at,
    )


def _export_snapshot(run: JobRun, wanted: Wanted, artifact_id: uuid.UUID) -> Exported:
    """All entities as they are at one moment."""
    resources = run.resources
    with run.platform("export", autocommit=True) as connection:
        entities = _entities(connection, resources.catalogs.read(connection), wanted)
        with one_moment(connection):
            lock_shared(connection, entities)
            snapshot_at = resources.clock()
            catalog = require_unchanged(resources.catalogs.read(connection), entities)
            whole = wanted.selection is None or not (wanted.selection.filters or wanted.selection.limit)
            run.stage("EXPORT", rows=sum(entity.estimated_rows for entity in entities) if whole else None)
            with resources.artifacts.writer(artifact_id) as writer:
                written = write_export(run, connection, wanted, entities, snapshot_at, writer)
                fault("exports.written")
                run.check()
                closed = writer.close()
    full = wanted.export_type is ExportType.FULL
    notices = not_covered(catalog, [entity.name for entity in entities]) if full else []
    return Exported(artifact_id, snapshot_at, closed.size, closed.sha256, tuple(written), notices)


def _entities(connection: Connection, catalog: Catalog, wanted: Wanted) -> list[Entity]:
    """The entities, looked at again: time has passed since the call."""
    entities = [catalog.entity(name) for name in wanted.entities]
    values: list[Any] = []
    for entity in entities:
        if why := not_exportable(entity):
            raise FailedPrecondition(f"{entity.name}: {why}", reason="ENTITY_NOT_EXPORTABLE")
        if wanted.selection is not None:
            values += check_selection(entity, wanted.selection, alone=len(entities) == 1)
    check_values(connection, values)
    return entities


def _export(session: Session, job: JobRow) -> ExportRow:
    row = session.get(ExportRow, job.resource_id, with_for_update=True, populate_existing=True)
    if row is None:
        raise InternalError("the export of this job does not exist", reason="EXPORT_GONE")
    return row
