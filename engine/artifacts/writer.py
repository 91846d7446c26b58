"""Writing an artifact: cut into parts, seal and store each on a helper thread, commit its row, close."""

from __future__ import annotations

import hashlib
import mmap
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Table, bindparam, insert, select, update
from sqlalchemy.orm import Session

from engine.artifacts.blocking import refuse_on_event_loop
from engine.artifacts.digests import Hasher, RunningDigests
from engine.artifacts.parts import PartVault, StoredPart
from engine.clock import Clock
from engine.crypto.sealing import MAX_PART_BYTES, PartIdentity
from engine.db.database import Database
from engine.db.models import ArtifactPartRow, ArtifactRow
from engine.errors import Aborted, DataOpsError, FailedPrecondition, NotFound

COMMIT_WITHIN = timedelta(minutes=10)
"""A part recorded later than this after it was stored is refused: the sweep (after 1 hour) may have its object."""

UNDER_WAY = 2
"""Parts that are stored at once, each on a thread: of a part's 30 ms most are waiting for disk and database."""

OnCommit = Callable[[Session, ArtifactPartRow], None]

_PARTS, _ARTIFACTS = cast(Table, ArtifactPartRow.__table__), cast(Table, ArtifactRow.__table__)
# A part's statements are made once, for the connection: through the ORM, recording a part held the GIL for 6 ms.
_ADD_PART = insert(_PARTS)
_ADVANCE = (
    update(_ARTIFACTS)
    .where(
        _ARTIFACTS.c.id == bindparam("of"),
        _ARTIFACTS.c.state == "OPEN",
        _ARTIFACTS.c.part_count == bindparam("parts_before"),
        _ARTIFACTS.c.size == bindparam("size_before"),
    )
    .values(part_count=bindparam("parts"), size=bindparam("bytes"))
)


@dataclass(frozen=True, slots=True)
class Closed:
    """A closing record. `sha256` is of the plaintext, parts in order."""

    size: int
    sha256: bytes
    parts: int


class ArtifactWriter:
    """Adds parts to one open artifact, then closes it. One thread at a time; two writers of one artifact: one fails.

    While the caller fills a part, two helper threads seal, check, store and commit the two before it: one's storing
    overlaps the other's, commits stay in order. So memory stays at five parts (40 MiB). What went wrong there is raised
    by the next call. Use it as a context manager: leaving without `close()` waits for the parts under way, drops what
    fills no part, leaves the artifact OPEN.
    """

    def __init__(
        self,
        artifact: ArtifactRow,
        db: Database,
        vault: PartVault,
        digests: RunningDigests,
        clock: Clock,
        on_commit: OnCommit | None,
    ) -> None:
        self.artifact_id: UUID = artifact.id
        self.committed = artifact.size
        """Bytes whose parts are durable and recorded."""
        self._kind = artifact.kind
        self._db, self._vault, self._digests, self._clock = db, vault, digests, clock
        self._on_commit = on_commit
        self._parts = artifact.part_count
        self._handed_over = artifact.size
        self._running: Hasher | None = (
            hashlib.sha256() if artifact.part_count == 0 else digests.after(artifact.id, artifact.part_count)
        )
        self._buffers: deque[mmap.mmap | None] = deque([None] * (UNDER_WAY + 1))
        self._filled = 0
        self._helper: ThreadPoolExecutor | None = None
        self._pending: deque[Future[None]] = deque()
        self._failure: BaseException | None = None
        self._closed: Closed | None = None
        self._left = False

    @property
    def size(self) -> int:
        """Bytes taken so far, committed or not."""
        return self._handed_over + self._filled

    def __enter__(self) -> ArtifactWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self._settle()
        except Exception:
            if error is None and self._failure is not None and not self._left:
                raise
        finally:
            self.leave()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take `data`; it is copied. Whole parts go on their way as they fill.

        Raises:
            DataOpsError: what an earlier part met: STORAGE_FULL, ARTIFACT_NOT_OPEN, or what `on_commit` raised.
        """
        self._usable()
        view = memoryview(data).cast("B")
        while view:
            taken = view[: MAX_PART_BYTES - self._filled]
            self._buffer()[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            view = view[len(taken) :]
            if self._filled == MAX_PART_BYTES:
                self._cut()

    def write_part(
        self, data: bytes | bytearray | memoryview, *, stream: str = "", index: dict[str, Any] | None = None
    ) -> int:
        """Make `data` (1 byte to 8 MiB) one part and return its number; what `write` has left is a part before it."""
        self._usable()
        if not 0 < len(data) <= MAX_PART_BYTES:
            raise ValueError(f"a part has 1 to {MAX_PART_BYTES} bytes, found {len(data)}")
        if self._filled:
            self._cut()
        return self._hand_over(memoryview(data if isinstance(data, bytes) else bytes(data)), stream, index)

    def flush(self, *, tail: bool = False) -> int:
        """Wait until all whole parts are committed, with `tail` also what fills none, and return `committed`."""
        self._usable()
        if tail and self._filled:
            self._cut()
        self._settle()
        return self.committed

    def digest(self) -> bytes:
        """SHA-256 of everything taken so far, committed or not.

        A writer that did not see the first parts reads them again, which takes a second per GB or so.
        """
        self._usable()
        self._settle()
        if self._running is None:
            self._running = self._digest_again()
        state = self._running.copy()
        if self._filled:
            with memoryview(self._buffer()) as view:
                state.update(view[: self._filled])
        return state.digest()

    def close(self, within: Callable[[Session, Closed], None] | None = None) -> Closed:
        """Commit what is left and the closing record; `within` is called in the closing record's transaction, first.

        Calling it again returns the same. When `within` raises, the artifact stays OPEN.
        """
        if self._closed is not None:
            return self._closed
        self.flush(tail=True)
        closed = Closed(self.committed, self.digest(), self._parts)
        with self._db.transaction() as session:
            if within is not None:
                within(session, closed)
            artifact = self._locked(session, closed.parts, closed.size)
            artifact.state, artifact.sha256, artifact.closed_at = "CLOSED", closed.sha256, self._clock()
        self._closed = closed
        self._digests.forget(self.artifact_id)
        self.leave()
        return closed

    def leave(self) -> None:
        """Wait for the parts under way, let go of memory and threads; nothing commits after this. May be repeated."""
        self._left = True
        if self._helper is not None:
            self._helper.shutdown(wait=True)
            self._helper = None
        while self._buffers:
            if (buffer := self._buffers.pop()) is not None:
                self._vault.buffers.give_back(buffer)

    def _usable(self) -> None:
        refuse_on_event_loop()
        if self._left:
            raise ValueError("the writer is closed")
        while self._pending and self._pending[0].done():
            self._settle(len(self._pending) - 1)
        if self._failure is not None:
            raise self._failure

    def _buffer(self) -> mmap.mmap:
        buffer = self._buffers[0]
        if buffer is None:
            buffer = self._buffers[0] = self._vault.buffers.take()
        return buffer

    def _cut(self) -> None:
        """Hand what is filled over and turn to the next buffer: the part that was in it has been settled."""
        view = memoryview(self._buffer())[: self._filled]
        self._hand_over(view, "", None)
        self._filled = 0
        self._buffers.rotate(-1)

    def _hand_over(self, data: memoryview, stream: str, index: dict[str, Any] | None) -> int:
        if self._running is not None:
            self._running.update(data)  # while the helpers are still busy with the parts before
        self._settle(UNDER_WAY - 1)
        number, offset = self._parts, self._handed_over
        state = self._running.copy() if self._running is not None else None
        if self._helper is None:
            self._helper = ThreadPoolExecutor(UNDER_WAY, thread_name_prefix="artifact-writer")
        self._parts += 1
        self._handed_over += len(data)
        before = self._pending[-1] if self._pending else None
        self._pending.append(self._helper.submit(self._store, number, offset, data, state, stream, index, before))
        return number

    def _settle(self, left: int = 0) -> None:
        """Wait until `left` parts are under way and raise what the first that failed met; from then on only that."""
        while len(self._pending) > left:
            try:
                self._pending.popleft().result()
            except BaseException as error:
                self._failure = self._failure or error
        if self._failure is not None:
            raise self._failure

    def _store(
        self,
        number: int,
        offset: int,
        data: memoryview,
        state: Hasher | None,
        stream: str,
        index: dict[str, Any] | None,
        before: Future[None] | None,
    ) -> None:
        # The whole's digest after part 0 is that part's own: small artifacts are hashed once.
        digest = state.digest() if state is not None and number == 0 else hashlib.sha256(data).digest()
        begun = self._clock()
        with self._vault.buffers.borrowed() as scratch:
            stored = self._vault.put(PartIdentity(self.artifact_id, self._kind, number), data, scratch)
        if before is not None and (failure := before.exception()) is not None:
            self._forget(stored)
            raise failure
        row = ArtifactPartRow(
            artifact_id=self.artifact_id,
            number=number,
            name=stored.name,
            offset=offset,
            length=len(data),
            stored_length=stored.stored_length,
            sha256=digest,
            key_id=stored.wrapped.key_id,
            wrapped_key=stored.wrapped.data,
            stream=stream,
            index=index,
        )
        self._commit(row, stored, begun)
        self.committed = offset + row.length
        if state is not None:
            self._digests.remember(self.artifact_id, number + 1, state)

    def _commit(self, row: ArtifactPartRow, stored: StoredPart, begun: datetime) -> None:
        try:
            with self._db.transaction() as session:
                # The owner's row before the artifact's, as everywhere: two orders would deadlock.
                if self._on_commit is not None:
                    self._on_commit(session, row)
                self._advance(session, row)
                session.connection().execute(_ADD_PART, {column.name: getattr(row, column.name) for column in _PARTS.c})
                self._check_age(row, begun)
        except DataOpsError:
            # Ours, so before COMMIT: the row cannot exist. After any other error it may: the sweep decides.
            self._forget(stored)
            raise

    def _forget(self, stored: StoredPart) -> None:
        """Delete a part that has no row and will have none; the sweep takes what stays."""
        with suppress(DataOpsError):
            self._vault.storage.delete(stored.name)

    def _advance(self, session: Session, row: ArtifactPartRow) -> None:
        """The artifact grows by this part, if it still ends where the part begins."""
        before = {"of": row.artifact_id, "parts_before": row.number, "size_before": row.offset}
        after = {"parts": row.number + 1, "bytes": row.offset + row.length}
        while session.connection().execute(_ADVANCE, before | after).rowcount != 1:
            self._locked(session, row.number, row.offset)  # says what it found; else it was only about to change

    def _check_age(self, row: ArtifactPartRow, begun: datetime) -> None:
        # Inside the transaction: the server ends one that idles for 60 s, so COMMIT comes soon after this or never.
        age = self._clock() - begun
        if not timedelta(0) <= age <= COMMIT_WITHIN:
            raise Aborted(
                f"part {row.number} of artifact {row.artifact_id}: expected to be recorded within"
                f" {COMMIT_WITHIN.seconds} s after it was stored, found {age.total_seconds():.0f} s",
                reason="PART_TOO_LATE",
            )

    def _locked(self, session: Session, parts: int, size: int) -> ArtifactRow:
        artifact = session.get(ArtifactRow, self.artifact_id, with_for_update=True, populate_existing=True)
        if artifact is None:
            raise NotFound(f"artifact {self.artifact_id} does not exist any more", reason="ARTIFACT_GONE")
        if artifact.state != "OPEN":
            raise FailedPrecondition(
                f"artifact {self.artifact_id}: expected OPEN, found {artifact.state}", reason="ARTIFACT_NOT_OPEN"
            )
        if (artifact.part_count, artifact.size) != (parts, size):
            raise Aborted(
                f"artifact {self.artifact_id}: expected {parts} parts of {size} bytes, found {artifact.part_count}"
                f" of {artifact.size}: another writer has added to it",
                reason="ARTIFACT_CHANGED",
            )
        return artifact

    def _digest_again(self) -> Hasher:
        """Read every committed part again, verifying it, a part at a time."""
        state: Hasher = hashlib.sha256()
        for number in range(self._parts):
            with self._db.transaction() as session:
                row = session.scalars(
                    select(ArtifactPartRow).where(
                        ArtifactPartRow.artifact_id == self.artifact_id, ArtifactPartRow.number == number
                    )
                ).one()
            for chunk in self._vault.get(self._kind, row):
                state.update(chunk)
        return state
