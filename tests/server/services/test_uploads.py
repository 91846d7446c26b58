"""UploadService over a real channel: offsets, digests, rival streams, resuming, and nothing on the loop."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import grpc
import pytest
from dataops.v1 import uploads_pb2, uploads_pb2_grpc

from server.principals import Principals
from server.services.uploads import UploadService
from server.upload_stream import UploadStreams
from tests.server.off_loop import LoopWatch, watch_blocking_work, watched_storage
from tests.server.rpc import Edge, error_info, retry_seconds

MIB = 1 << 20
PART = 8 * MIB
FILE = os.urandom(2 * PART + 3 * MIB + 77)
DIGEST = hashlib.sha256(FILE).digest()
NOTHING = hashlib.sha256(b"").digest()

Message = uploads_pb2.WriteUploadRequest


@pytest.fixture
def watch(monkeypatch) -> LoopWatch:
    return watch_blocking_work(monkeypatch)


@pytest.fixture
def edge(control_dsn: str, tmp_path, watch: LoopWatch) -> Iterator[Edge]:
    edge = Edge(control_dsn, tmp_path, storage=watched_storage(tmp_path, watch))
    yield edge
    edge.close()


@dataclass
class Client:
    """The stub, and the calls that most tests make."""

    stub: uploads_pb2_grpc.UploadServiceAsyncStub

    async def start(self, **fields) -> str:
        fields = {"request_id": str(uuid.uuid4()), "file_name": "users.csv"} | fields
        answer = await self.stub.StartUpload(uploads_pb2.StartUploadRequest(**fields))
        return answer.upload.upload_id

    async def write(self, upload_id: str, *messages: Message) -> uploads_pb2.WriteUploadResponse:
        async def sent() -> AsyncIterator[Message]:
            for number, message in enumerate(messages):
                message.upload_id = upload_id if number == 0 else ""
                yield message

        return await self.stub.WriteUpload(sent())

    async def get(self, upload_id: str) -> uploads_pb2.Upload:
        return (await self.stub.GetUpload(uploads_pb2.GetUploadRequest(upload_id=upload_id))).upload

    async def refused(self, call) -> tuple[grpc.StatusCode, str, dict[str, str]]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        info = error_info(caught.value)
        assert info.domain == "dataops"
        return caught.value.code(), info.reason, dict(info.metadata)


@pytest.fixture
async def client(edge: Edge, watch: LoopWatch) -> AsyncIterator[Client]:
    streams = UploadStreams(edge.uploads, edge.offload, edge.drain)
    service = UploadService(edge.uploads, streams, Principals(edge.db, edge.offload), edge.offload)
    watch.on_loop.clear()  # the fixtures are made on this thread
    async with (
        edge.serving((uploads_pb2_grpc.add_UploadServiceServicer_to_server, service)) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield Client(uploads_pb2_grpc.UploadServiceStub(channel))
    assert watch.on_loop == [], "hashing, sealing, storage and database calls belong on threads"


def messages(content: bytes, first: int = 0, size: int = MIB, *, finish: bool = True) -> list[Message]:
    """The file from `first` on in messages of `size`."""
    starts = range(first, max(len(content), first + 1), size)
    made = [
        Message(offset=at, data=content[at : at + size], crc32=zlib.crc32(content[at : at + size])) for at in starts
    ]
    made[-1].finish = finish
    return made


def streams_so_far(edge: Edge, upload_id: str) -> int:
    return edge.uploads.get(edge.caller(), uuid.UUID(upload_id)).epoch


def stored(edge: Edge, upload_id: str) -> bytes:
    row = edge.uploads.get(edge.caller(), uuid.UUID(upload_id))
    assert row.artifact_id is not None
    return b"".join(edge.store.reader(row.artifact_id).read())


async def test_a_file_is_uploaded_sealed_and_readable_as_it_was(client, edge, watch):
    upload_id = await client.start(size_bytes=len(FILE), sha256=DIGEST)
    answer = await client.write(upload_id, *messages(FILE))

    assert answer == uploads_pb2.WriteUploadResponse(
        committed_size=len(FILE), sha256=DIGEST, state=uploads_pb2.UPLOAD_STATE_FINISHED
    )
    assert watch.calls["seal"] == 3, "the watch saw the three parts being sealed"
    shown = await client.get(upload_id)
    assert (shown.state, shown.committed_size, shown.sha256) == (answer.state, len(FILE), DIGEST)
    assert (shown.owner.subject, shown.file_name) == ("admin", "users.csv")
    assert await asyncio.to_thread(stored, edge, upload_id) == FILE


@pytest.mark.parametrize("size", [1, 1000, 70_001])
async def test_any_message_size_gives_the_same_file(client, size):
    content = FILE[: size * 50]
    digest = await asyncio.to_thread(lambda: hashlib.sha256(content).digest())
    answer = await client.write(await client.start(), *messages(content, size=size))

    assert (answer.committed_size, answer.sha256) == (len(content), digest)


async def test_an_empty_file_can_be_uploaded(client):
    answer = await client.write(await client.start(size_bytes=0), Message(finish=True))

    assert (answer.committed_size, answer.sha256) == (0, NOTHING)


async def test_a_clean_end_without_finish_commits_everything(client):
    upload_id = await client.start()
    answer = await client.write(upload_id, *messages(FILE[:12345], finish=False))

    assert (answer.committed_size, answer.state) == (12345, uploads_pb2.UPLOAD_STATE_OPEN)
    answer = await client.write(upload_id, *messages(FILE, 12345))
    assert (answer.committed_size, answer.sha256) == (len(FILE), DIGEST)


async def test_an_offset_beyond_what_is_there_is_refused_with_the_place_to_go_on(client):
    upload_id = await client.start()
    await client.write(upload_id, *messages(FILE[:100], finish=False))

    code, reason, metadata = await client.refused(client.write(upload_id, Message(offset=101, data=b"x")))

    assert (code, reason) == (grpc.StatusCode.OUT_OF_RANGE, "OFFSET_MISMATCH")
    assert metadata["committed_size"] == "100"


async def test_an_overlap_is_skipped(client):
    upload_id = await client.start()
    await client.write(upload_id, *messages(FILE[:1000], finish=False))
    answer = await client.write(upload_id, Message(data=FILE[:600]), *messages(FILE, 600, finish=True))

    assert answer.sha256 == DIGEST


@pytest.mark.parametrize(
    ("declared", "sent", "reason"),
    [
        ({"sha256": b"\1" * 32}, b"abc", "CHECKSUM_MISMATCH"),
        ({"size_bytes": 4}, b"abc", "SIZE_MISMATCH"),
        ({"size_bytes": 2}, b"abc", "SIZE_MISMATCH"),
    ],
)
async def test_a_file_other_than_declared_is_refused(client, declared, sent, reason):
    upload_id = await client.start(**declared)
    code, found, _ = await client.refused(client.write(upload_id, *messages(sent)))

    assert (code, found) == (grpc.StatusCode.FAILED_PRECONDITION, reason)
    assert (await client.get(upload_id)).state != uploads_pb2.UPLOAD_STATE_FINISHED


async def test_a_wrong_crc_is_refused(client):
    upload_id = await client.start()
    _, reason, metadata = await client.refused(client.write(upload_id, Message(data=b"abc", crc32=1)))

    assert (reason, metadata["committed_size"]) == ("CHECKSUM_MISMATCH", "0")


async def test_a_message_over_one_mebibyte_is_refused(client):
    code, reason, _ = await client.refused(client.write(await client.start(), Message(data=b"x" * (MIB + 1))))

    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_an_oversized_message_has_a_reason_too(client):
    code, reason, _ = await client.refused(client.write(await client.start(), Message(data=b"x" * (5 * MIB))))

    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")


async def test_an_upload_that_does_not_exist_is_refused(client):
    code, reason, _ = await client.refused(client.write(str(uuid.uuid4()), Message(data=b"x")))

    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "UPLOAD_UNKNOWN")


async def test_a_stream_without_a_name_is_refused(client):
    assert (await client.refused(client.write("", Message(data=b"x"))))[1] == "UPLOAD_NOT_NAMED"
    assert (await client.refused(client.stub.WriteUpload(iter(()))))[1] == "UPLOAD_NOT_NAMED"


async def test_a_stream_keeps_to_one_upload(client):
    first, second = await client.start(), await client.start()
    call = client.stub.WriteUpload(iter([Message(upload_id=first, data=b"x"), Message(upload_id=second, data=b"y")]))

    assert (await client.refused(call))[1] == "UPLOAD_CHANGED"


async def test_an_older_stream_ends_as_soon_as_a_newer_one_begins(client, edge):
    upload_id = await client.start()
    older = client.stub.WriteUpload()
    await older.write(Message(upload_id=upload_id, data=FILE[:100]))
    while await asyncio.to_thread(streams_so_far, edge, upload_id) == 0:
        await asyncio.sleep(0.02)
    newer = await client.write(upload_id, *messages(FILE))

    assert newer.sha256 == DIGEST
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(older, 10)  # it was idle: nothing more was written to it
    assert (caught.value.code(), error_info(caught.value).reason) == (grpc.StatusCode.ABORTED, "UPLOAD_SUPERSEDED")


async def test_a_broken_stream_is_resumed_on_a_part_border(client):
    upload_id = await client.start(size_bytes=len(FILE), sha256=DIGEST)
    broken = client.stub.WriteUpload()
    for number, message in enumerate(messages(FILE, finish=False)[:11]):  # one part and three messages
        message.upload_id = upload_id if number == 0 else ""
        await broken.write(message)
    while (await client.get(upload_id)).committed_size == 0:
        await asyncio.sleep(0.05)
    broken.cancel()
    await asyncio.sleep(0.2)

    # the tail that fills no part is dropped; on a busy machine the cancel may look like the stream's own end, and then
    # the tail is kept: either way what is said to be committed is, and the upload goes on from there
    committed = (await client.get(upload_id)).committed_size
    assert committed in (PART, 11 * MIB)
    assert (await client.write(upload_id, *messages(FILE, committed))).sha256 == DIGEST


async def test_a_drain_ends_a_stream_with_the_time_to_come_back(client, edge):
    upload_id = await client.start()
    call = client.stub.WriteUpload()
    await call.write(Message(upload_id=upload_id, data=b"x"))
    await asyncio.sleep(0.2)
    edge.drain.begin()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 10)
    assert (caught.value.code(), error_info(caught.value).reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "SERVER_STOPPING",
    )
    assert retry_seconds(caught.value)


async def test_the_same_request_gives_the_same_upload_and_another_body_is_refused(client):
    request_id = str(uuid.uuid4())
    first = await client.start(request_id=request_id)

    assert await client.start(request_id=request_id) == first
    code, reason, _ = await client.refused(client.start(request_id=request_id, file_name="other.csv"))
    assert (code, reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_uploads_are_listed_newest_first_by_pages(client):
    made = [await client.start() for _ in range(5)]
    await client.stub.AbortUpload(uploads_pb2.AbortUploadRequest(upload_id=made[0]))
    listed, token = [], ""
    while True:
        page = await client.stub.ListUploads(uploads_pb2.ListUploadsRequest(page_size=2, page_token=token))
        listed += [upload.upload_id for upload in page.uploads]
        if not (token := page.next_page_token):
            break

    assert listed == made[::-1]
    states = [uploads_pb2.UPLOAD_STATE_ABORTED]
    aborted = await client.stub.ListUploads(uploads_pb2.ListUploadsRequest(states=states))
    assert [upload.upload_id for upload in aborted.uploads] == made[:1]


async def test_a_caller_without_a_role_may_not_upload(client):
    request = uploads_pb2.StartUploadRequest(request_id=str(uuid.uuid4()), file_name="x.csv")
    call = client.stub.StartUpload(request, metadata=(("subject", "nobody"),))

    assert (await client.refused(call))[:2] == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
