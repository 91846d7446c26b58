"""One stream of bytes into an upload."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

import structlog
from sqlalchemy import Table, bindparam, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from engine.access.caller import Caller
from engine.artifacts import ArtifactStore, ArtifactWriter, Closed
from engine.audit import record_access
from engine.clock import Clock
from engine.db.database import Database
from engine.db.models import ArtifactPartRow, UploadRow
from engine.errors import Aborted, DataInvalid, DataOpsError, FailedPrecondition, InvalidRequest, OffsetMismatch

MAX_CHUNK_BYTES = 1 << 20
"""Of one message. gRPC's usual limit is 4 MiB; 1 MiB keeps many streams' memory small at the same speed."""

FINISHED_FOR = timedelta(hours=24)
"""A finished upload that no import has used by then is deleted."""

_UPLOADS = cast(Table, UploadRow.__table__)
# For the connection, made once: it runs with every part.
_ADVANCE = (
    update(_UPLOADS)
    .where(
        _UPLOADS.c.id == bindparam("of"),
        _UPLOADS.c.epoch == bindparam("stream_epoch"),
        _UPLOADS.c.state == "OPEN",
    )
    .values(committed_size=bindparam("size"), updated_at=bindparam("now"), expires_at=bindparam("until"))
)

log = structlog.get_logger("uploads")


class UploadStream:
    """Takes bytes in order and makes them durable part by part. One thread at a time; made by `Uploads.open_stream`.

    The newest stream of an upload wins: an older one gets Aborted UPLOAD_SUPERSEDED, in this process at its next call,
    in another one when its next part would commit. Always `close()` it. After an error nothing but `close` is useful.
    """

    def __init__(
        self,
        upload: UploadRow,
        caller: Caller,
        db: Database,
        artifacts: ArtifactStore,
        clock: Clock,
        idle: timedelta,
        max_bytes: int,
    ) -> None:
        self.upload_id: UUID = upload.id
        self._caller, self._db, self._artifacts, self._clock = caller, db, artifacts, clock
        self._idle, self._max_bytes = idle, max_bytes
        self._epoch = upload.epoch
        self._upload = upload
        self._began_at = upload.committed_size
        self._superseded = self._closed = False
        self._writer: ArtifactWriter | None = None
        if upload.state == "OPEN":
            assert upload.artifact_id is not None
            self._writer = artifacts.writer(upload.artifact_id, self._on_commit)

    @property
    def committed_size(self) -> int:
        """Bytes that are durable: where a new stream would go on."""
        return self._upload.committed_size if self._writer is None else self._writer.committed

    @property
    def position(self) -> int:
        """Where in the file the next byte belongs: what this stream has taken, durable or not."""
        return self._upload.committed_size if self._writer is None else self._writer.size

    def supersede(self) -> None:
        """Told by a newer stream in this process, from another thread."""
        self._superseded = True

    def write(self, offset: int, data: bytes | memoryview, crc32: int | None = None) -> None:
        """Take `data`, which begins at `offset` of the file; what overlaps bytes already taken is skipped.

        Raises:
            InvalidRequest: CHUNK_TOO_LARGE over 1 MiB; UPLOAD_TOO_LARGE over the installation's limit.
            OffsetMismatch: OFFSET_MISMATCH when bytes between were never sent; metadata committed_size.
            DataInvalid: CHECKSUM_MISMATCH when `crc32` is not that of `data`; SIZE_MISMATCH beyond the declared size.
            Aborted: UPLOAD_SUPERSEDED.
            FailedPrecondition: UPLOAD_NOT_OPEN.
            DataOpsError: what an earlier part met when it was stored.
        """
        self._current()
        if len(data) > MAX_CHUNK_BYTES:
            raise InvalidRequest(
                f"data: expected at most {MAX_CHUNK_BYTES} bytes, found {len(data)}", reason="CHUNK_TOO_LARGE"
            )
        if crc32 is not None and zlib.crc32(data) != crc32:
            raise DataInvalid(
                f"data at {offset}: expected CRC-32 {crc32:08x}, found {zlib.crc32(data):08x}",
                reason="CHECKSUM_MISMATCH",
                metadata={"of": "message", "offset": str(offset)},
            )
        position = self.position
        if not 0 <= offset <= position:
            raise OffsetMismatch(
                f"offset: expected at most {position}, found {offset}",
                reason="OFFSET_MISMATCH",
                metadata={"committed_size": str(self.committed_size)},
            )
        fresh = memoryview(data)[position - offset :]
        if not fresh:
            return
        self._check_size(position + len(fresh))
        if self._writer is None:
            raise self._not_open(self._upload.state)
        self._writer.write(fresh)

    def commit(self) -> int:
        """Make all that was taken durable, also what fills no part, and return `committed_size`.

        For a stream that its client ended in good order without finishing the file.
        """
        self._current()
        return self.committed_size if self._writer is None else self._writer.flush(tail=True)

    def finish(self) -> UploadRow:
        """Check size and SHA-256 against what was declared, commit the rest, close. Repeating it gives the same.

        Raises:
            DataInvalid: SIZE_MISMATCH, after which the upload is still open; CHECKSUM_MISMATCH (metadata of=file),
                after which it is ABORTED: parts are never rewritten, so it must be sent again as a new upload.
            Aborted, FailedPrecondition: as `write`.
        """
        self._current()
        if self._writer is None:
            return self._upload
        declared = self._upload.declared_size
        if declared is not None and declared != self.position:
            raise self._wrong_size(self.position)
        digest = self._writer.digest()
        if self._upload.declared_sha256 is not None and self._upload.declared_sha256 != digest:
            self._abort()
            raise DataInvalid(
                f"expected SHA-256 {self._upload.declared_sha256.hex()}, found {digest.hex()}: the upload is aborted",
                reason="CHECKSUM_MISMATCH",
                metadata={"of": "file", "expected": self._upload.declared_sha256.hex(), "found": digest.hex()},
            )
        self._writer.close(within=self._record_finish)
        self._writer = None
        return self._upload

    def close(self) -> None:
        """End the stream: whole parts are committed, a tail that fills none is dropped. Never raises; repeatable."""
        if self._closed:
            return
        self._closed = True
        ended_at, writer = self.committed_size, self._writer
        try:
            if writer is not None:
                writer.leave()
                ended_at = writer.committed
            with self._db.transaction() as session:
                details = {"offset": self._began_at, "bytes": ended_at - self._began_at}
                record_access(session, self._caller, "uploads.write", "uploads", self.upload_id, details, self._clock())
        except (DataOpsError, SQLAlchemyError) as error:
            log.warning("upload_stream_end_not_recorded", upload_id=str(self.upload_id), error=type(error).__name__)

    def _current(self) -> None:
        if self._closed:
            raise ValueError("the stream is closed")
        if self._superseded:
            raise _superseded(self.upload_id)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise too_large(size, self._max_bytes)
        if self._upload.declared_size is not None and size > self._upload.declared_size:
            raise self._wrong_size(size)

    def _wrong_size(self, found: int) -> DataInvalid:
        declared = self._upload.declared_size
        return DataInvalid(
            f"expected {declared} bytes as declared, found {found}",
            reason="SIZE_MISMATCH",
            metadata={"expected": str(declared), "found": str(found), "committed_size": str(self.committed_size)},
        )

    def _on_commit(self, session: Session, part: ArtifactPartRow) -> None:
        """In the part's own transaction: the row lock and the epoch decide which stream's part it is."""
        now = self._clock()
        values = {"of": self.upload_id, "stream_epoch": self._epoch, "size": part.offset + part.length}
        values |= {"now": now, "until": now + self._idle}
        if session.connection().execute(_ADVANCE, values).rowcount != 1:
            raise self._refusal(session)

    def _record_finish(self, session: Session, closed: Closed) -> None:
        self._upload = self._change(
            session,
            lambda now: {
                "state": "FINISHED",
                "committed_size": closed.size,
                "sha256": closed.sha256,
                "finished_at": now,
                "expires_at": now + FINISHED_FOR,
            },
        )

    def _change(self, session: Session, values: Callable[[datetime], dict[str, object]]) -> UploadRow:
        now = self._clock()
        changed = session.scalars(
            update(UploadRow)
            .where(UploadRow.id == self.upload_id, UploadRow.epoch == self._epoch, UploadRow.state == "OPEN")
            .values(updated_at=now, **values(now))
            .returning(UploadRow)
            .execution_options(synchronize_session=False, populate_existing=True)
        ).one_or_none()
        if changed is not None:
            return changed
        raise self._refusal(session)

    def _refusal(self, session: Session) -> DataOpsError:
        """Why this stream may not change the upload any more."""
        found = session.get(UploadRow, self.upload_id, populate_existing=True)
        if found is not None and found.state == "OPEN":
            return _superseded(self.upload_id)
        return self._not_open("gone" if found is None else found.state)

    def _abort(self) -> None:
        assert self._writer is not None
        with self._db.transaction() as session:
            self._change(session, lambda _now: {"state": "ABORTED"})
            self._artifacts.discard(session, self._writer.artifact_id)

    def _not_open(self, state: str) -> FailedPrecondition:
        return FailedPrecondition(
            f"upload {self.upload_id}: expected OPEN, found {state}",
            reason="UPLOAD_NOT_OPEN",
            metadata={"state": state, "committed_size": str(self.committed_size)},
        )


def _superseded(upload_id: UUID) -> Aborted:
    return Aborted(f"upload {upload_id}: a newer stream of the same upload has taken over", reason="UPLOAD_SUPERSEDED")


def too_large(size: int, limit: int) -> InvalidRequest:
    return InvalidRequest(
        f"expected at most {limit} bytes in one upload, found {size}",
        reason="UPLOAD_TOO_LARGE",
        metadata={"limit": str(limit)},
    )
