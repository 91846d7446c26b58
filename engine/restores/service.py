"""Restores as the server asks for them: short control transactions, and a look at the manifest before any of them."""

from __future__ import annotations

import hmac
import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.access import CallContext, Caller, caller_of, once
from engine.audit import record_change, record_intent
from engine.backups.service import Backups, held_entities
from engine.backups.states import GOOD
from engine.db.models import BackupRow, RestoreRow
from engine.errors import Aborted, FailedPrecondition, InvalidRequest, NotFound, PermissionDenied
from engine.ids import new_id
from engine.imports.changes import PlanView
from engine.imports.model import ChangeKind, RowChange
from engine.imports.planfile import Plan
from engine.jobs.model import Claim, ClaimMode, JobKind
from engine.jobs.service import cancel_job, create_job
from engine.paging import Page, Paging, newest_first
from engine.resources import Resources
from engine.restores.model import RestoreRequest
from engine.restores.states import FINAL, RestoreStatus, move

S = RestoreStatus


class Restores:
    """One object a process; every method is one call of one caller."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._backups = Backups(resources)

    def create(self, caller: Caller, request: RestoreRequest, request_id: str, body_sha256: bytes) -> RestoreRow:
        """Records a restore and the job that plans it. The manifest is opened at the call, so that a missing or wrong
        key is told before anything starts.

        Raises:
            NotFound: BACKUP_UNKNOWN, BACKUP_GONE, ENTITY_UNKNOWN; PermissionDenied; AlreadyExists: REQUEST_ID_REUSED;
            FailedPrecondition: BACKUP_STATE, KEY_UNKNOWN; DataLoss: KEY_WRONG, BACKUP_DAMAGED;
            InvalidRequest: OPTION_INVALID for a rename of an entity that is not restored.
        """
        caller.require("restores.create", "*")
        backup = self._backups.get(caller, request.backup_id)
        catalog, archive = self._resources.catalogs.load(), self._backups.archive(backup)
        entities = held_entities(catalog, backup, request.entity_types)
        chosen = [e for e in archive.manifest.entities if e.entity in entities]
        found = [catalog.of_table(e.schema, e.table) for e in chosen]  # what is gone the plan will say
        tables = [live.name for live in found if live is not None]
        for rename in request.renames:
            if rename.entity not in entities:
                raise InvalidRequest(
                    f"renames: found the entity {rename.entity[:80]!r}, expected one that is restored",
                    reason="OPTION_INVALID",
                )
        now = self._resources.clock()
        with self._resources.db.transaction() as session:

            def make() -> uuid.UUID:
                return self._create(session, caller, request, entities, tables, now)

            restore_id, fresh = once(session, caller, "CreateRestore", request_id, body_sha256, make, now)
            row = _get(session, restore_id)
        if fresh:
            self._resources.bell.ring()
        return row

    def get(self, caller: Caller, restore_id: uuid.UUID) -> RestoreRow:
        """Raises:
        NotFound: RESTORE_UNKNOWN; PermissionDenied.
        """
        caller.require("restores.read", "*")
        with self._resources.db.transaction() as session:
            return _get(session, restore_id)

    def list(
        self,
        caller: Caller,
        paging: Paging,
        statuses: Sequence[str] = (),
        backup_id: uuid.UUID | None = None,
    ) -> Page[RestoreRow]:
        """Newest first."""
        caller.require("restores.read", "*")
        query = select(RestoreRow)
        if statuses:
            query = query.where(RestoreRow.status.in_(statuses))
        if backup_id is not None:
            query = query.where(RestoreRow.backup_id == backup_id)
        with self._resources.db.transaction() as session:
            return newest_first(session, query, paging, RestoreRow.created_at, RestoreRow.id)

    def losses(
        self, caller: Caller, restore_id: uuid.UUID, paging: Paging, entity: str = ""
    ) -> tuple[Sequence[tuple[int, RowChange]], str]:
        """One page of the rows that will be gone (DELETE) or have the backup's values again (UPDATE), each with its
        place; entity by entity, in key order within each kind. Secrets are masked. Empty before the plan stands."""
        row = self.get(caller, restore_id)
        if row.plan_artifact_id is None or row.plan is None:
            return [], ""
        digest = bytes.fromhex(row.plan["losses_digest"])
        plan = Plan.open(self._resources.artifacts.reader(row.plan_artifact_id), digest)
        view = PlanView(plan, self._resources.catalogs.load())
        return view.page(paging, (ChangeKind.DELETE, ChangeKind.UPDATE), entity)

    def confirm(
        self,
        caller: Caller,
        restore_id: uuid.UUID,
        plan_digest: bytes,
        phrase: str,
        request_id: str,
        body_sha256: bytes,
        max_losses: int | None = None,
    ) -> RestoreRow:
        """Takes the typed phrase, once. Starts the restore, or asks for another person's approval where a setting says
        so; one that was confirmed already stays as it is.

        Args:
            max_losses: the most rows that may be lost or changed if more have been written since the plan; the plan's
                own number if not given.

        Raises:
            FailedPrecondition: RESTORE_STATE, PLAN_EXPIRED, PHRASE_WRONG; Aborted:
            PLAN_DIGEST_MISMATCH; PermissionDenied; NotFound: RESTORE_UNKNOWN; InvalidRequest: OPTION_INVALID.
        """
        caller.require("restores.confirm", "*")
        now = self._resources.clock()
        with self._resources.db.transaction() as session:

            def make() -> uuid.UUID:
                self._confirm(session, caller, restore_id, plan_digest, phrase, max_losses, now)
                return restore_id

            if request_id:
                once(session, caller, "ConfirmRestore", request_id, body_sha256, make, now)
            else:
                make()
            row = _get(session, restore_id)
        self._resources.bell.ring()
        return row

    def approve(self, caller: Caller, restore_id: uuid.UUID, plan_digest: bytes) -> RestoreRow:
        """The other person's word: starts the restore.

        Raises:
            PermissionDenied: APPROVAL_BY_ANOTHER for who asked for it or confirmed it; FailedPrecondition:
            RESTORE_STATE, PLAN_EXPIRED; Aborted: PLAN_DIGEST_MISMATCH; NotFound: RESTORE_UNKNOWN.
        """
        caller.require("restores.approve", "*")
        now = self._resources.clock()
        with self._resources.db.transaction() as session:
            row = _get(session, restore_id, lock=True)
            if row.status == S.PROCESSING and row.approved_by is not None:
                return row
            if row.status != S.AWAITING_APPROVAL:
                raise _state(row, "AWAITING_APPROVAL")
            if caller.principal_id in (row.principal_id, row.confirmed_by):
                raise PermissionDenied(
                    "restore: found who asked for it or confirmed it, expected another person",
                    reason="APPROVAL_BY_ANOTHER",
                )
            _require_plan(row, plan_digest, now)
            record_change(session, caller, "restores.approve", "restores", row.id, now)
            row.approved_by = caller.principal_id
            assert row.confirmed_by is not None, "only what is confirmed waits for approval"
            # the work is the confirmer's, as every job is of who asked for it
            confirmer = caller_of(session, row.confirmed_by, CallContext.from_record(row.context), now)
            self._begin(session, confirmer, row, now)
        self._resources.bell.ring()
        return row

    def cancel(self, caller: Caller, restore_id: uuid.UUID) -> RestoreRow:
        """Cancels what can be cancelled: a waiting plan at once, a running job by request. A final restore stays."""
        caller.require("restores.cancel", "*")
        now = self._resources.clock()
        with self._resources.db.transaction() as session:
            row = _get(session, restore_id, lock=True)
            job_id = row.restore_job_id if row.status == S.PROCESSING else row.plan_job_id
            if row.status in (S.AWAITING_CONFIRMATION, S.AWAITING_APPROVAL):
                record_change(session, caller, "restores.cancel", "restores", row.id, now)
                move(row, S.CANCELLED, now)
            elif row.status not in FINAL and job_id is not None:
                record_change(session, caller, "restores.cancel", "restores", row.id, now)
                cancel_job(session, job_id, now)
            session.flush()
            session.refresh(row)
        if job_id is not None:
            self._resources.bell.announce(job_id)
        return row

    def expire(self, now: datetime) -> int:
        """Ends restores whose plan was not confirmed or approved in time; how many."""
        waiting = (S.AWAITING_CONFIRMATION.value, S.AWAITING_APPROVAL.value)
        with self._resources.db.transaction() as session:
            over = select(RestoreRow).where(RestoreRow.status.in_(waiting), RestoreRow.plan_expires_at < now)
            rows = list(session.scalars(over.with_for_update(skip_locked=True).limit(100)))
            for row in rows:
                move(row, S.EXPIRED, now)
        return len(rows)

    def _create(
        self,
        session: Session,
        caller: Caller,
        request: RestoreRequest,
        entities: Sequence[str],
        tables: Sequence[str],
        now: datetime,
    ) -> uuid.UUID:
        backup = session.get(BackupRow, request.backup_id, with_for_update=True, populate_existing=True)
        if backup is None or backup.status not in GOOD:  # deleted since it was looked at; from here on it is in use
            raise FailedPrecondition(
                f"backup: found it {backup.status if backup else 'gone'}, expected a good one", reason="BACKUP_STATE"
            )
        row = RestoreRow(
            id=new_id(),
            backup_id=request.backup_id,
            entity_types=[*entities],
            status=S.PENDING.value,
            options={"renames": [rename.as_record() for rename in request.renames]},
            principal_id=caller.principal_id,
            context=caller.context.as_record(),
            confirmation_phrase="",
            created_at=now,
            updated_at=now,
        )
        session.add(row)
        session.flush()
        details = {"backup_id": str(request.backup_id), "entity_types": [*entities]}
        intent_id = record_intent(session, caller, "restores.create", "restores", row.id, details, now)
        job = create_job(
            session,
            kind=JobKind.RESTORE_PLAN,
            resource_type="restores",
            resource_id=row.id,
            claims=[Claim(name, ClaimMode.READ) for name in tables],
            caller=caller,
            intent_id=intent_id,
            now=now,
        )
        row.plan_job_id = job.id
        return row.id

    def _confirm(
        self,
        session: Session,
        caller: Caller,
        restore_id: uuid.UUID,
        plan_digest: bytes,
        phrase: str,
        max_losses: int | None,
        now: datetime,
    ) -> None:
        row = _get(session, restore_id, lock=True)
        if row.confirmed_by is not None and row.plan_digest == plan_digest and row.status not in FINAL:
            return
        if row.status != S.AWAITING_CONFIRMATION:
            raise _state(row, "AWAITING_CONFIRMATION")
        _require_plan(row, plan_digest, now)
        if not hmac.compare_digest(phrase.encode(), row.confirmation_phrase.encode()):
            raise FailedPrecondition(
                "confirmation_phrase: found another than the plan's; nothing was started", reason="PHRASE_WRONG"
            )
        planned = losses_of(row)
        if max_losses is not None and max_losses < planned:
            raise InvalidRequest(
                f"max_losses: found {max_losses}, expected at least the plan's {planned}", reason="OPTION_INVALID"
            )
        row.confirmation_phrase = ""
        row.confirmed_by, row.confirmed_losses = caller.principal_id, planned if max_losses is None else max_losses
        if self._resources.settings.restore_needs_approval:
            record_change(session, caller, "restores.confirm", "restores", row.id, now)
            move(row, S.AWAITING_APPROVAL, now)
        else:
            self._begin(session, caller, row, now)

    def _begin(self, session: Session, caller: Caller, row: RestoreRow, now: datetime) -> None:
        """Puts the restore into the queue: nobody else works on its entities while it waits or runs."""
        plan = row.plan
        assert plan is not None, "what is confirmed has a plan"
        move(row, S.PROCESSING, now)
        details = {"entity_types": row.entity_types, "plan_digest": (row.plan_digest or b"").hex()}
        intent_id = record_intent(session, caller, "restores.confirm", "restores", row.id, details, now)
        job = create_job(
            session,
            kind=JobKind.RESTORE,
            resource_type="restores",
            resource_id=row.id,
            claims=[Claim(e["table"], ClaimMode.EXCLUSIVE) for e in plan["entities"]],
            caller=caller,
            intent_id=intent_id,
            now=now,
        )
        row.restore_job_id = job.id


def losses_of(row: RestoreRow) -> int:
    """Rows that the plan deletes or changes."""
    return sum(e["rows_lost"] + e["rows_changed"] for e in (row.plan or {}).get("entities", ()))


def _require_plan(row: RestoreRow, plan_digest: bytes, now: datetime) -> None:
    if row.plan_expires_at is None or row.plan_expires_at < now:
        raise FailedPrecondition(
            "restore: its plan and phrase have expired; nothing was started, make a new plan", reason="PLAN_EXPIRED"
        )
    if row.plan_digest != plan_digest:
        raise Aborted("plan_digest: found another than the plan's", reason="PLAN_DIGEST_MISMATCH")


def _state(row: RestoreRow, expected: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"restore: found it {row.status}, expected {expected}", reason="RESTORE_STATE", metadata={"status": row.status}
    )


def _get(session: Session, restore_id: uuid.UUID, *, lock: bool = False) -> RestoreRow:
    row = session.get(RestoreRow, restore_id, with_for_update=lock, populate_existing=True)
    if row is None:
        raise NotFound(
            "restore: found none with this id", reason="RESTORE_UNKNOWN", metadata={"restore_id": str(restore_id)}
        )
    return row
