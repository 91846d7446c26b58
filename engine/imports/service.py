"""Imports as the server asks for them: short control transactions and pages of what a plan holds."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.access import Caller, once
from engine.audit import record_change, record_intent
from engine.db.models import ImportRow
from engine.errors import Aborted, FailedPrecondition, InvalidRequest, NotBuilt, NotFound
from engine.ids import new_id
from engine.imports.model import (
    ChangeKind,
    FieldChange,
    ImportRequest,
    ImportType,
    OnDrift,
    OnRefused,
    ReportFile,
    ReportPart,
    RowChange,
    RowError,
    Severity,
)
from engine.imports.planfile import Plan
from engine.imports.run import begin_apply
from engine.imports.states import FINAL, ImportStatus, move
from engine.imports.validate import MASK
from engine.jobs.model import Claim, ClaimMode, JobKind
from engine.jobs.service import cancel_job, create_job
from engine.paging import MAX_BYTES, Page, Paging, created_within, newest_first
from engine.resources import Resources
from engine.uploads.service import Uploads

S = ImportStatus

_PARTS: dict[ReportPart, tuple[str, str, Callable[[ImportRow], uuid.UUID | None]]] = {
    ReportPart.REPORT: ("report.json", "application/json", lambda row: row.report_artifact_id),
    ReportPart.REJECTS: ("rejects.csv", "text/csv", lambda row: row.rejects_artifact_id),
}


class _Budget:
    """What one answer may cost: rows taken, bytes of them, lines looked through for them."""

    LINES = 50_000
    """A rare code in a long list: what is looked through takes half a second at the most."""

    def __init__(self, limit: int) -> None:
        self._rows, self._bytes, self._lines = limit, MAX_BYTES, self.LINES

    @property
    def room(self) -> bool:
        return self._rows > 0 and self._bytes > 0 and self._lines > 0

    def spend(self, line: Sequence[str | None], *, taken: bool) -> bool:
        """Counts a line; gives `taken` back."""
        self._lines -= 1
        if taken:
            self._rows -= 1
            self._bytes -= sum(len(cell or "") for cell in line)
        return taken


class Imports:
    """One object a process; every method is one call of one caller."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._uploads = Uploads(resources)

    def create(self, caller: Caller, request: ImportRequest, request_id: str, body_sha256: bytes) -> ImportRow:
        """Records an import and its plan job.

        Raises:
            NotBuilt: NOT_BUILT; PermissionDenied; NotFound: ENTITY_UNKNOWN, UPLOAD_UNKNOWN;
            FailedPrecondition: UPLOAD_NOT_FINISHED, UPLOAD_GONE; AlreadyExists: REQUEST_ID_REUSED.
        """
        _refuse_unbuilt(request)
        caller.require("imports.create", request.entity_type, request.import_type)
        if request.options.auto_apply:
            caller.require("imports.apply", request.entity_type, request.import_type)
        self._resources.catalogs.load().entity(request.entity_type)
        now = self._resources.clock()
        with self._resources.db.transaction() as session:

            def make() -> uuid.UUID:
                return self._create(session, caller, request, now)

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
        if not caller.may("imports.read", row.entity_type):
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
            query = query.where(ImportRow.entity_type == entity_type)
        if statuses:
            query = query.where(ImportRow.status.in_(statuses))
        if not caller.may("imports.read", "*"):
            names = [e.name for e in self._resources.catalogs.load().entities() if caller.may("imports.read", e.name)]
            query = query.where(ImportRow.entity_type.in_(names))
        with self._resources.db.transaction() as session:
            return newest_first(session, query, paging, ImportRow.created_at, ImportRow.id)

    def apply(
        self, caller: Caller, import_id: uuid.UUID, plan_digest: bytes, request_id: str, body_sha256: bytes
    ) -> ImportRow:
        """Puts the plan the caller has seen into the queue; one that is applied or on its way stays as it is.

        Raises:
            Aborted: PLAN_DIGEST_MISMATCH; FailedPrecondition: IMPORT_STATE, PLAN_EXPIRED; PermissionDenied.
        """
        now = self._resources.clock()
        with self._resources.db.transaction() as session:

            def make() -> uuid.UUID:
                self._apply(session, caller, import_id, plan_digest, now)
                return import_id

            if request_id:
                once(session, caller, "ApplyImport", request_id, body_sha256, make, now)
            else:
                make()
            row = _get(session, import_id)
        self._resources.bell.ring()
        return row

    def cancel(self, caller: Caller, import_id: uuid.UUID) -> ImportRow:
        """Cancels what can be cancelled: a waiting plan at once, a running job by request. A final import stays."""
        now = self._resources.clock()
        with self._resources.db.transaction() as session:
            row = _get(session, import_id, lock=True)
            caller.require("imports.cancel", row.entity_type, row.import_type)
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
    ) -> tuple[Sequence[RowError], str, int]:
        """One page of what is wrong with the file's records, in row order; the next token; how many there are."""
        plan = self._plan(self.get(caller, import_id))
        if plan is None:
            return [], "", 0
        start, total = _position(paging), plan.rows("ERRORS")
        budget = _Budget(paging.limit)
        found: list[RowError] = []
        for number, line in plan.numbered("ERRORS", start):
            if not budget.room:
                break
            error, start = _row_error(line), number + 1
            wanted = (not severities or error.severity in severities) and code in ("", error.code)
            if budget.spend(line, taken=wanted):
                found.append(error)
        return found, paging.token_at((start,)) if start < total else "", total

    def changes(
        self, caller: Caller, import_id: uuid.UUID, paging: Paging, kinds: Sequence[ChangeKind] = ()
    ) -> tuple[Sequence[RowChange], str]:
        """One page of what the plan does to rows: inserts, then skips, each in key order. Secrets are masked."""
        row = self.get(caller, import_id)
        plan = self._plan(row)
        if plan is None:
            return [], ""
        entity = self._resources.catalogs.load().entity(row.entity_type)
        secret = {f.column for f in entity.fields if f.secret}
        key = list(entity.key)
        start, at = _position(paging), 0
        budget = _Budget(paging.limit)
        found: list[RowChange] = []
        for kind in (k for k in ChangeKind if not kinds or k in kinds):
            names = list(plan.head["planned"]) if kind is ChangeKind.INSERT else key
            for number, line in plan.numbered(kind, max(0, start - at)):
                if not budget.room:
                    return found, paging.token_at((at + number,))
                budget.spend(line, taken=True)
                found.append(_row_change(kind, line, names, key, secret))
            at += plan.rows(kind)
            start = max(start, at)
        return found, ""

    def report_part(self, caller: Caller, import_id: uuid.UUID, part: ReportPart) -> ReportFile:
        """A file of the import.

        Raises:
            NotFound: REPORT_PART_MISSING where the import has none (yet, or because nothing was rejected).
            NotBuilt: NOT_BUILT for the changes as a file.
        """
        row = self.get(caller, import_id)
        if part not in _PARTS:
            raise NotBuilt("the changes as a file come with a later release", reason="NOT_BUILT")
        name, media_type, artifact_of = _PARTS[part]
        artifact_id = artifact_of(row)
        if artifact_id is None:
            raise NotFound(
                f"import: found no {part.lower()} of it, its status is {row.status}", reason="REPORT_PART_MISSING"
            )
        return ReportFile(artifact_id, f"{row.entity_type}-{row.id}-{name}", media_type)

    def expire(self, now: datetime) -> int:
        """Ends plans that nobody applied in time; how many. Their artifacts go with the sweep."""
        with self._resources.db.transaction() as session:
            waiting = select(ImportRow).where(
                ImportRow.status == S.AWAITING_APPROVAL.value, ImportRow.plan_expires_at < now
            )
            rows = list(session.scalars(waiting.with_for_update(skip_locked=True).limit(100)))
            for row in rows:
                move(row, S.EXPIRED, now)
                for artifact_id in (row.plan_artifact_id, row.rejects_artifact_id):
                    if artifact_id is not None:
                        self._resources.artifacts.discard(session, artifact_id)
                row.plan_artifact_id = row.rejects_artifact_id = None
        return len(rows)

    def _create(self, session: Session, caller: Caller, request: ImportRequest, now: datetime) -> uuid.UUID:
        upload = self._uploads.for_import(session, request.upload_id, caller)
        import_id = new_id()
        options = request.options.as_record()
        options["name"] = request.name or upload.name
        options["mapping"] = [{"column": m.column, "field": m.field} for m in request.mapping]
        row = ImportRow(
            id=import_id,
            import_type=request.import_type.value,
            entity_type=request.entity_type,
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
        details = {
            "entity_types": [request.entity_type],
            "import_type": request.import_type.value,
            "upload_id": str(upload.id),
            "auto_apply": request.options.auto_apply,
        }
        intent_id = record_intent(session, caller, "imports.create", "imports", import_id, details, now)
        job = create_job(
            session,
            kind=JobKind.IMPORT_PLAN,
            resource_type="imports",
            resource_id=import_id,
            claims=[Claim(request.entity_type, ClaimMode.READ)],
            caller=caller,
            intent_id=intent_id,
            now=now,
        )
        row.plan_job_id = job.id
        return import_id

    def _apply(self, session: Session, caller: Caller, import_id: uuid.UUID, plan_digest: bytes, now: datetime) -> None:
        row = _get(session, import_id, lock=True)
        caller.require("imports.apply", row.entity_type, row.import_type)
        if row.plan_digest is not None and row.plan_digest != plan_digest:
            raise Aborted(
                "plan_digest: found another one than this import's plan; look at the plan again",
                reason="PLAN_DIGEST_MISMATCH",
            )
        if row.status in (S.PROCESSING, S.COMPLETED):
            return
        if row.status != S.AWAITING_APPROVAL:
            raise FailedPrecondition(
                f"import: found it {row.status}, expected AWAITING_APPROVAL",
                reason="IMPORT_STATE",
                metadata={"status": row.status},
            )
        if row.plan_expires_at is not None and row.plan_expires_at < now:
            raise FailedPrecondition("plan: found it expired, make a new one", reason="PLAN_EXPIRED")
        begin_apply(session, self._resources, row, caller, now)

    def _plan(self, row: ImportRow) -> Plan | None:
        if row.plan_artifact_id is None or row.plan_digest is None:
            return None
        return Plan.open(self._resources.artifacts.reader(row.plan_artifact_id), row.plan_digest)


def _refuse_unbuilt(request: ImportRequest) -> None:
    options = request.options
    if request.import_type is not ImportType.ADDITIVE:
        raise NotBuilt(f"import type: found {request.import_type}, expected ADDITIVE", reason="NOT_BUILT")
    if options.format != "CSV":
        raise NotBuilt(f"format: found {options.format}, expected CSV", reason="NOT_BUILT")
    if options.on_drift is not OnDrift.ABORT or options.on_refused is not OnRefused.ABORT:
        raise NotBuilt("on_drift, on_refused: expected ABORT in this release", reason="NOT_BUILT")
    if options.error_budget is not None and options.error_budget < 0:
        raise InvalidRequest("error_budget: expected 0 or more", reason="OPTION_INVALID")


def _get(session: Session, import_id: uuid.UUID, *, lock: bool = False) -> ImportRow:
    row = session.get(ImportRow, import_id, with_for_update=lock, populate_existing=True)
    if row is None:
        raise _unknown(import_id)
    return row


def _unknown(import_id: uuid.UUID) -> NotFound:
    return NotFound("import: found none with this id", reason="IMPORT_UNKNOWN", metadata={"import_id": str(import_id)})


def _position(paging: Paging) -> int:
    after = paging.position()
    if after is None:
        return 0
    if len(after) != 1 or not isinstance(after[0], int) or after[0] < 0:
        raise InvalidRequest("page_token: expected one of this list", reason="PAGE_TOKEN_INVALID")
    return after[0]


def _row_error(line: Sequence[str | None]) -> RowError:
    row, severity, field, code, message, value = (cell or "" for cell in line)
    return RowError(int(row), field, code, message, value, Severity(severity))


def _row_change(
    kind: ChangeKind, line: Sequence[str | None], names: Sequence[str], key: Sequence[str], secret: set[str]
) -> RowChange:
    values = dict(zip(names, line[2:], strict=True))
    shown = {name: MASK if name in secret and value is not None else value for name, value in values.items()}
    fields = tuple(FieldChange(n, None, v) for n, v in shown.items()) if kind is ChangeKind.INSERT else ()
    return RowChange(int(line[0] or 0), kind, {n: shown[n] or "" for n in key if n in shown}, fields)
