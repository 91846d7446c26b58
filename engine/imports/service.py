"""Imports as the server asks for them: short control transactions and pages of what a plan holds."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.access import Caller, once
from engine.audit import record_change, record_intent
from engine.db.models import ImportRow
from engine.errors import DataInvalid, FailedPrecondition, InvalidRequest, NotBuilt, NotFound, Unavailable
from engine.ids import new_id
from engine.imports import approval
from engine.imports.changes import PlanView, page_of_errors
from engine.imports.model import (
    ChangeKind,
    ImportOptions,
    ImportRequest,
    OnDrift,
    ReportFile,
    ReportPart,
    RowChange,
    RowError,
    Severity,
    effective_on_refused,
)
from engine.imports.planfile import Plan
from engine.imports.rejects import reject_name
from engine.imports.run import begin_apply, begin_plan, require_secrets, written
from engine.imports.sources import bundled_entities
from engine.imports.states import FINAL, ImportStatus, move, require_plan, require_waiting
from engine.jobs.model import Claim, ClaimMode, JobKind
from engine.jobs.service import cancel_job, create_job
from engine.paging import Page, Paging, created_within, newest_first
from engine.resources import Resources
from engine.retention.record import remove_each, removed
from engine.uploads.service import Uploads

S = ImportStatus

FORMATS = ("CSV", "JSON", "JSON_LINES", "BUNDLE")


class Imports:
    """One object a process; every method is one call of one caller."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._uploads = Uploads(resources)

    def create(self, caller: Caller, request: ImportRequest, request_id: str, body_sha256: bytes) -> ImportRow:
        """Records an import and its plan job.

        Raises:
            NotBuilt: NOT_BUILT; PermissionDenied; NotFound: ENTITY_UNKNOWN, UPLOAD_UNKNOWN;
            FailedPrecondition: UPLOAD_NOT_FINISHED, UPLOAD_GONE; AlreadyExists: REQUEST_ID_REUSED;
            InvalidRequest: OPTION_INVALID; DataInvalid: what a bundle is refused for.
        """
        _refuse_misfits(request)
        entities = self._entities(caller, request)
        for name in entities:
            caller.require("imports.create", name, request.import_type)
            if request.options.auto_apply:
                caller.require("imports.apply", name, request.import_type)
            self._resources.catalogs.load().entity(name)
        for name in request.options.allow_cascade:
            self._resources.catalogs.load().entity(name)
            caller.require("imports.apply", name, request.import_type)
        now = self._resources.clock()
        with self._resources.db.transaction() as session:

            def make() -> uuid.UUID:
                return self._create(session, caller, request, entities, now)

            import_id, fresh = once(session, caller, "CreateImport", request_id, body_sha256, make, now)
            row = _get(session, import_id)
        if fresh:
            self._resources.bell.ring()
        return row

    def get(self, caller: Caller, import_id: uuid.UUID) -> ImportRow:
        """Raises:
        NotFound: IMPORT_UNKNOWN, also for one whose entity the caller may not read.
        """
        with self._resources.db.transaction() as session:
            row = _get(session, import_id)
        if not all(caller.may("imports.read", name) for name in row.entity_types):
            raise _unknown(import_id)
        return row

    def list(
        self,
        caller: Caller,
        paging: Paging,
        entity_type: str = "",
        statuses: Sequence[str] = (),
        created: tuple[datetime | None, datetime | None] = (None, None),
    ) -> Page[ImportRow]:
        """Newest first, of the entities the caller may read; `created` is from (inside) and until (outside)."""
        query = created_within(select(ImportRow), ImportRow.created_at, created)
        if entity_type:
            query = query.where(ImportRow.entity_types.contains([entity_type]))
        if statuses:
            query = query.where(ImportRow.status.in_(statuses))
        if not caller.may("imports.read", "*"):
            names = [e.name for e in self._resources.catalogs.load().entities() if caller.may("imports.read", e.name)]
            query = query.where(ImportRow.entity_types.contained_by(names))
        with self._resources.db.transaction() as session:
            return newest_first(session, query, paging, ImportRow.created_at, ImportRow.id)

    def apply(
        self,
        caller: Caller,
        import_id: uuid.UUID,
        plan_digest: bytes,
        request_id: str,
        body_sha256: bytes,
        confirmed_deletes: int | None = None,
    ) -> ImportRow:
        """Puts the plan the caller has seen into the queue; one that is applied or on its way stays as it is.

        Raises:
            Aborted: PLAN_DIGEST_MISMATCH; FailedPrecondition: IMPORT_STATE, PLAN_EXPIRED, APPROVAL_NEEDED,
            DELETES_NOT_CONFIRMED; PermissionDenied.
        """
        now = self._resources.clock()
        with self._resources.db.transaction() as session:

            def make() -> uuid.UUID:
                self._apply(session, caller, import_id, plan_digest, confirmed_deletes, now)
                return import_id

            if request_id:
                once(session, caller, "ApplyImport", request_id, body_sha256, make, now)
            else:
                make()
            row = _get(session, import_id)
        self._resources.bell.ring()
        return row

    def approve(self, caller: Caller, import_id: uuid.UUID, plan_digest: bytes) -> ImportRow:
        """Another person's word on one plan, without which it is not applied where a setting asks for that.

        Raises: as `approval.approve`; NotFound: IMPORT_UNKNOWN.
        """
        now, settings = self._resources.clock(), self._resources.settings
        with self._resources.db.transaction() as session:
            row = _get(session, import_id, lock=True)
            approval.approve(session, caller, row, written(row), plan_digest, settings, now)
        return row

    def cancel(self, caller: Caller, import_id: uuid.UUID) -> ImportRow:
        """Cancels what can be cancelled: a waiting plan at once, a running job by request. A final import stays."""
        now = self._resources.clock()
        with self._resources.db.transaction() as session:
            row = _get(session, import_id, lock=True)
            for name in row.entity_types:
                caller.require("imports.cancel", name, row.import_type)
            job_id = row.apply_job_id if row.status == S.PROCESSING else row.plan_job_id
            if row.status == S.AWAITING_APPROVAL:
                record_change(session, caller, "imports.cancel", "imports", row.id, now)
                move(row, S.CANCELLED, now)
            elif row.status not in FINAL and job_id is not None:
                record_change(session, caller, "imports.cancel", "imports", row.id, now)
                cancel_job(session, job_id, now)
            session.flush()
            session.refresh(row)
        if job_id is not None:
            self._resources.bell.announce(job_id)
        return row

    def errors(
        self,
        caller: Caller,
        import_id: uuid.UUID,
        paging: Paging,
        severities: Sequence[Severity] = (),
        code: str = "",
        entity: str = "",
    ) -> tuple[Sequence[RowError], str, int]:
        """One page of the file's records that were not taken, by row; the next token; how many faults there are."""
        row = self.get(caller, import_id)
        plan = self._plan(row)
        if plan is None:
            return [], "", 0
        plans = [(plan, "ERRORS")]
        if late := (row.plan_summary or {}).get("late"):
            plans.append((Plan.read(self._resources.artifacts.reader(uuid.UUID(late))), "LATE"))
        return page_of_errors(plans, paging, severities, code, entity)

    def changes(
        self,
        caller: Caller,
        import_id: uuid.UUID,
        paging: Paging,
        kinds: Sequence[ChangeKind] = (),
        entity: str = "",
        field: str = "",
    ) -> tuple[Sequence[tuple[int, RowChange]], str]:
        """One page of what the plan does to rows, each with its place in it; entity by entity, new rows in the file's
        order, the others in key order within each kind. Secrets are masked."""
        row = self.get(caller, import_id)
        plan = self._plan(row)
        if plan is None:
            return [], ""
        _require_all_read(caller, row)
        return PlanView(plan, self._resources.catalogs.load()).page(paging, kinds, entity, field)

    def report_part(self, caller: Caller, import_id: uuid.UUID, part: ReportPart) -> ReportFile:
        """A file of the import. The changes are made by a job when they are first asked for.

        Raises:
            NotFound: REPORT_PART_MISSING where the import has none (yet, or because nothing was rejected).
            Unavailable: REPORT_PART_BEING_MADE.
        """
        row = self.get(caller, import_id)
        name, media_type, artifact_id = {
            ReportPart.REPORT: ("report.json", "application/json", row.report_artifact_id),
            ReportPart.REJECTS: (*reject_name(ImportOptions.from_record(row.options)), row.rejects_artifact_id),
            ReportPart.CHANGES: ("changes.csv", "text/csv", row.changes_artifact_id),
        }[part]
        if part is ReportPart.CHANGES:
            _require_all_read(caller, row)
        if artifact_id is None and part is ReportPart.CHANGES and row.plan_artifact_id is not None:
            self._make_changes(caller, import_id)
            raise Unavailable(
                "changes: they are being written into a file; ask again",
                reason="REPORT_PART_BEING_MADE",
                retry_after=1.0,
            )
        if artifact_id is None:
            raise NotFound(
                f"import: found no {part.lower()} of it, its status is {row.status}", reason="REPORT_PART_MISSING"
            )
        return ReportFile(artifact_id, f"{row.entity_type or 'bundle'}-{row.id}-{name}", media_type)

    def _make_changes(self, caller: Caller, import_id: uuid.UUID) -> None:
        now = self._resources.clock()
        with self._resources.db.transaction() as session:
            row = _get(session, import_id, lock=True)
            if row.changes_job_id is not None or row.changes_artifact_id is not None:
                return
            details = {"entity_types": row.entity_types}
            job = create_job(
                session,
                kind=JobKind.IMPORT_CHANGES,
                resource_type="imports",
                resource_id=row.id,
                claims=[Claim(name, ClaimMode.READ) for name in row.entity_types],
                caller=caller,
                intent_id=record_intent(session, caller, "imports.read", "imports", row.id, details, now),
                now=now,
            )
            row.changes_job_id = job.id
        self._resources.bell.ring()

    def expire(self, now: datetime) -> int:
        """Ends plans that nobody applied in time; how many. Their artifacts go with the sweep."""

        def end(session: Session, row: ImportRow) -> bool:
            move(row, S.EXPIRED, now)
            gone = self._resources.artifacts.discard_of(session, "imports", row.id)
            row.plan_artifact_id = row.rejects_artifact_id = row.changes_artifact_id = None
            details = {
                "entity_types": row.entity_types,
                "files": [artifact.kind for artifact in gone],
                "size_bytes": sum(artifact.size for artifact in gone),
            }
            removed(session, "imports", row.id, now, details)
            return True

        waiting = select(ImportRow).where(
            ImportRow.status == S.AWAITING_APPROVAL.value, ImportRow.plan_expires_at <= now
        )
        return remove_each(self._resources.db, waiting, end)

    def _entities(self, caller: Caller, request: ImportRequest) -> Sequence[str]:
        """The entities to be written: the one asked for, or those of the bundle's manifest."""
        if request.options.format != "BUNDLE":
            return [request.entity_type]
        with self._resources.db.transaction() as session:
            upload = self._uploads.for_import(session, request.upload_id, caller)
        found = bundled_entities(self._resources, upload)
        if not found:
            raise DataInvalid("bundle: found no entity in its manifest", reason="BUNDLE_INVALID")
        return found

    def _create(
        self, session: Session, caller: Caller, request: ImportRequest, entities: Sequence[str], now: datetime
    ) -> uuid.UUID:
        upload = self._uploads.for_import(session, request.upload_id, caller)
        import_id = new_id()
        options = request.options.as_record()
        options["on_refused"] = effective_on_refused(request.options, request.import_type).value
        options["name"] = request.name or upload.name
        options["mapping"] = [m.as_record() for m in request.mapping]
        row = ImportRow(
            id=import_id,
            import_type=request.import_type.value,
            entity_type=request.entity_type,
            entity_types=[*entities],
            status=S.PENDING.value,
            upload_id=upload.id,
            options=options,
            principal_id=caller.principal_id,
            context=caller.context.as_record(),
            created_at=now,
            updated_at=now,
        )
        session.add(row)
        session.flush()
        row.plan_job_id = begin_plan(session, row, caller, now).id
        return import_id

    def _apply(
        self,
        session: Session,
        caller: Caller,
        import_id: uuid.UUID,
        plan_digest: bytes,
        confirmed_deletes: int | None,
        now: datetime,
    ) -> None:
        row = _get(session, import_id, lock=True)
        for name in written(row):
            caller.require("imports.apply", name, row.import_type)
        require_secrets(caller, row)
        require_plan(row, plan_digest)
        if row.status in (S.PROCESSING, S.COMPLETED):
            return
        require_waiting(row, now)
        approval.require_approved(caller, row, self._resources.settings)
        _require_confirmation(row, confirmed_deletes)
        row.confirmed_deletes = confirmed_deletes
        begin_apply(session, self._resources, row, caller, now)

    def _plan(self, row: ImportRow) -> Plan | None:
        if row.plan_artifact_id is None or row.plan_digest is None:
            return None
        return Plan.open(self._resources.artifacts.reader(row.plan_artifact_id), row.plan_digest)


def _refuse_misfits(request: ImportRequest) -> None:
    options, bundle = request.options, request.options.format == "BUNDLE"
    if options.format not in FORMATS:
        raise NotBuilt(f"format: found {options.format}, expected {', '.join(FORMATS)}", reason="NOT_BUILT")
    if bundle != (not request.entity_type):
        raise InvalidRequest(
            "entity_type: expected none for a bundle, and one for every other file", reason="OPTION_INVALID"
        )
    if options.error_budget is not None and options.error_budget < 0:
        raise InvalidRequest("error_budget: expected 0 or more", reason="OPTION_INVALID")
    if options.on_drift is OnDrift.REPLAN and not options.auto_apply:
        raise InvalidRequest(
            "on_drift: found REPLAN without auto_apply, expected both or neither", reason="OPTION_INVALID"
        )
    if bundle and options.key_fields:
        raise InvalidRequest("key_fields: expected none for a bundle", reason="OPTION_INVALID")


def _require_all_read(caller: Caller, row: ImportRow) -> None:
    """What foreign keys change is shown too, whole rows of it."""
    for name in written(row):
        caller.require("imports.read", name)


def _require_confirmation(row: ImportRow, confirmed: int | None) -> None:
    """The number of deletes, repeated where the plan asks for it; a number that is given must be right."""
    summary = row.plan_summary or {}
    deletes = int(summary.get("counts", {}).get("delete", 0))
    if confirmed == deletes or (confirmed is None and not summary.get("deletes_need_confirmation")):
        return
    found = "none" if confirmed is None else f"{confirmed}"
    raise FailedPrecondition(
        f"confirmed_deletes: found {found}, expected the plan's {deletes}",
        reason="DELETES_NOT_CONFIRMED",
        metadata={"deletes": str(deletes)},
    )


def _get(session: Session, import_id: uuid.UUID, *, lock: bool = False) -> ImportRow:
    row = session.get(ImportRow, import_id, with_for_update=lock, populate_existing=True)
    if row is None:
        raise _unknown(import_id)
    return row


def _unknown(import_id: uuid.UUID) -> NotFound:
    return NotFound("import: found none with this id", reason="IMPORT_UNKNOWN", metadata={"import_id": str(import_id)})
