"""A file's way out: parts are opened on a thread, a batch ahead of what is sent; the footer comes last.

    engine reader ── thread hop: up to 4 chunks of ≤ 1 MiB ──> loop ── one message per chunk ──> caller

Every download is audited: an intent before the first byte leaves, an outcome with the bytes sent when the stream ends,
however it ends.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import islice

from engine.access import Caller
from engine.artifacts import ArtifactReader, ArtifactStore
from engine.audit import record_intent, record_outcome
from engine.clock import Clock
from engine.db.database import Database
from engine.errors import DataOpsError, FailedPrecondition, OffsetMismatch
from server.cleanup import surely
from server.drain import Drain
from server.offload import Offload

BATCH_CHUNKS = 4
"""Chunks one thread hop opens: at 1 MiB each a hop's cost vanishes, and two batches are all a stream holds."""
FOLLOW_SECONDS = 0.05
"""How often a follower looks for new parts: half the time that a part of 8 MiB takes an export to write."""


@dataclass(frozen=True)
class Source:
    """What to send: an artifact, and for one that may still grow the question whether it does."""

    artifact_id: uuid.UUID
    resource_type: str
    resource_id: uuid.UUID
    still_writing: Callable[[], bool] | None = None
    """Blocks; raises when the writer has failed or the caller may not go on. None: the artifact must be closed."""


@dataclass(frozen=True)
class Piece:
    """Bytes and where they stand in the file."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class Footer:
    """The end: of the whole file, whatever was asked for. `sha256` is empty while the file still grows."""

    offset: int
    size: int
    sha256: bytes


class Downloads:
    """Sends files."""

    def __init__(
        self,
        db: Database,
        artifacts: ArtifactStore,
        clock: Clock,
        offload: Offload,
        drain: Drain,
        sent: Callable[[int], object] = lambda _n: None,
    ) -> None:
        """`sent` is told how many bytes each stream came to."""
        self._sent = sent
        self._db = db
        self._artifacts = artifacts
        self._clock = clock
        self._offload = offload
        self._drain = drain

    async def stream(
        self, caller: Caller, operation: str, source: Source, offset: int, limit: int
    ) -> AsyncGenerator[Piece | Footer, None]:
        """The file from `offset`, at most `limit` bytes (0: to its end), then the footer.

        Raises:
            OffsetMismatch: OFFSET_MISMATCH beyond the file's end, metadata size.
            FailedPrecondition: FILE_NOT_COMPLETE.
            Unavailable: SERVER_STOPPING.
        """
        intent = await self._offload.call(self._begin, caller, operation, source, offset)
        sent, outcome, reason = 0, "CANCELLED", ""
        try:
            async with aclosing(self._pieces(source, offset, limit)) as pieces:
                async for piece in pieces:
                    self._drain.check()
                    yield piece
                    sent += len(piece.data) if isinstance(piece, Piece) else 0
            outcome = "COMPLETED"
        except Exception as error:
            outcome, reason = "FAILED", error.reason if isinstance(error, DataOpsError) else "INTERNAL"
            raise
        finally:
            self._sent(sent)
            await surely(self._offload, self._end, intent, outcome, sent, reason)

    async def _pieces(self, source: Source, offset: int, limit: int) -> AsyncGenerator[Piece | Footer, None]:
        position, end = offset, offset + limit if limit else None
        while True:
            reader, growing = await self._offload.call(self._look, source, position)
            # As seen now, since reading looks the artifact up again. A closed file whose writer goes on may still be
            # thrown away with a job that fails at its very end: its footer waits for that end.
            closed, size = reader.closed and not growing, reader.size
            stop = size if end is None else min(end, size)
            async with aclosing(self._chunks(reader, position, stop - position)) as chunks:
                async for data in chunks:
                    yield Piece(position, data)
                    position += len(data)
            if closed or (end is not None and position >= end):
                yield Footer(position, size, reader.sha256 if closed else b"")
                return
            await self._pause()

    def _look(self, source: Source, position: int) -> tuple[ArtifactReader, bool]:
        """On a thread: a reader of what there is now, and whether somebody still writes."""
        growing = source.still_writing is not None and source.still_writing()  # first: what was written last is seen
        reader = self._artifacts.reader(source.artifact_id, follow=source.still_writing)
        if not reader.closed and not growing:
            raise FailedPrecondition(
                f"file: found {reader.size} bytes without its closing record, expected a complete file",
                reason="FILE_NOT_COMPLETE",
            )
        if reader.closed and position > reader.size:
            raise OffsetMismatch(
                f"offset: found {position}, expected at most the file's size {reader.size}",
                reason="OFFSET_MISMATCH",
                metadata={"size": str(reader.size)},
            )
        return reader, growing

    async def _chunks(self, reader: ArtifactReader, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """The bytes, a batch of them opened ahead while the one before is sent."""
        if length <= 0:
            return
        # Each part is authenticated and its digest checked before its bytes go; the whole's stands in the footer, and
        # the receiver compares it: to compute it here too would be as much work as all the rest of the engine's.
        chunks = await self._offload.call(partial(reader.read, offset, length, check_whole=False))
        ahead = asyncio.create_task(self._offload.call(_batch, chunks))
        try:
            while batch := await ahead:
                ahead = asyncio.create_task(self._offload.call(_batch, chunks))
                for data in batch:
                    yield data
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)
            await surely(self._offload, _close, chunks)  # it ends a helper thread of its own, which may take a part

    async def _pause(self) -> None:
        stopped = asyncio.Event()
        with self._drain.waking(stopped.set):
            self._drain.check()
            try:
                async with asyncio.timeout(FOLLOW_SECONDS):
                    await stopped.wait()
            except TimeoutError:
                return
        self._drain.check()

    def _begin(self, caller: Caller, operation: str, source: Source, offset: int) -> uuid.UUID:
        details = {"artifact_id": source.artifact_id, "offset": offset}
        with self._db.transaction() as session:
            return record_intent(
                session, caller, operation, source.resource_type, source.resource_id, details, self._clock()
            )

    def _end(self, intent: uuid.UUID, outcome: str, sent: int, reason: str) -> None:
        details = {"bytes_sent": sent} | ({"reason": reason} if reason else {})
        with self._db.transaction() as session:
            record_outcome(session, intent, outcome, details, self._clock())


def _batch(chunks: Iterator[bytes]) -> list[bytes]:
    """On a thread: the next chunks, opened and checked."""
    return list(islice(chunks, BATCH_CHUNKS))


def _close(chunks: Iterator[bytes]) -> None:
    if isinstance(chunks, Generator):
        chunks.close()
