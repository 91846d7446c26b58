"""The job of an export: lock, snapshot, stream.

The lock comes before the snapshot: without it another session's TRUNCATE or rewriting ALTER would make it read
no rows. Bytes come from COPY and go through sealing as they come; no file is ever whole in memory.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from psycopg import IsolationLevel, sql
from sqlalchemy.orm import Session

from engine.access import CallContext, caller_of
from engine.artifacts import ArtifactKind, ArtifactWriter
from engine.clock import utc_now
from engine.db.copy import CopyOut
from engine.db.models import ExportRow, JobRow
from engine.db.platform import Connection
from engine.errors import Aborted, DataOpsError, FailedPrecondition, InternalError
from engine.exports.model import ExportOptions
from engine.exports.query import csv_copy, exported_fields
from engine.exports.states import ExportStatus, move
from engine.faults import fault
from engine.jobs.handlers import Ending

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

S = ExportStatus

SWEEP_MARGIN = timedelta(hours=1)
"""An expired export's file outlives it a little: what expires the export and what sweeps artifacts are two duties."""


@dataclass(frozen=True)
class Exported:
    """What was written: its artifact is closed and still the job's."""

    artifact_id: uuid.UUID
    snapshot_at: datetime
    rows: int
    size: int
    sha256: bytes


class ExportHandler:
    """From a snapshot of one entity to a file."""

    def started(self, session: Session, job: JobRow) -> None:
        move(_export(session, job), S.PROCESSING, utc_now())

    def run(self, run: JobRun) -> Ending:
        resources = run.resources
        with resources.db.transaction() as session:
            run.require_hold(session)
            row = _export(session, run.job)
            context = CallContext.from_record(run.job.context)
            caller = caller_of(session, run.job.principal_id, context, resources.clock())
            for entity in row.entity_types:
                caller.require("exports.create", entity)
            # the file is known from its first part on, so that a download can follow it
            artifact_id = resources.artifacts.create(session, ArtifactKind.EXPORT, "job", run.job.id)
            row.artifact_id = artifact_id
        exported = _stream_entity(run, row.entity_types[0], ExportOptions.from_record(row.options), artifact_id)
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
        resources.artifacts.adopt(session, exported.artifact_id, "exports", row.id, row.expires_at + SWEEP_MARGIN)
        row.artifact_id, row.sha256 = exported.artifact_id, exported.sha256
        row.snapshot_at = exported.snapshot_at
        row.file_size_bytes, row.record_count = exported.size, exported.rows
        move(row, S.COMPLETED, now)


def _stream_entity(run: JobRun, name: str, options: ExportOptions, artifact_id: uuid.UUID) -> Exported:
    resources = run.resources
    with run.platform("export", autocommit=True) as connection:
        entity = resources.catalogs.read(connection).entity(name)
        if entity.refused:
            raise FailedPrecondition(f"{entity.name}: {entity.refused}", reason="ENTITY_NOT_EXPORTABLE")
        connection.isolation_level, connection.read_only = IsolationLevel.REPEATABLE_READ, True
        with connection.transaction():
            # ONLY is no part of LOCK here: partitions and children must stay as they are too
            connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(entity.qualified))
            snapshot_at = resources.clock()
            now_there = resources.catalogs.read(connection).entity(name)
            if now_there.fingerprint != entity.fingerprint:
                raise Aborted(f"{name}: its definition changed while the export began", reason="CATALOG_MOVED")
            run.stage("EXPORT", rows=entity.estimated_rows)
            query = csv_copy(entity, exported_fields(entity, options), options)
            with resources.artifacts.writer(artifact_id) as writer:
                rows = _copy_out(run, connection, query, writer)
                fault("exports.written")
                run.check()
                closed = writer.close()
    return Exported(artifact_id, snapshot_at, rows, closed.size, closed.sha256)


def _copy_out(run: JobRun, connection: Connection, query: sql.Composed, writer: ArtifactWriter) -> int:
    """Streams one COPY; returns its rows, as PostgreSQL counted them (the header is none)."""
    copy, done = CopyOut(connection, query), 0
    for lines in copy:
        writer.write(b"".join(lines))
        done += len(lines)
        run.progress(rows=done, bytes=writer.size)
    run.progress(rows=copy.rows, bytes=writer.size)
    return copy.rows


def _export(session: Session, job: JobRow) -> ExportRow:
    row = session.get(ExportRow, job.resource_id, with_for_update=True, populate_existing=True)
    if row is None:
        raise InternalError("the export of this job does not exist", reason="EXPORT_GONE")
    return row
