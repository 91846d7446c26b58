"""Reading an artifact: parts in order, every byte verified before it is handed out."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.artifacts.blocking import refuse_on_event_loop
from engine.artifacts.digests import Hasher
from engine.artifacts.parts import PartVault, damaged
from engine.crypto.sealing import PartIdentity
from engine.db.database import Database
from engine.db.models import ArtifactPartRow, ArtifactRow
from engine.errors import Aborted, DataLoss, FailedPrecondition, NotFound, OffsetMismatch

FOLLOW_PAUSE = 0.25
"""Seconds a following reader waits for news before it yields an empty chunk: so long a thread is held."""

ROWS_AT_ONCE = 64
"""Part rows fetched by one query: 512 MiB of plaintext."""


class ArtifactReader:
    """One artifact's bytes. Made by `ArtifactStore.reader`; several may read one artifact, each in one thread."""

    def __init__(
        self, artifact: ArtifactRow, db: Database, vault: PartVault, follow: Callable[[], bool] | None = None
    ) -> None:
        self.artifact = artifact
        self._db, self._vault, self._follow = db, vault, follow

    @property
    def closed(self) -> bool:
        """Whether there is a closing record: without one the artifact is incomplete."""
        return self.artifact.state == "CLOSED"

    @property
    def size(self) -> int:
        """Bytes of plaintext: of an open artifact those committed when this was last looked up."""
        return self.artifact.size

    @property
    def sha256(self) -> bytes:
        """Of all plaintext; empty while the artifact is open."""
        return self.artifact.sha256 or b""

    def parts(self, stream: str | None = None) -> list[ArtifactPartRow]:
        """Committed parts in order, of one stream or of all."""
        wanted = select(ArtifactPartRow).where(ArtifactPartRow.artifact_id == self.artifact.id)
        if stream is not None:
            wanted = wanted.where(ArtifactPartRow.stream == stream)
        with self._db.transaction() as session:
            return list(session.scalars(wanted.order_by(ArtifactPartRow.number)))

    def read_part(self, number: int) -> bytes:
        """One whole part.

        Raises:
            NotFound: PART_UNKNOWN when there is no part of that number (yet); ARTIFACT_GONE.
            DataLoss: PART_DAMAGED, PART_MISSING, KEY_WRONG.
        """
        refuse_on_event_loop()
        with self._db.transaction() as session:
            row = session.get(ArtifactPartRow, (self.artifact.id, number))
        if row is None:
            raise NotFound(f"artifact {self.artifact.id} has no part {number}", reason="PART_UNKNOWN")
        return b"".join(self._chunks(row))

    def read(self, offset: int = 0, length: int | None = None, *, check_whole: bool = True) -> Iterator[bytes]:
        """Chunks of at most 1 MiB from `offset` on, `length` bytes or all, each after its whole part was verified.

        Read from 0 to the end, the whole is checked against the closing record too, before the iterator ends. Without
        `check_whole` only its size is: half the hashing, for who hands the digest on to a receiver that compares.
        With `follow` an open artifact is read as it grows: an empty chunk then means that nothing came for
        0.25 s, and the next one may be asked for at once. It ends when the artifact is closed.

        Raises:
            FailedPrecondition: ARTIFACT_NOT_CLOSED when it is open and there is no `follow`.
            OffsetMismatch: OFFSET_MISMATCH when offset or length are negative or the offset lies beyond the end.
            Aborted: ARTIFACT_INCOMPLETE when `follow` says that nobody writes any more and it is still open.
            NotFound: ARTIFACT_GONE when it was deleted meanwhile.
            DataLoss: PART_DAMAGED, PART_MISSING, KEY_WRONG, ARTIFACT_DAMAGED.
        """
        if not self.closed and self._follow is None:
            raise FailedPrecondition(f"artifact {self.artifact.id} is not closed yet", reason="ARTIFACT_NOT_CLOSED")
        beyond = self.closed and offset > self.size
        if offset < 0 or beyond or (length is not None and length < 0):
            raise self._no_offset(offset, length)
        return self._read(offset, length, check_whole)

    def open(self, *, check_whole: bool = True) -> io.RawIOBase:
        """The whole as a sequential file, for libraries that want one. It fails as `read` does."""
        return _SequentialFile(self.read(check_whole=check_whole))

    def _read(self, offset: int, length: int | None, check_whole: bool) -> Iterator[bytes]:
        whole = hashlib.sha256() if offset == 0 and check_whole else None
        position, end = offset, None if length is None else offset + length
        refuse_on_event_loop()
        for chunks, start in self._verified(offset, end, whole):
            while chunks:
                chunk = chunks.pop(0)  # nobody else's: it is let go while the rest is used
                if not chunk:
                    yield b""
                    continue
                first = max(0, position - start)
                last = len(chunk) if end is None else min(len(chunk), end - start)
                start += len(chunk)
                if first < last:
                    position += last - first
                    yield chunk if last - first == len(chunk) else chunk[first:last]
        self._check_end(offset, position, end, whole.digest() if whole is not None else None)

    def _check_end(self, offset: int, position: int, end: int | None, digest: bytes | None) -> None:
        if offset > self.size:
            raise self._no_offset(offset, None)  # a following reader learns the size only now
        expected = self.size if end is None else min(end, self.size)
        whole = digest is not None and self.closed and position == self.size
        if position != expected or (whole and digest != self.artifact.sha256):
            raise DataLoss(
                f"artifact {self.artifact.id}: expected the {expected} bytes of its closing record, found {position}"
                f" or others",
                reason="ARTIFACT_DAMAGED",
                metadata={"artifact_id": str(self.artifact.id)},
            )

    def _no_offset(self, offset: int, length: int | None) -> OffsetMismatch:
        return OffsetMismatch(
            f"expected an offset from 0 to {self.size} and no negative length, found {offset} and {length}",
            reason="OFFSET_MISMATCH",
            metadata={"size": str(self.size)},
        )

    def _verified(self, offset: int, end: int | None, whole: Hasher | None) -> Iterator[tuple[list[bytes], int]]:
        """Opened parts with their offsets; a helper thread opens the next one, and adds it to the whole's digest, while
        the caller uses this one."""
        with ThreadPoolExecutor(1, thread_name_prefix="artifact-reader") as helper:
            ahead: tuple[Future[list[bytes]], int] | None = None
            for row in self._rows(offset, end):
                if row is None:
                    if ahead is not None:
                        yield ahead[0].result(), ahead[1]
                        ahead = None
                    yield [b""], 0
                    continue
                following = (helper.submit(self._chunks, row, whole), row.offset)
                if ahead is not None:
                    yield ahead[0].result(), ahead[1]
                ahead = following
            if ahead is not None:
                yield ahead[0].result(), ahead[1]

    def _rows(self, offset: int, end: int | None) -> Iterator[ArtifactPartRow | None]:
        """Part rows that hold [offset, end), and None where a following reader has nothing yet."""
        reached = offset
        while end is None or reached < end:
            # Before the rows: what it committed last is then among them. Nothing to ask where all is committed: of an
            # export's follower it was two of five transactions each time it looked.
            recorded = end is not None and end <= self.size
            growing = not recorded and self._growing()
            with self._db.transaction() as session:
                rows = self._rows_after(session, reached)
            for row in rows:
                if end is not None and row.offset >= end:
                    return
                if row.offset > reached:
                    raise damaged(self._identity(row), f"expected to begin at or before {reached}, found {row.offset}")
                yield row
                reached = row.offset + row.length
            if rows:
                continue
            if recorded:
                with self._db.transaction() as session:
                    look_up(session, self.artifact.id)  # deleted meanwhile: ARTIFACT_GONE
            if not growing:
                return
            time.sleep(FOLLOW_PAUSE)
            yield None

    def _rows_after(self, session: Session, offset: int) -> list[ArtifactPartRow]:
        wanted = (
            select(ArtifactPartRow)
            .where(
                ArtifactPartRow.artifact_id == self.artifact.id,
                ArtifactPartRow.offset + ArtifactPartRow.length > offset,
            )
            .order_by(ArtifactPartRow.number)
            .limit(ROWS_AT_ONCE)
        )
        return list(session.scalars(wanted))

    def _identity(self, row: ArtifactPartRow) -> PartIdentity:
        return PartIdentity(row.artifact_id, self.artifact.kind, row.number)

    def _growing(self) -> bool:
        """Whether more parts may come; raises when it will never be whole."""
        if self.closed:
            return False
        alive = self._follow is not None and self._follow()  # before the row: closing happens before it turns False
        with self._db.transaction() as session:
            self.artifact = look_up(session, self.artifact.id)
        if self.closed:
            return False
        if not alive:
            raise Aborted(
                f"artifact {self.artifact.id}: its writer ended without closing it", reason="ARTIFACT_INCOMPLETE"
            )
        return True

    def _chunks(self, row: ArtifactPartRow, whole: Hasher | None = None) -> list[bytes]:
        try:
            chunks = self._vault.get(self.artifact.kind, row)
        except NotFound:
            with self._db.transaction() as session:
                look_up(session, self.artifact.id)  # deleted meanwhile: ARTIFACT_GONE
            raise DataLoss(
                f"part {row.number} of artifact {row.artifact_id}: the storage has no such object",
                reason="PART_MISSING",
                metadata={"artifact_id": str(row.artifact_id), "part": str(row.number)},
            ) from None
        if whole is not None:
            for chunk in chunks:
                whole.update(chunk)
        return chunks


def look_up(session: Session, artifact_id: UUID) -> ArtifactRow:
    """The artifact's row.

    Raises:
        NotFound: ARTIFACT_GONE when there is none or it is being deleted.
    """
    artifact = session.get(ArtifactRow, artifact_id)
    if artifact is None or artifact.state == "DELETING":
        raise NotFound(f"artifact {artifact_id} does not exist any more", reason="ARTIFACT_GONE")
    return artifact


class _SequentialFile(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        """Fill the buffer, short only at the end: some readers take a short read for the end."""
        room = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        filled = 0
        while filled < len(room):
            if not self._rest:
                following = next(self._chunks, None)
                if following is None:
                    break
                self._rest = memoryview(following)
                continue
            taken = self._rest[: len(room) - filled]
            room[filled : filled + len(taken)] = taken
            filled += len(taken)
            self._rest = self._rest[len(taken) :]
        return filled

    def close(self) -> None:
        if not self.closed and hasattr(self._chunks, "close"):
            self._chunks.close()
        super().close()
