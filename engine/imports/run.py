"""The jobs of an import. Read `PlanHandler.run` and `ApplyHandler.run` as the table of contents.

(extract ->) upload -> decode -> map -> validate -> plan     IMPORT_PLAN
plan -> backup -> apply -> report                            IMPORT_APPLY
plan -> changes as a file                                    IMPORT_CHANGES, when it is asked for
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.access import Caller
from engine.artifacts import ArtifactKind
from engine.audit import record_intent
from engine.backups.extract import Extraction, take_out
from engine.clock import utc_now
from engine.db.models import ArtifactRow, ExportRow, ImportRow, JobRow, UploadRow
from engine.errors import DataInvalid, DataOpsError, FailedPrecondition, InternalError
from engine.imports import approval
from engine.imports.apply import ROLLED_BACK, Applier
from engine.imports.backup import back_up
from engine.imports.laterejects import late_rejects
from engine.imports.model import ImportOptions, ImportType, OnDrift, effective_error_budget
from engine.imports.plan import Planner
from engine.imports.planwrite import Planned
from engine.imports.report import make_report, not_successful, successful, write_report
from engine.imports.states import ImportStatus, fail, move
from engine.jobs.handlers import Ending
from engine.jobs.model import Claim, ClaimMode, JobKind
from engine.jobs.service import caller_of_job, create_job
from engine.resources import Resources
from engine.uploads.service import Uploads

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

S = ImportStatus

KEPT_WITHOUT_REPORT = timedelta(days=30)

MOST_REPLANS = 5
"""Plans made anew for one import before it gives up: rows that move so fast are written by somebody else."""


class PlanHandler:
    """From an upload to a plan somebody can look at."""

    def started(self, session: Session, job: JobRow) -> None:
        move(_import(session, job), S.VALIDATING, utc_now())

    def run(self, run: JobRun) -> Ending:
        resources = run.resources
        with resources.db.transaction() as session:
            row = _import(session, run.job, lock=False)
            upload = session.get(UploadRow, row.upload_id)
            caller = caller_of_job(session, run.job, resources.clock())
            guarded = upload is not None and guarded_by_us(session, upload)
        for name in row.entity_types:
            caller.require("imports.create", name, row.import_type)
        extraction = Extraction.of(row)
        if extraction is not None and upload is not None and upload.state == "OPEN":
            extraction = take_out(run, row, upload, caller, extraction)
            with resources.db.transaction() as session:
                upload = session.get(UploadRow, row.upload_id)
        if upload is None or upload.state != "FINISHED" or upload.artifact_id is None:
            raise FailedPrecondition("upload: found it gone, expected a finished one", reason="UPLOAD_GONE")
        planned = Planner(run, row, upload, caller, guarded=guarded).plan()
        if extraction is not None:
            planned.summary["notices"] += extraction.notices()
        if (over := _over_budget(row, planned)) is not None:
            with resources.db.transaction() as session:
                run.require_hold(session)
                self._record(session, run, planned)  # the faults stay listed although the job fails
            raise over
        return lambda session: self._end(session, run, planned, caller)

    def failed(self, session: Session, job: JobRow, error: DataOpsError) -> None:
        fail(_import(session, job), error, utc_now())

    def cancelled(self, session: Session, job: JobRow) -> None:
        move(_import(session, job), S.CANCELLED, utc_now())

    def retried(self, session: Session, job: JobRow) -> None:
        row = _import(session, job)
        move(row, S.PENDING, utc_now())
        row.changes_artifact_id = row.changes_job_id = None  # of the plan that failed

    def _record(self, session: Session, run: JobRun, planned: Planned) -> ImportRow:
        """The plan on the import, and its artifacts the import's."""
        resources, now = run.resources, run.resources.clock()
        row = _import(session, run.job)
        row.total_records, row.failed_records = planned.counts.total, planned.counts.failed
        row.plan_artifact_id, row.rejects_artifact_id = planned.artifact_id, planned.rejects_artifact_id
        row.plan_digest, row.plan_summary = planned.digest, planned.summary
        row.plan_expires_at = now + timedelta(seconds=resources.settings.plan_seconds)
        approval.ask_anew(row, planned.summary, resources.settings)
        kept = now + timedelta(seconds=resources.settings.report_seconds)
        for artifact_id in (planned.artifact_id, planned.rejects_artifact_id):
            if artifact_id is not None:
                resources.artifacts.adopt(session, artifact_id, "imports", row.id, kept)
        return row

    def _end(self, session: Session, run: JobRun, planned: Planned, caller: Caller) -> None:
        resources, now = run.resources, run.resources.clock()
        row = self._record(session, run, planned)
        asked = planned.summary["deletes_need_confirmation"] or row.approval_needed
        if ImportOptions.from_record(row.options).auto_apply and not asked:
            begin_apply(session, resources, row, caller, now)
        else:
            assert row.plan_expires_at is not None
            resources.artifacts.adopt(session, planned.artifact_id, "imports", row.id, row.plan_expires_at)
            move(row, S.AWAITING_APPROVAL, now)


class ApplyHandler:
    """From an approved plan to rows, and to a report."""

    def started(self, session: Session, job: JobRow) -> None:
        """The import is PROCESSING since its apply was asked for."""

    def run(self, run: JobRun) -> Ending:
        resources = run.resources
        with resources.db.transaction() as session:
            row = _import(session, run.job, lock=False)
            caller = caller_of_job(session, run.job, resources.clock())
        if (mark := run.take_over()) is not None:
            facts = mark.facts  # an earlier attempt's effect stands; what is left is to say so
        else:
            for name in written(row):
                caller.require("imports.apply", name, row.import_type)
            require_secrets(caller, row)
            with resources.db.transaction() as session:
                approval.require_standing(session, row, written(row), resources.clock())
            backup_id = back_up(run, written(row))
            facts = Applier(run, row).apply(backup_id)
        run.stage("REPORT")
        report = make_report(row.plan_summary or {}, facts)
        try:
            rejects_id = late_rejects(run, row, facts)
        except DataOpsError as error:  # the rows are in: what is missing is a file
            rejects_id = None
            message = "the file of refused rows could not be written again; ListImportErrors has all of them"
            report["notices"].append({"code": "REJECTS_INCOMPLETE", "message": f"{message} ({error.reason})"})
        report_id = write_report(run, row, report, facts, resources.clock())
        return lambda session: self._end(session, run, report, report_id, rejects_id, facts)

    def failed(self, session: Session, job: JobRow, error: DataOpsError) -> None:
        row, now = _import(session, job), utc_now()
        if error.metadata.get("effect") == "committed":
            keep_undo(session, row, job, now)
        elif error.reason == "PLAN_STALE" and plan_again(session, row, job, now):
            return
        to = S.ROLLED_BACK if error.metadata.get(ROLLED_BACK) else S.FAILED
        fail(row, error, now, to=to)

    def cancelled(self, session: Session, job: JobRow) -> None:
        move(_import(session, job), S.CANCELLED, utc_now())

    def retried(self, session: Session, job: JobRow) -> None:
        move(_import(session, job), S.PROCESSING, utc_now())

    def _end(
        self,
        session: Session,
        run: JobRun,
        report: dict[str, Any],
        report_id: uuid.UUID,
        rejects_id: uuid.UUID | None,
        facts: dict[str, Any],
    ) -> None:
        resources, now = run.resources, run.resources.clock()
        row = _import(session, run.job)
        kept = now + timedelta(seconds=resources.settings.report_seconds)
        resources.artifacts.adopt(session, report_id, "imports", row.id, kept)
        if rejects_id is not None:
            resources.artifacts.adopt(session, rejects_id, "imports", row.id, kept)
            row.rejects_artifact_id = rejects_id
        undo_id = uuid.UUID(facts["undo_artifact_id"]) if facts["undo_artifact_id"] else row.plan_artifact_id
        assert undo_id is not None
        if session.get(ArtifactRow, undo_id) is None:
            raise InternalError("the undo data of this import is gone", reason="UNDO_GONE")
        resources.artifacts.adopt(session, undo_id, "imports", row.id, kept)
        row.report, row.report_artifact_id, row.undo_artifact_id = report, report_id, undo_id
        row.pre_import_backup_id = uuid.UUID(facts["backup_id"]) if facts["backup_id"] else None
        row.plan_summary = (row.plan_summary or {}) | {"late": facts["undo_artifact_id"] if _late(facts) else None}
        row.total_records = report["total_records"]
        row.successful_records, row.failed_records = successful(report), not_successful(report)
        move(row, S.COMPLETED, now)
        Uploads(resources).delete(session, row.upload_id)  # other plans made from it stand alone


def begin_apply(session: Session, resources: Resources, row: ImportRow, caller: Caller, now: datetime) -> JobRow:
    """Puts the import's apply into the queue: the intent, the job, the claims to write."""
    move(row, S.PROCESSING, now)
    intent_id = record_intent(
        session,
        caller,
        "imports.apply",
        "imports",
        row.id,
        {"entity_types": written(row), "plan_digest": (row.plan_digest or b"").hex()},
        now,
    )
    job = create_job(
        session,
        kind=JobKind.IMPORT_APPLY,
        resource_type="imports",
        resource_id=row.id,
        claims=[Claim(name, ClaimMode.WRITE) for name in written(row)],
        caller=caller,
        intent_id=intent_id,
        now=now,
    )
    row.apply_job_id = job.id
    assert row.plan_artifact_id is not None
    kept = now + timedelta(seconds=resources.settings.report_seconds)
    resources.artifacts.adopt(session, row.plan_artifact_id, "imports", row.id, kept)
    return job


def keep_undo(session: Session, row: ImportRow, job: JobRow, now: datetime) -> None:
    """The rows are in although the job cannot be brought to its end: what could take them out again must stay."""
    undo = select(ArtifactRow).where(
        ArtifactRow.owner_type == "job",
        ArtifactRow.owner_id == job.id,
        ArtifactRow.kind == ArtifactKind.UNDO.value,
        ArtifactRow.state == "CLOSED",
    )
    for artifact in session.scalars(undo):
        artifact.owner_type, artifact.owner_id, artifact.expires_at = "imports", row.id, now + KEPT_WITHOUT_REPORT
        row.undo_artifact_id = artifact.id
    row.undo_artifact_id = row.undo_artifact_id or row.plan_artifact_id


def _import(session: Session, job: JobRow, *, lock: bool = True) -> ImportRow:
    row = session.get(ImportRow, job.resource_id, with_for_update=lock, populate_existing=True)
    if row is None:
        raise InternalError("the import of this job does not exist", reason="IMPORT_GONE")
    return row


def _late(facts: dict[str, Any]) -> bool:
    """Whether apply itself left records out."""
    return any(own["late_failed"] or own["late_skipped"] for own in facts["entities"])


def written(row: ImportRow) -> list[str]:
    """The entities that the import writes, by itself or by foreign keys."""
    cascades = [c["name"] for c in (row.plan_summary or {}).get("cascades", ())]
    return list(dict.fromkeys([*row.entity_types, *cascades]))


def guarded_by_us(session: Session, upload: UploadRow) -> bool:
    """Whether the file is, by its digest, a CSV export of ours with the formula guard: then the guard is taken off."""
    ours = select(ExportRow.options).where(ExportRow.sha256 == upload.sha256, ExportRow.format == "CSV")
    return any(options.get("formula_guard", True) for options in session.scalars(ours))


def require_secrets(caller: Caller, row: ImportRow) -> None:
    """Whoever applies a plan that sets secrets must be allowed to, not only who made it."""
    for entity in (row.plan_summary or {}).get("entities", ()):
        if entity.get("secrets"):
            caller.require("secrets.set", entity["name"])


def plan_again(session: Session, row: ImportRow, job: JobRow, now: datetime) -> bool:
    """With `on_drift=REPLAN` what has moved is planned anew; whether it is."""
    options, before = ImportOptions.from_record(row.options), int(row.options.get("replans", 0))
    if options.on_drift is not OnDrift.REPLAN or not options.auto_apply or before >= MOST_REPLANS:
        return False
    caller = caller_of_job(session, job, now)
    move(row, S.PENDING, now)
    row.options = row.options | {"replans": before + 1}
    row.plan_artifact_id = row.plan_digest = row.plan_summary = row.plan_expires_at = row.apply_job_id = None
    row.rejects_artifact_id = row.changes_artifact_id = row.changes_job_id = None
    approval.forget(row)
    row.plan_job_id = begin_plan(session, row, caller, now).id
    return True


def begin_plan(session: Session, row: ImportRow, caller: Caller, now: datetime) -> JobRow:
    """Puts the import's plan into the queue: the intent, the job, the claims to read."""
    details = {
        "entity_types": row.entity_types,
        "import_type": row.import_type,
        "upload_id": str(row.upload_id),
        "auto_apply": bool(row.options.get("auto_apply")),
    }
    intent_id = record_intent(session, caller, "imports.create", "imports", row.id, details, now)
    return create_job(
        session,
        kind=JobKind.IMPORT_PLAN,
        resource_type="imports",
        resource_id=row.id,
        claims=[Claim(name, ClaimMode.READ) for name in row.entity_types],
        caller=caller,
        intent_id=intent_id,
        now=now,
    )


def _over_budget(row: ImportRow, planned: Planned) -> DataInvalid | None:
    budget = effective_error_budget(ImportOptions.from_record(row.options), ImportType(row.import_type))
    if budget is None or planned.counts.failed <= budget:
        return None
    return DataInvalid(
        f"file: found {planned.counts.failed} failed records, expected at most {budget}", reason="ERROR_BUDGET_EXCEEDED"
    )
