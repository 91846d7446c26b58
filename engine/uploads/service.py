"""Uploads as resources: start, look, list, abort, hand to an import, let go."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID
from weakref import WeakValueDictionary

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from engine.access.caller import Caller
from engine.access.idempotency import once
from engine.artifacts import ArtifactKind, ArtifactStore
from engine.audit import record_change, record_intent, record_outcome
from engine.clock import Clock
from engine.config import Settings
from engine.db.database import Database
from engine.db.models import ArtifactRow, ImportRow, PrincipalRow, UploadRow
from engine.errors import FailedPrecondition, InvalidRequest, NotFound, ResourceExhausted
from engine.ids import new_id
from engine.paging import Page, Paging, newest_first
from engine.retention.record import remove_each, removed
from engine.uploads.stream import FINISHED_FOR, UploadStream, too_large

MANAGE = "uploads.manage"
"""The permission to see and abort other callers' uploads. Writing is its owner's alone."""

MAX_NAME = 255
READING = ("PENDING", "VALIDATING", "PROCESSING")
"""Imports that may be reading the file just now."""
LIVE = (*READING, "AWAITING_APPROVAL")
"""Imports that may still want it."""


@dataclass(frozen=True, slots=True)
class UploadSweep:
    """How many uploads one sweep expired: never finished, and finished but not used."""

    idle: int = 0
    unused: int = 0


class UploadResources(Protocol):
    """What of `engine.resources.Resources` uploads need."""

    @property
    def db(self) -> Database: ...
    @property
    def artifacts(self) -> ArtifactStore: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def clock(self) -> Clock: ...


class Uploads:
    """One per process. Every method is a short control transaction; none may run on a thread with a running loop."""

    def __init__(self, resources: UploadResources) -> None:
        self._db, self._artifacts = resources.db, resources.artifacts
        self._settings, self._clock = resources.settings, resources.clock
        self._idle = timedelta(seconds=self._settings.upload_idle_seconds)
        self._streams: WeakValueDictionary[UUID, UploadStream] = WeakValueDictionary()
        self._lock = threading.Lock()

    def start(
        self, caller: Caller, name: str, size: int | None, sha256: bytes | None, request_id: str, body_sha256: bytes
    ) -> UploadRow:
        """A new OPEN upload; the same request again gives the same upload in its present state.

        Raises:
            InvalidRequest: FILE_NAME_INVALID, DIGEST_INVALID, SIZE_INVALID, UPLOAD_TOO_LARGE.
            ResourceExhausted: TOO_MANY_UPLOADS when the caller has as many open as one principal may.
            AlreadyExists: REQUEST_ID_REUSED.
        """
        self._check_declared(name, size, sha256)
        now = self._clock()
        with self._db.transaction() as session:
            upload_id, _new = once(
                session,
                caller,
                "StartUpload",
                request_id,
                body_sha256,
                lambda: self._create(session, caller, name, size, sha256, now),
                now,
            )
            return session.get_one(UploadRow, upload_id)

    def get(self, caller: Caller, upload_id: UUID) -> UploadRow:
        """Raises: NotFound: UPLOAD_UNKNOWN when there is none that the caller may know of."""
        with self._db.transaction() as session:
            return _visible(session.get(UploadRow, upload_id), upload_id, caller)

    def list(self, caller: Caller, paging: Paging, states: Sequence[str] = ()) -> Page[UploadRow]:
        """Own uploads, or everyone's for a caller who may `uploads.manage`, newest first."""
        wanted = select(UploadRow)
        if not caller.may(MANAGE):
            wanted = wanted.where(UploadRow.principal_id == caller.principal_id)
        if states:
            wanted = wanted.where(UploadRow.state.in_(states))
        with self._db.transaction() as session:
            return newest_first(session, wanted, paging, UploadRow.created_at, UploadRow.id)

    def abort(self, caller: Caller, upload_id: UUID) -> UploadRow:
        """End it and let its bytes go. One that has ended already is given back as it is.

        Raises:
            NotFound: UPLOAD_UNKNOWN.
            FailedPrecondition: UPLOAD_IN_USE while an import reads it.
        """
        now = self._clock()
        with self._db.transaction() as session:
            upload = _visible(_locked(session, upload_id), upload_id, caller)
            if upload.state not in ("OPEN", "FINISHED"):
                return upload
            if _is_needed(session, upload_id, READING):
                raise FailedPrecondition(
                    f"upload {upload_id} is being read by an import; cancel that first", reason="UPLOAD_IN_USE"
                )
            intent = record_intent(session, caller, "uploads.abort", "uploads", upload_id, {}, now)
            self._end(session, upload, "ABORTED", now)
            record_outcome(session, intent, "COMPLETED", {"bytes": upload.committed_size}, now)
            return upload

    def open_stream(self, caller: Caller, upload_id: UUID) -> UploadStream:
        """A stream that goes on at `committed_size` and supersedes every older one.

        A finished upload gives a stream that takes only what it has already, so that a client which missed the answer
        to `finish` may send its last message again.

        Raises:
            NotFound: UPLOAD_UNKNOWN, also for uploads of others: only its owner writes.
            FailedPrecondition: UPLOAD_NOT_OPEN when it was aborted, expired or used.
        """
        now = self._clock()
        with self._db.transaction() as session:
            upload = _locked(session, upload_id)
            if upload is None or upload.principal_id != caller.principal_id:
                raise _unknown(upload_id)
            if upload.state not in ("OPEN", "FINISHED"):
                raise FailedPrecondition(
                    f"upload {upload_id}: expected OPEN, found {upload.state}",
                    reason="UPLOAD_NOT_OPEN",
                    metadata={"state": upload.state},
                )
            if upload.state == "OPEN":
                upload.epoch += 1
                upload.updated_at, upload.expires_at = now, now + self._idle
        stream = UploadStream(
            upload, caller, self._db, self._artifacts, self._clock, self._idle, self._settings.max_upload_bytes
        )
        with self._lock:
            older = self._streams.get(upload_id)
            self._streams[upload_id] = stream
        if older is not None:
            older.supersede()
        return stream

    def for_import(self, session: Session, upload_id: UUID, caller: Caller) -> UploadRow:
        """The finished upload an import is to be made from, locked so that it cannot go before the import exists.

        Raises:
            NotFound: UPLOAD_UNKNOWN.
            FailedPrecondition: UPLOAD_NOT_FINISHED; UPLOAD_GONE when its bytes were deleted.
        """
        found = session.get(UploadRow, upload_id, with_for_update={"read": True}, populate_existing=True)
        upload = _visible(found, upload_id, caller)
        if upload.state == "OPEN":
            raise FailedPrecondition(
                f"upload {upload_id} is not finished: {upload.committed_size} bytes are there",
                reason="UPLOAD_NOT_FINISHED",
            )
        if upload.state != "FINISHED":
            raise FailedPrecondition(f"upload {upload_id} is {upload.state}: its bytes are gone", reason="UPLOAD_GONE")
        return upload

    def promise(self, session: Session, caller: Caller, name: str, artifact_id: UUID, now: datetime) -> UploadRow:
        """A new OPEN upload whose file a job will make out of what this closed artifact holds; nobody else writes it.

        Raises:
            ResourceExhausted: TOO_MANY_UPLOADS.
        """
        self._check_cap(session, caller)
        upload = UploadRow(
            id=new_id(),
            name=name,
            state="OPEN",
            principal_id=caller.principal_id,
            context=caller.context.as_record(),
            artifact_id=artifact_id,
            committed_size=0,
            epoch=0,
            created_at=now,
            updated_at=now,
            expires_at=now + self._idle,
        )
        self._artifacts.adopt(session, artifact_id, "upload", upload.id, None)
        session.add(upload)
        session.flush()
        return upload

    def keep_promise(self, session: Session, upload_id: UUID, artifact_id: UUID, now: datetime) -> UploadRow:
        """Finishes a promised upload with the file that was made, a closed artifact; what it was made of is let go.

        Raises:
            FailedPrecondition: UPLOAD_GONE when the upload has ended meanwhile.
        """
        upload = _locked(session, upload_id)
        if upload is None or upload.state != "OPEN":
            raise FailedPrecondition(f"upload {upload_id}: found it gone, expected an open one", reason="UPLOAD_GONE")
        if upload.artifact_id is not None:
            self._artifacts.discard(session, upload.artifact_id)
        self._artifacts.adopt(session, artifact_id, "upload", upload.id, None)
        artifact = session.get_one(ArtifactRow, artifact_id)
        upload.artifact_id, upload.committed_size, upload.sha256 = artifact_id, artifact.size, artifact.sha256
        upload.state, upload.finished_at, upload.updated_at = "FINISHED", now, now
        upload.expires_at = now + FINISHED_FOR
        return upload

    def delete(self, session: Session, upload_id: UUID) -> None:
        """Let a finished upload go, in the transaction that completes an import from it.

        While another import from the same file lives it stays, since that may have to read it again, and the sweep
        takes it in its time.
        """
        upload = _locked(session, upload_id)
        if upload is None or upload.state != "FINISHED":
            return
        if _is_needed(session, upload_id, LIVE):
            return
        self._end(session, upload, "CONSUMED", self._clock())

    def sweep(self, now: datetime) -> UploadSweep:
        """Expire uploads that nobody went on with, and finished ones that no live import may want any more."""
        idle = self._expire(now, UploadRow.state == "OPEN")
        unused = self._expire(now, (UploadRow.state == "FINISHED") & ~_needed(LIVE))
        return UploadSweep(idle, unused)

    def _create(
        self, session: Session, caller: Caller, name: str, size: int | None, sha256: bytes | None, now: datetime
    ) -> UUID:
        self._check_cap(session, caller)
        upload = UploadRow(
            id=new_id(),
            name=name,
            state="OPEN",
            principal_id=caller.principal_id,
            context=caller.context.as_record(),
            declared_size=size,
            declared_sha256=sha256,
            committed_size=0,
            epoch=0,
            created_at=now,
            updated_at=now,
            expires_at=now + self._idle,
        )
        upload.artifact_id = self._artifacts.create(session, ArtifactKind.UPLOAD, "upload", upload.id)
        session.add(upload)
        details = {"file_name": name, "size": size}
        record_change(session, caller, "uploads.create", "uploads", upload.id, now, details)
        return upload.id

    def _check_cap(self, session: Session, caller: Caller) -> None:
        # The principal's row serialises its starts: two at once would both see room for the last one.
        locked = select(PrincipalRow.id).where(PrincipalRow.id == caller.principal_id).with_for_update(key_share=True)
        session.execute(locked)
        limit = self._settings.max_uploads_per_principal
        own = (UploadRow.principal_id == caller.principal_id) & (UploadRow.state == "OPEN")
        found = session.scalar(select(func.count()).select_from(UploadRow).where(own)) or 0
        if found >= limit:
            raise ResourceExhausted(
                f"expected fewer than {limit} open uploads, found {found}: finish or abort one",
                reason="TOO_MANY_UPLOADS",
                metadata={"limit": str(limit)},
                retry_after=60,
            )

    def _check_declared(self, name: str, size: int | None, sha256: bytes | None) -> None:
        if not 0 < len(name) <= MAX_NAME or "\0" in name:
            raise InvalidRequest(
                f"file_name: expected 1 to {MAX_NAME} characters without NUL, found {len(name)}",
                reason="FILE_NAME_INVALID",
            )
        if sha256 is not None and len(sha256) != 32:
            raise InvalidRequest(f"sha256: expected 32 bytes, found {len(sha256)}", reason="DIGEST_INVALID")
        if size is not None and size < 0:
            raise InvalidRequest(f"size: expected no negative number, found {size}", reason="SIZE_INVALID")
        if size is not None and size > self._settings.max_upload_bytes:
            raise too_large(size, self._settings.max_upload_bytes)

    def _end(self, session: Session, upload: UploadRow, state: str, now: datetime) -> None:
        upload.state, upload.updated_at = state, now
        session.flush()
        if upload.artifact_id is not None:
            self._artifacts.discard(session, upload.artifact_id)

    def _expire(self, now: datetime, which: ColumnElement[bool]) -> int:
        """One that a stream or an import holds just now waits for the next sweep."""

        def end(session: Session, upload: UploadRow) -> bool:
            if _is_needed(session, upload.id, LIVE):  # by an import made since the statement's snapshot
                return False
            self._end(session, upload, "EXPIRED", now)
            details = {"name": upload.name, "size_bytes": upload.committed_size}
            removed(session, "uploads", upload.id, now, details)
            return True

        return remove_each(self._db, select(UploadRow).where(which, UploadRow.expires_at <= now), end)


def _needed(statuses: tuple[str, ...]) -> ColumnElement[bool]:
    return exists().where(ImportRow.upload_id == UploadRow.id, ImportRow.status.in_(statuses)).correlate(UploadRow)


def _locked(session: Session, upload_id: UUID) -> UploadRow | None:
    return session.get(UploadRow, upload_id, with_for_update=True, populate_existing=True)


def _visible(upload: UploadRow | None, upload_id: UUID, caller: Caller) -> UploadRow:
    if upload is None or not (upload.principal_id == caller.principal_id or caller.may(MANAGE)):
        raise _unknown(upload_id)
    return upload


def _unknown(upload_id: UUID) -> NotFound:
    return NotFound(f"upload {upload_id} is not known", reason="UPLOAD_UNKNOWN", metadata={"upload_id": str(upload_id)})


def _is_needed(session: Session, upload_id: UUID, statuses: tuple[str, ...]) -> bool:
    needed = exists().where(ImportRow.upload_id == upload_id, ImportRow.status.in_(statuses))
    return bool(session.scalar(select(needed)))
