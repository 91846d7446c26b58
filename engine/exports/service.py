"""Exports as the server asks for them: short control transactions."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.access import Caller, once
from engine.audit import record_change, record_intent
from engine.db.models import ExportRow
from engine.errors import FailedPrecondition, NotFound
from engine.exports.model import (
    ExportFile,
    ExportFormat,
    ExportOptions,
    ExportRequest,
    ExportType,
    file_ending,
    media_type,
)
from engine.exports.request import Resolved, resolve
from engine.exports.selection import check_values
from engine.exports.states import FINAL, ExportStatus, move
from engine.ids import new_id
from engine.jobs.model import Claim, ClaimMode, JobKind
from engine.jobs.service import cancel_job, create_job
from engine.paging import Page, Paging, created_within, newest_first
from engine.resources import Resources
from engine.retention.record import remove_each, removed

S = ExportStatus


class Exports:
    """One object a process; every method is one call of one caller."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def create(self, caller: Caller, request: ExportRequest, request_id: str, body_sha256: bytes) -> ExportRow:
        """Records an export and its job. Values of a filter are shown to the platform database, which knows its types.

        Raises:
            AlreadyExists: REQUEST_ID_REUSED; Unavailable: PLATFORM_UNREACHABLE; and what `resolve` and `check_values`
            raise.
        """
        resolved = resolve(self._resources.catalogs.load(), caller, request)
        if resolved.values:
            with self._resources.platform.connect("filter", autocommit=True) as connection:
                check_values(connection, list(resolved.values))
        now = self._resources.clock()
        with self._resources.db.transaction() as session:

            def make() -> uuid.UUID:
                return _create(session, caller, resolved, request, now)

            export_id, fresh = once(session, caller, "CreateExport", request_id, body_sha256, make, now)
            row = _get(session, export_id)
        if fresh:
            self._resources.bell.ring()
        return row

    def get(self, caller: Caller, export_id: uuid.UUID) -> ExportRow:
        """Raises:
        NotFound: EXPORT_UNKNOWN, also for one with an entity the caller may not read exports of.
        """
        with self._resources.db.transaction() as session:
            row = _get(session, export_id)
        self._require(caller, "exports.read", row)
        return row

    def list(
        self,
        caller: Caller,
        paging: Paging,
        entity_type: str = "",
        statuses: Sequence[str] = (),
        created: tuple[datetime | None, datetime | None] = (None, None),
    ) -> Page[ExportRow]:
        """Newest first, of the entities whose exports the caller may read; `created` is from (inside) and until."""
        query = created_within(select(ExportRow), ExportRow.created_at, created)
        if entity_type:
            query = query.where(ExportRow.entity_types.contains([entity_type]))
        if statuses:
            query = query.where(ExportRow.status.in_(statuses))
        if not caller.may("exports.read", "*"):
            names = [e.name for e in self._resources.catalogs.load().entities() if caller.may("exports.read", e.name)]
            query = query.where(ExportRow.entity_types.contained_by(names))
        with self._resources.db.transaction() as session:
            return newest_first(session, query, paging, ExportRow.created_at, ExportRow.id)

    def cancel(self, caller: Caller, export_id: uuid.UUID) -> ExportRow:
        """Cancels a waiting or running export; one that has ended stays as it is."""
        now = self._resources.clock()
        with self._resources.db.transaction() as session:
            row = _get(session, export_id, lock=True)
            self._require(caller, "exports.cancel", row)
            if row.status not in FINAL and row.job_id is not None:
                record_change(session, caller, "exports.cancel", "exports", row.id, now)
                cancel_job(session, row.job_id, now)
            session.flush()
            session.refresh(row)
        if row.job_id is not None:
            self._resources.bell.announce(row.job_id)
        return row

    def delete(self, caller: Caller, export_id: uuid.UUID) -> ExportRow:
        """Removes an ended export's file; a deleted one stays deleted.

        Raises:
            FailedPrecondition: EXPORT_STATE while its job waits or runs.
        """
        now = self._resources.clock()
        artifact_id = None
        with self._resources.db.transaction() as session:
            row = _get(session, export_id, lock=True)
            self._require(caller, "exports.delete", row)
            if row.status != S.DELETED:
                artifact_id = row.artifact_id
                record_change(session, caller, "exports.delete", "exports", row.id, now)
                self._drop(session, row, S.DELETED, now)
        if artifact_id is not None:
            self._resources.artifacts.purge(artifact_id)
        return row

    def download(self, caller: Caller, export_id: uuid.UUID) -> ExportFile:
        """The file of an export, complete or being written.

        Raises:
            FailedPrecondition: EXPORT_NOT_READY, EXPORT_EXPIRED, or EXPORT_STATE for one that failed or was deleted.
        """
        with self._resources.db.transaction() as session:
            row = _get(session, export_id)
        self._require(caller, "exports.download", row)
        if row.artifact_id is None:
            reasons = {S.PENDING: "EXPORT_NOT_READY", S.PROCESSING: "EXPORT_NOT_READY", S.EXPIRED: "EXPORT_EXPIRED"}
            raise FailedPrecondition(
                f"export: found it {row.status}, expected one with a file",
                reason=reasons.get(S(row.status), "EXPORT_STATE"),
                metadata={"status": row.status},
            )
        kind = media_type(ExportFormat(row.format), ExportOptions.from_record(row.options).compression)
        return ExportFile(row.artifact_id, row.file_name, kind, lambda: self._writing(export_id))

    def expire(self, now: datetime) -> int:
        """Marks exports whose time is over and lets their files go; how many."""

        def drop(session: Session, row: ExportRow) -> bool:
            self._drop(session, row, S.EXPIRED, now)
            details = {"entity_types": row.entity_types, "size_bytes": row.file_size_bytes}
            removed(session, "exports", row.id, now, details)
            return True

        over = select(ExportRow).where(ExportRow.status == S.COMPLETED.value, ExportRow.expires_at <= now)
        return remove_each(self._resources.db, over, drop)

    def _writing(self, export_id: uuid.UUID) -> bool:
        with self._resources.db.transaction() as session:
            return _get(session, export_id).status == S.PROCESSING

    def _drop(self, session: Session, row: ExportRow, to: ExportStatus, now: datetime) -> None:
        move(row, to, now)
        if row.artifact_id is not None:
            self._resources.artifacts.discard(session, row.artifact_id)
            row.artifact_id = None

    def _require(self, caller: Caller, operation: str, row: ExportRow) -> None:
        if not all(caller.may("exports.read", entity) for entity in row.entity_types):
            raise _unknown(row.id)
        for entity in row.entity_types:
            caller.require(operation, entity)


def _create(session: Session, caller: Caller, resolved: Resolved, asked: ExportRequest, now: datetime) -> uuid.UUID:
    export_id, request = new_id(), resolved.request
    row = ExportRow(
        id=export_id,
        export_type=request.export_type.value,
        entity_types=list(request.entity_types),
        format=request.format.value,
        status=S.PENDING.value,
        options=request.options.as_record()
        | {"name": request.name, "selection": request.selection.as_record(), "notices": list(resolved.notices)},
        principal_id=caller.principal_id,
        context=caller.context.as_record(),
        file_name=_file_name(asked, now),
        created_at=now,
        updated_at=now,
    )
    session.add(row)
    session.flush()
    details = {"entity_types": list(request.entity_types), "format": request.format.value}
    intent_id = record_intent(session, caller, "exports.create", "exports", export_id, details, now)
    job = create_job(
        session,
        kind=JobKind.EXPORT,
        resource_type="exports",
        resource_id=export_id,
        claims=[Claim(entity, ClaimMode.READ) for entity in request.entity_types],
        caller=caller,
        intent_id=intent_id,
        now=now,
    )
    row.job_id = job.id
    return export_id


def _file_name(asked: ExportRequest, now: datetime) -> str:
    """By what was named: an entity, a group, or what several or all are called together."""
    alone = asked.entity_types[0] if len(asked.entity_types) == 1 else ""
    name = alone or ("full" if asked.export_type is ExportType.FULL else "bundle")
    return f"{name}-{now:%Y%m%dT%H%M%SZ}.{file_ending(asked.format, asked.options.compression)}"


def _get(session: Session, export_id: uuid.UUID, *, lock: bool = False) -> ExportRow:
    row = session.get(ExportRow, export_id, with_for_update=lock, populate_existing=True)
    if row is None:
        raise _unknown(export_id)
    return row


def _unknown(export_id: uuid.UUID) -> NotFound:
    return NotFound("export: found none with this id", reason="EXPORT_UNKNOWN", metadata={"export_id": str(export_id)})
