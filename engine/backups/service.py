"""Backups as the server asks for them: short control transactions, and a look at the manifest where keys matter."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.access import Caller, once
from engine.audit import record_change
from engine.backups.archive import Archive
from engine.backups.begin import begin_job, begin_verification
from engine.backups.covered import entities_of, not_backed_up
from engine.backups.extraction import extract
from engine.backups.manifest import not_held
from engine.backups.model import BackupRequest, ExtractRequest, Trigger, VerifyLevel
from engine.backups.opening import open_archive, wrong_state
from engine.backups.record import new_backup
from engine.backups.states import GOOD, BackupStatus, move
from engine.backups.uses import in_use, increments_to, parents_among
from engine.backups.verify import condemns
from engine.catalog import Catalog
from engine.db.models import BackupDiffRow, BackupRow, ImportRow, JobRow
from engine.errors import DataOpsError, FailedPrecondition, NotFound
from engine.imports.changes import PlanView
from engine.imports.model import ChangeKind, RowChange
from engine.imports.planfile import Plan
from engine.jobs.model import JobKind
from engine.paging import Page, Paging, created_within, newest_first
from engine.resources import Resources

S = BackupStatus

NAMED = 8
"""Increments that a refusal names: a chain has seven, and leaves."""


class Backups:
    """One object a process; every method is one call of one caller."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def create(self, caller: Caller, request: BackupRequest, request_id: str, body_sha256: bytes) -> BackupRow:
        """Records a backup and its job.

        Raises:
            NotFound: ENTITY_UNKNOWN; PermissionDenied: PERMISSION_MISSING; FailedPrecondition: ENTITY_NOT_BACKED_UP;
            AlreadyExists: REQUEST_ID_REUSED.
        """
        entities = wanted(self._resources.catalogs.load(), caller, request.entity_types)

        def make(session: Session, now: datetime) -> uuid.UUID:
            row = new_backup(
                caller,
                Trigger.MANUAL,
                entities,
                request.name,
                now,
                backup_type=request.backup_type,
                hold=request.hold,
            )
            session.add(row)
            session.flush()
            details = {"entity_types": entities, "hold": request.hold}
            job = begin_job(session, caller, JobKind.BACKUP, "backups.create", row, entities, details, now)
            row.job_id = job.id
            return row.id

        backup_id = self._begin(caller, "CreateBackup", request_id, body_sha256, make)
        with self._resources.db.transaction() as session:
            return _get(session, backup_id)

    def get(self, caller: Caller, backup_id: uuid.UUID) -> BackupRow:
        """Raises:
        NotFound: BACKUP_UNKNOWN, also for one with an entity the caller may not read backups of.
        """
        with self._resources.db.transaction() as session:
            row = _get(session, backup_id)
        _require(caller, "backups.read", row)
        return row

    def list(
        self,
        caller: Caller,
        paging: Paging,
        statuses: Sequence[str] = (),
        triggers: Sequence[str] = (),
        entity_type: str = "",
        created: tuple[datetime | None, datetime | None] = (None, None),
    ) -> Page[BackupRow]:
        """Newest first, of the entities whose backups the caller may read; `created` is from (inside) and until."""
        query = created_within(select(BackupRow), BackupRow.created_at, created)
        if entity_type:
            query = query.where(BackupRow.entity_types.contains([entity_type]))
        if statuses:
            query = query.where(BackupRow.status.in_(statuses))
        if triggers:
            query = query.where(BackupRow.trigger_type.in_(triggers))
        if not caller.may("backups.read", "*"):
            names = [e.name for e in self._resources.catalogs.load().entities() if caller.may("backups.read", e.name)]
            query = query.where(BackupRow.entity_types.contained_by(names))
        with self._resources.db.transaction() as session:
            return newest_first(session, query, paging, BackupRow.created_at, BackupRow.id)

    def verify(
        self, caller: Caller, backup_id: uuid.UUID, level: VerifyLevel, request_id: str, body_sha256: bytes
    ) -> uuid.UUID:
        """Puts a verification into the queue; its job. The manifest is opened at the call, so that a missing or wrong
        key is told before anything starts; what else is wrong with it is the job's to find and to remember.

        Raises:
            NotFound: BACKUP_UNKNOWN; FailedPrecondition: BACKUP_STATE, KEY_UNKNOWN; DataLoss: KEY_WRONG;
            PermissionDenied; AlreadyExists: REQUEST_ID_REUSED.
        """
        row = self.get(caller, backup_id)
        _require(caller, "backups.verify", row)
        try:
            self.archive(row)
        except DataOpsError as error:
            if error.reason == "KEY_WRONG" or not condemns(error):
                raise

        def make(session: Session, now: datetime) -> uuid.UUID:
            return begin_verification(session, caller, row, level, {}, now)

        return self._begin(caller, "VerifyBackup", request_id, body_sha256, make)

    def diff(
        self, caller: Caller, backup_id: uuid.UUID, entity_types: Sequence[str], request_id: str, body_sha256: bytes
    ) -> uuid.UUID:
        """Puts a comparison with the live rows into the queue; its job.

        Raises:
            NotFound: BACKUP_UNKNOWN, BACKUP_GONE, ENTITY_UNKNOWN; FailedPrecondition: BACKUP_STATE, KEY_UNKNOWN;
            DataLoss: KEY_WRONG, BACKUP_DAMAGED; PermissionDenied; AlreadyExists: REQUEST_ID_REUSED.
        """
        row = self.get(caller, backup_id)
        _require(caller, "backups.compare", row)
        self.archive(row)
        entities = held_entities(self._resources.catalogs.load(), row, entity_types)

        def make(session: Session, now: datetime) -> uuid.UUID:
            details = {"entity_types": entities}
            job = begin_job(session, caller, JobKind.BACKUP_DIFF, "backups.compare", row, entities, details, now)
            session.add(
                BackupDiffRow(
                    job_id=job.id,
                    backup_id=row.id,
                    entity_types=entities,
                    principal_id=caller.principal_id,
                    entities=[],
                    created_at=now,
                )
            )
            return job.id

        return self._begin(caller, "DiffBackup", request_id, body_sha256, make)

    def differences(
        self, caller: Caller, job_id: uuid.UUID, paging: Paging, entity: str = "", kind: ChangeKind | None = None
    ) -> tuple[Sequence[tuple[int, RowChange]], str, Sequence[dict[str, Any]]]:
        """One page of what a comparison found, each row with its place: INSERT stands only in the backup, DELETE only
        live, UPDATE has the backup's values as its new ones; the next token; the counts of every entity. Entity by
        entity, in key order within each kind; none of rows without a key. Secrets are masked.

        Raises:
            NotFound: DIFF_UNKNOWN, ARTIFACT_GONE when it has expired; FailedPrecondition: DIFF_NOT_READY;
            PermissionDenied; InvalidRequest: PAGE_TOKEN_INVALID.
        """
        with self._resources.db.transaction() as session:
            row, job = session.get(BackupDiffRow, job_id), session.get(JobRow, job_id)
        if row is None or job is None or not all(caller.may("backups.read", name) for name in row.entity_types):
            raise NotFound(
                "differences: found none of this job", reason="DIFF_UNKNOWN", metadata={"job_id": str(job_id)}
            )
        for name in row.entity_types:
            caller.require("backups.compare", name)
        if row.artifact_id is None or row.digest is None:
            raise FailedPrecondition(
                f"differences: found their job {job.state}, expected it COMPLETED",
                reason="DIFF_NOT_READY",
                metadata={"state": job.state},
            )
        plan = Plan.open(self._resources.artifacts.reader(row.artifact_id), row.digest)
        view = PlanView(plan, self._resources.catalogs.load())
        found, token = view.page(paging, () if kind is None else (kind,), entity)
        return found, token, row.entities

    def extract(self, caller: Caller, request: ExtractRequest, request_id: str, body_sha256: bytes) -> ImportRow:
        """An import of these rows as the backup has them, to be looked at and applied as any other: its plan takes them
        out first. Secret fields are among them only for a caller who may set them.

        Raises:
            NotFound: BACKUP_UNKNOWN, BACKUP_GONE, ENTITY_UNKNOWN; InvalidRequest: KEY_INVALID, OPTION_INVALID;
            FailedPrecondition: BACKUP_STATE, KEY_UNKNOWN, KEY_NOT_USABLE; DataLoss: KEY_WRONG, BACKUP_DAMAGED;
            PermissionDenied; ResourceExhausted: TOO_MANY_UPLOADS; AlreadyExists: REQUEST_ID_REUSED.
        """
        return extract(self._resources, caller, self.get(caller, request.backup_id), request, request_id, body_sha256)

    def hold(self, caller: Caller, backup_id: uuid.UUID, *, held: bool = True) -> BackupRow:
        """Puts a hold on the backup, or takes it off; one that is as it shall be stays so.

        Raises:
            NotFound: BACKUP_UNKNOWN; PermissionDenied; FailedPrecondition: BACKUP_STATE for one whose bytes are gone.
        """
        now = self._resources.clock()
        with self._resources.db.transaction() as session:
            row = _get(session, backup_id, lock=True)
            _require(caller, "backups.hold", row)
            if held and row.status not in (*GOOD, S.PENDING):
                raise wrong_state(row, "one that is good or being made")
            if row.held != held:
                record_change(session, caller, "backups.hold", "backups", row.id, now)
                row.held, row.updated_at = held, now
        return row

    def delete(self, caller: Caller, backup_id: uuid.UUID) -> BackupRow:
        """From here on an ended backup does not exist; what is left of its bytes the next sweep takes. A deleted one
        stays deleted.

        Raises:
            FailedPrecondition: BACKUP_IN_USE while it is held, or a job, a restore or an increment needs it;
                BACKUP_STATE while it is being made; PermissionDenied; NotFound: BACKUP_UNKNOWN.
        """
        now = self._resources.clock()
        with self._resources.db.transaction() as session:
            row = _get(session, backup_id, lock=True)
            _require(caller, "backups.delete", row)
            if row.status != S.DELETED:
                if why := in_use(session, row) or _built_on(session, row):
                    raise FailedPrecondition(
                        f"backup: {why}", reason="BACKUP_IN_USE", metadata={"backup_id": str(backup_id)}
                    )
                record_change(session, caller, "backups.delete", "backups", row.id, now)
                move(row, S.DELETED, now)
        _unpublish(self._resources, backup_id)  # of one that was deleted already too: its storage may have been away
        return row

    def parents_among(self, backup_ids: Sequence[uuid.UUID]) -> frozenset[uuid.UUID]:
        """Those of the backups that others build on, so that deleting them frees nothing: it is refused."""
        with self._resources.db.transaction() as session:
            return parents_among(session, backup_ids)

    def archive(self, row: BackupRow) -> Archive:
        """The backup of this record, opened.

        Raises:
            FailedPrecondition: BACKUP_STATE, KEY_UNKNOWN; NotFound: BACKUP_GONE; DataLoss: KEY_WRONG, BACKUP_DAMAGED.
        """
        return open_archive(self._resources, row)

    def _begin(
        self,
        caller: Caller,
        call: str,
        request_id: str,
        body_sha256: bytes,
        make: Callable[[Session, datetime], uuid.UUID],
    ) -> uuid.UUID:
        """What `make` makes, once for each request id, and the workers told of it."""
        now = self._resources.clock()
        with self._resources.db.transaction() as session:
            made, fresh = once(session, caller, call, request_id, body_sha256, lambda: make(session, now), now)
        if fresh:
            self._resources.bell.ring()
        return made


def _built_on(session: Session, row: BackupRow) -> str:
    """Why it must stay for others; empty when nothing builds on it."""
    increments = increments_to(session, row.id)
    if not increments:
        return ""
    first = ", ".join(map(str, increments[:NAMED])) + (", …" if len(increments) > NAMED else "")
    build = "increments build" if len(increments) > 1 else "increment builds"
    return f"{len(increments)} {build} on it, the newest first: {first}; delete these first"


def remove(resources: Resources, backup_id: uuid.UUID) -> None:
    """Deletes the bytes of a backup that ended without use, and then says so on its record; it may be repeated."""
    artifact_id = _unpublish(resources, backup_id)
    if artifact_id is None:
        return
    resources.repository.delete(artifact_id)
    with resources.db.transaction() as session:
        again = _get(session, backup_id, lock=True)
        if again.artifact_id == artifact_id and again.status not in (*GOOD, S.PENDING):
            again.artifact_id = None


def _unpublish(resources: Resources, backup_id: uuid.UUID) -> uuid.UUID | None:
    """Makes a backup that ended without use not exist; the artifact that is left of it, None where there is none."""
    with resources.db.transaction() as session:
        row = _get(session, backup_id, lock=True)
        if row.artifact_id is None or row.status in (*GOOD, S.PENDING):
            return None
        # Under the lock, and one object only: RetryJob comes before, and then nothing is deleted, or behind, and then
        # finds no backup that it could take for its own.
        resources.repository.unpublish(row.artifact_id)
        return row.artifact_id


def held_entities(catalog: Catalog, row: BackupRow, names: Sequence[str]) -> list[str]:
    """The entities of the backup that are meant, groups resolved; all of them where none is named.

    Raises:
        NotFound: ENTITY_UNKNOWN for one that the backup does not hold.
    """
    if not names:
        return list(row.entity_types)
    found: dict[str, None] = {}
    for name in names:
        members = [e.name for e in catalog.members(name) if e.name in row.entity_types]
        if not members and name not in row.entity_types:
            raise not_held(name)
        found |= dict.fromkeys(members or [name])
    return list(found)


def wanted(catalog: Catalog, caller: Caller, names: Sequence[str]) -> list[str]:
    """The entities that are meant, each permitted and fit to be backed up."""
    if not names:
        entities = [e for e in catalog.entities() if not not_backed_up(e)]
        if not entities:
            raise FailedPrecondition("found no entity that can be backed up", reason="ENTITY_NOT_BACKED_UP")
    else:
        entities = catalog.named(names, partial(caller.require, "backups.create"))
    for entity in entities:
        caller.require("backups.create", entity.name)
    return [entity.name for entity in entities_of(catalog, [e.name for e in entities])]


def _require(caller: Caller, operation: str, row: BackupRow) -> None:
    if not all(caller.may("backups.read", entity) for entity in row.entity_types):
        raise _unknown(row.id)
    for entity in row.entity_types:
        caller.require(operation, entity)


def _get(session: Session, backup_id: uuid.UUID, *, lock: bool = False) -> BackupRow:
    row = session.get(BackupRow, backup_id, with_for_update=lock, populate_existing=True)
    if row is None:
        raise _unknown(backup_id)
    return row


def _unknown(backup_id: uuid.UUID) -> NotFound:
    return NotFound("backup: found none with this id", reason="BACKUP_UNKNOWN", metadata={"backup_id": str(backup_id)})
