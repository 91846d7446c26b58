"""An upload's stream: messages come in on the loop, bytes are hashed, sealed and made durable on a thread.

    grpc ── fill ──> _Inbox (≤ 8 MiB) ── take ──> one thread hop for all that is ready (≤ 4 MiB) ──> engine

While a batch is written the next one arrives, so the network and the disk work side by side, and a fast sender costs
one hop per 4 MiB instead of one per message.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dataops.v1 import uploads_pb2

from engine.access import Caller
from engine.db.models import UploadRow
from engine.errors import Aborted, DataOpsError, InvalidRequest
from engine.ids import parse_id
from server.cleanup import surely
from server.drain import Drain
from server.offload import Offload

INBOX_BYTES = 8 << 20
"""What may wait for the thread; then the sender is held back by HTTP/2's own flow control."""
BATCH_BYTES = 4 << 20
"""Of one thread hop: half of what the inbox holds, so that the other half arrives meanwhile."""
MESSAGE_COST = 256
"""Counted for each message beside its data: empty ones must not fill memory unseen."""

Message = uploads_pb2.WriteUploadRequest


class Stream(Protocol):
    """What the engine gives for an open stream; every call blocks."""

    @property
    def committed_size(self) -> int: ...

    def write(self, offset: int, data: bytes, crc32: int | None = None) -> None: ...

    def commit(self) -> int: ...

    def finish(self) -> UploadRow: ...

    def close(self) -> None: ...


class StreamSource(Protocol):
    """Who opens streams: `engine.uploads.Uploads`."""

    def open_stream(self, caller: Caller, upload_id: uuid.UUID) -> Stream: ...


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message taken apart as it comes: every access to its `data` would be one more copy of up to 1 MiB."""

    upload_id: str
    offset: int
    data: bytes
    crc32: int | None
    finish: bool

    @classmethod
    def of(cls, message: Message) -> Arrived:
        crc32 = message.crc32 if message.HasField("crc32") else None
        return cls(message.upload_id, message.offset, message.data, crc32, message.finish)


@dataclass(frozen=True)
class Receipt:
    """What a stream came to. `sha256` is empty unless the upload is finished."""

    committed_size: int
    sha256: bytes
    finished: bool


class UploadStreams:
    """Receives streams; knows those of this server that are open, so that a newer one ends an older one at once."""

    def __init__(
        self, uploads: StreamSource, offload: Offload, drain: Drain, received: Callable[[int], object] = lambda _n: None
    ) -> None:
        """`received` is told how many bytes were taken."""
        self._received = received
        self._uploads = uploads
        self._offload = offload
        self._drain = drain
        self._open: dict[uuid.UUID, _Inbox] = {}

    async def receive(self, caller: Caller, messages: AsyncIterable[Message]) -> Receipt:
        """Write one stream to its end. Errors carry committed_size once the upload is known.

        Raises:
            InvalidRequest: UPLOAD_NOT_NAMED, UPLOAD_CHANGED, FINISH_NOT_LAST, and what the engine's stream refuses.
            Aborted: UPLOAD_SUPERSEDED.
            Unavailable: SERVER_STOPPING.
        """
        inbox = _Inbox()
        filling = asyncio.create_task(inbox.fill(messages))
        try:
            with self._drain.waking(lambda: inbox.fail(self._stopping())):
                self._drain.check()
                return await self._receive(caller, inbox)
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)

    async def _receive(self, caller: Caller, inbox: _Inbox) -> Receipt:
        batch = await inbox.take()
        if not batch or not batch[0].upload_id:
            raise InvalidRequest("the first message of the stream names no upload", reason="UPLOAD_NOT_NAMED")
        upload_id = parse_id(batch[0].upload_id, "upload_id")
        stream = await self._offload.call(self._uploads.open_stream, caller, upload_id)
        self._supersede(upload_id, inbox)
        try:
            return await self._write_all(upload_id, stream, inbox, batch)
        except DataOpsError as error:
            error.metadata.setdefault("committed_size", str(stream.committed_size))
            raise
        finally:
            if self._open.get(upload_id) is inbox:
                del self._open[upload_id]
            await surely(self._offload, stream.close)

    async def _write_all(
        self, upload_id: uuid.UUID, stream: Stream, inbox: _Inbox, batch: Sequence[Arrived]
    ) -> Receipt:
        while batch:
            finished = await self._offload.call(_write, stream, str(upload_id), batch)
            self._received(sum(len(message.data) for message in batch))
            if finished is not None:
                return Receipt(finished.committed_size, finished.sha256 or b"", finished=True)
            batch = await inbox.take()
        return Receipt(await self._offload.call(stream.commit), b"", finished=False)

    def _supersede(self, upload_id: uuid.UUID, inbox: _Inbox) -> None:
        """The engine's epoch stops an older stream at its next part, on any server; here it ends at once."""
        if older := self._open.get(upload_id):
            older.fail(
                Aborted(
                    f"upload {upload_id}: a newer stream of the same upload has taken over", reason="UPLOAD_SUPERSEDED"
                )
            )
        self._open[upload_id] = inbox

    def _stopping(self) -> DataOpsError:
        try:
            self._drain.check()
        except DataOpsError as error:
            return error
        raise AssertionError("the drain woke a stream before it began")


def _write(stream: Stream, upload_id: str, batch: Sequence[Arrived]) -> UploadRow | None:
    """On a thread: every message of the batch; the finished upload if one of them says so."""
    for number, message in enumerate(batch):
        if message.upload_id and message.upload_id != upload_id:
            raise InvalidRequest("upload_id: found another one than in the first message", reason="UPLOAD_CHANGED")
        if message.finish and number + 1 < len(batch):
            raise InvalidRequest("finish: found before the stream's last message", reason="FINISH_NOT_LAST")
        stream.write(message.offset, message.data, message.crc32)
        if message.finish:
            return stream.finish()
    return None


class _Inbox:
    """Messages that have arrived and are not written yet. Loop only."""

    def __init__(self) -> None:
        self._messages: deque[tuple[int, Arrived]] = deque()
        self._bytes = 0
        self._ended = False
        self._failure: BaseException | None = None
        self._ready = asyncio.Event()
        self._room = asyncio.Event()

    async def fill(self, messages: AsyncIterable[Message]) -> None:
        """Take messages as long as there is room for them, until the sender is done or lost."""
        try:
            async for message in messages:
                arrived = Arrived.of(message)
                del message  # it holds the bytes too, while the next one is waited for
                size = len(arrived.data) + MESSAGE_COST
                self._messages.append((size, arrived))
                self._bytes += size
                self._ready.set()
                while self._bytes >= INBOX_BYTES:
                    self._room.clear()
                    await self._room.wait()
            self._ended = True
        except BaseException as error:
            self._failure = self._failure or error
            raise
        finally:
            self._ready.set()

    def fail(self, failure: BaseException) -> None:
        """Let the next `take` raise this, whatever has arrived."""
        self._failure = self._failure or failure
        self._ready.set()

    async def take(self) -> list[Arrived]:
        """What is ready, at least one message, until 4 MiB are full; empty when the sender is done."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self._messages:
                return self._batch()
            if self._ended:
                return []
            self._ready.clear()
            await self._ready.wait()

    def _batch(self) -> list[Arrived]:
        batch: list[Arrived] = []
        taken = 0
        while self._messages and taken < BATCH_BYTES:
            size, message = self._messages.popleft()
            taken += size
            batch.append(message)
        self._bytes -= taken
        self._room.set()
        return batch
