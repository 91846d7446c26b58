"""The jobs of a restore: its plan, and the restore itself."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from engine.access import CallContext, caller_of
from engine.artifacts import ArtifactKind
from engine.backups.archive import Archive
from engine.backups.manifest import Manifest
from engine.backups.model import Asked, Trigger
from engine.backups.opening import open_archive
from engine.backups.record import take_before
from engine.backups.states import BackupStatus
from engine.backups.states import move as move_backup
from engine.backups.take import take_held
from engine.catalog import Catalog
from engine.clock import utc_now
from engine.db.models import BackupRow, JobRow, RestoreRow
from engine.db.platform import Connection
from engine.errors import DataOpsError, FailedPrecondition, InternalError
from engine.faults import fault
from engine.imports.apply import ROLLED_BACK, rolled_back_errors
from engine.imports.planfile import canonical
from engine.jobs.handlers import Ending
from engine.jobs.service import caller_of_job
from engine.restores.model import Rename
from engine.restores.plan import RestorePlanner, WouldOrphan, phrase_of
from engine.restores.states import RestoreStatus, fail, move
from engine.restores.transaction import RestoreTransaction, confirmed_of

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

S = RestoreStatus

NOT_TWICE = "restore: what was confirmed is not run a second time; make a new plan and confirm that"


class RestorePlanHandler:
    """From a backup to a plan somebody can confirm; nothing is touched."""

    def started(self, session: Session, job: JobRow) -> None:
        move(_restore(session, job), S.VALIDATING, utc_now())

    def run(self, run: JobRun) -> Ending:
        resources = run.resources
        with resources.db.transaction() as session:
            row = _restore(session, run.job, lock=False)
            caller_of_job(session, run.job, resources.clock()).require("restores.create", "*")
        planner = RestorePlanner(run, resources.catalogs.read, _archive(run, row), row.entity_types, _renames(row))
        with resources.db.transaction() as session:
            losses_id = resources.artifacts.create(session, ArtifactKind.DIFFERENCES, "job", run.job.id)
        with resources.artifacts.writer(losses_id) as writer:
            plan = planner.plan(writer, resources.settings.artifacts)
            writer.close()
        plan |= {"approval_needed": resources.settings.restore_needs_approval}
        return lambda session: self._end(session, run, plan, losses_id)

    def failed(self, session: Session, job: JobRow, error: DataOpsError) -> None:
        row = _restore(session, job)
        fail(row, error, utc_now())
        if isinstance(error, WouldOrphan):
            row.error = error.with_keys()

    def cancelled(self, session: Session, job: JobRow) -> None:
        move(_restore(session, job), S.CANCELLED, utc_now())

    def retried(self, session: Session, job: JobRow) -> None:
        move(_restore(session, job), S.PENDING, utc_now())

    def _end(self, session: Session, run: JobRun, plan: dict[str, Any], losses_id: uuid.UUID) -> None:
        resources, now = run.resources, run.resources.clock()
        row = _restore(session, run.job)
        row.plan, row.plan_digest = plan, hashlib.sha256(canonical(plan)).digest()
        row.plan_artifact_id = losses_id
        row.confirmation_phrase = phrase_of(plan)
        row.plan_expires_at = now + timedelta(seconds=resources.settings.restore_plan_seconds)
        kept = now + timedelta(seconds=resources.settings.report_seconds)
        resources.artifacts.adopt(session, losses_id, "restores", row.id, kept)
        move(row, S.AWAITING_CONFIRMATION, now)


class RestoreHandler:
    """From a confirmed plan to the backup's rows."""

    def started(self, session: Session, job: JobRow) -> None:
        """The restore is PROCESSING since it was confirmed."""

    def run(self, run: JobRun) -> Ending:
        resources = run.resources
        with resources.db.transaction() as session:
            row = _restore(session, run.job, lock=False)
            caller = caller_of_job(session, run.job, resources.clock())
        if (mark := run.take_over()) is not None:
            facts = mark.facts  # an earlier attempt's effect stands; what is left is to say so
        elif row.options.get("settle_only"):
            raise FailedPrecondition(NOT_TWICE, reason="RESTORE_STATE")
        else:
            caller.require("restores.confirm", "*")
            if row.approved_by is not None:
                with resources.db.transaction() as session:
                    approver = caller_of(
                        session, row.approved_by, CallContext.from_record(row.context), resources.clock()
                    )
                approver.require("restores.approve", "*")
            facts = self._effect(run, row)
        run.stage("REPORT")
        return lambda session: self._end(session, run, facts)

    def failed(self, session: Session, job: JobRow, error: DataOpsError) -> None:
        to = S.ROLLED_BACK if error.metadata.get(ROLLED_BACK) else S.FAILED
        fail(_restore(session, job), error, utc_now(), to=to)

    def cancelled(self, session: Session, job: JobRow) -> None:
        move(_restore(session, job), S.CANCELLED, utc_now())

    def retried(self, session: Session, job: JobRow) -> None:
        """What was confirmed once is not run a second time; but if its effect may stand, what is left is to say so.

        Raises:
            FailedPrecondition: RESTORE_STATE.
        """
        if not job.announced:
            raise FailedPrecondition(NOT_TWICE, reason="RESTORE_STATE")
        row = _restore(session, job)
        move(row, S.PROCESSING, utc_now())
        row.options = row.options | {"settle_only": True}

    def _effect(self, run: JobRun, row: RestoreRow) -> dict[str, Any]:
        assert row.plan is not None
        archive = _archive(run, row)
        restore = RestoreTransaction(
            run,
            run.resources.catalogs.read,
            archive,
            row.entity_types,
            _renames(row),
            confirmed_of(row.plan, row.confirmed_losses or 0),
        )
        restore.gate()
        chain_id = archive.chain[0].manifest.backup_id

        def back_up(
            connection: Connection, catalog: Catalog, entities: Sequence[str], seed: int
        ) -> tuple[uuid.UUID, Manifest]:
            def taking(asked: Asked, settings: Sequence[bytes], parent: Archive | None, by_content: bool) -> Archive:
                clock, repository = run.resources.clock, run.resources.repository
                return take_held(
                    run,
                    connection,
                    repository,
                    catalog,
                    asked,
                    settings,
                    clock,
                    seed,
                    parent,
                    by_content=by_content,
                )

            # of the same chain, whose fingerprints have the same seed as the plan's
            backup, archive = take_before(run, Trigger.PRE_RESTORE, entities, taking, chain_id)
            with run.resources.db.transaction() as session:
                run.require_hold(session)
                _restore(session, run.job).pre_restore_backup_id = backup.id
            return backup.id, archive.manifest

        with run.platform("restore", autocommit=True, idle_in_transaction_session_timeout="0") as connection:
            run.announce(connection)
            connection.autocommit = False
            with rolled_back_errors():
                facts = restore.apply(connection, back_up)
            fault("restores.proven")
            run.mark(connection, facts)
            run.commit(connection)
        return facts

    def _end(self, session: Session, run: JobRun, facts: dict[str, Any]) -> None:
        now = run.resources.clock()
        row = _restore(session, run.job)
        row.report = {
            "entities": facts["entities"],
            "notices": [
                {
                    "code": "SEQUENCE_MOVED",
                    "message": f"the sequence {name} goes on with {to}",
                    "severity": "INFO",
                    "metadata": {},
                }
                for name, to in facts["sequences"].items()
            ],
            "outage_seconds": facts["outage_seconds"],
        }
        row.pre_restore_backup_id = uuid.UUID(facts["backup_id"])
        backup = session.get(BackupRow, row.backup_id, with_for_update=True)
        if backup is not None and backup.status in (BackupStatus.COMPLETED, BackupStatus.RESTORED):
            move_backup(backup, BackupStatus.RESTORED, now)
            backup.restored_at = now
        move(row, S.COMPLETED, now)


def _renames(row: RestoreRow) -> list[Rename]:
    return [Rename.from_record(record) for record in row.options.get("renames", ())]


def _archive(run: JobRun, row: RestoreRow) -> Archive:
    with run.resources.db.transaction() as session:
        backup = session.get(BackupRow, row.backup_id)
    if backup is None:
        raise InternalError("the backup of this restore does not exist", reason="BACKUP_GONE")
    return open_archive(run.resources, backup)


def _restore(session: Session, job: JobRow, *, lock: bool = True) -> RestoreRow:
    row = session.get(RestoreRow, job.resource_id, with_for_update=lock, populate_existing=True)
    if row is None:
        raise InternalError("the restore of this job does not exist", reason="RESTORE_GONE")
    return row
