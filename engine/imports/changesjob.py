"""The job that writes an import's changes into a file, when somebody first asks for it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from engine.artifacts import ArtifactKind
from engine.clock import utc_now
from engine.db.models import ImportRow, JobRow
from engine.errors import DataOpsError, FailedPrecondition
from engine.imports.changes import PlanView
from engine.imports.planfile import Plan
from engine.jobs.handlers import Ending

if TYPE_CHECKING:
    from engine.jobs.run import JobRun


class ChangesHandler:
    """From a plan to a CSV file. The import itself stays as it is, whatever becomes of the job."""

    def started(self, session: Session, job: JobRow) -> None:
        """Nothing waits for it."""

    def run(self, run: JobRun) -> Ending:
        resources = run.resources
        with resources.db.transaction() as session:
            row = session.get(ImportRow, run.job.resource_id)
            if row is None or row.plan_artifact_id is None or row.plan_digest is None:
                raise FailedPrecondition("import: found no plan of it any more", reason="PLAN_EXPIRED")
            plan_id, digest = row.plan_artifact_id, row.plan_digest
            artifact_id = resources.artifacts.create(session, ArtifactKind.CHANGES, "job", run.job.id)
        plan = Plan.open(resources.artifacts.reader(plan_id), digest)
        streams = plan.head["streams"]
        rows = sum(entry["rows"] for name, entry in streams.items() if not name.endswith((".ERRORS", ".KEEP")))
        run.stage("CHANGES", rows=rows)
        with resources.artifacts.writer(artifact_id) as sink:
            for data, done in PlanView(plan, resources.catalogs.load()).as_csv():
                sink.write(data)
                run.progress(rows=done)
            sink.close()

        def end(session: Session) -> None:
            row = session.get(ImportRow, run.job.resource_id, with_for_update=True, populate_existing=True)
            if row is None or row.plan_digest != digest:
                return  # another plan stands there by now; the sweep takes the file
            kept = utc_now() + timedelta(seconds=resources.settings.report_seconds)
            resources.artifacts.adopt(session, artifact_id, "imports", row.id, kept)
            row.changes_artifact_id = artifact_id

        return end

    def failed(self, session: Session, job: JobRow, error: DataOpsError) -> None:
        _forget(session, job)

    def cancelled(self, session: Session, job: JobRow) -> None:
        _forget(session, job)

    def retried(self, session: Session, job: JobRow) -> None:
        row = session.get(ImportRow, job.resource_id, with_for_update=True, populate_existing=True)
        if row is not None:
            row.changes_job_id = job.id


def _forget(session: Session, job: JobRow) -> None:
    """Who asks again begins another."""
    row = session.get(ImportRow, job.resource_id, with_for_update=True, populate_existing=True)
    if row is not None and row.changes_job_id == job.id:
        row.changes_job_id = None
