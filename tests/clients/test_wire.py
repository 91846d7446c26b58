"""What the client puts on the wire by itself is what protobuf would read, at every length of a length."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import grpc
import pytest
from dataops.v1 import uploads_pb2, uploads_pb2_grpc
from dataops_client import DataOps
from dataops_client.upload import upload_file
from dataops_client.wire import Piece

from tests.clients.fake_server import World

Request = uploads_pb2.WriteUploadRequest


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16_383, 16_384, 1 << 20])
@pytest.mark.parametrize(
    "head", [Request(), Request(upload_id="u", offset=1 << 40, crc32=0, finish=True)], ids=["", "full"]
)
def test_a_piece_is_the_message_that_it_stands_for(head: uploads_pb2.WriteUploadRequest, length: int):
    data = os.urandom(length)
    expected = Request(data=data)
    expected.MergeFrom(head)

    piece = Piece(head, data)

    assert Request.FromString(piece.serialized()) == expected
    assert piece.message() == expected
    assert piece.message().HasField("crc32") == head.HasField("crc32")


def test_a_stub_of_the_callers_own_uploads_the_same_bytes(client: DataOps, world: World, tmp_path: Path):
    path = tmp_path / "users.csv"
    path.write_bytes(os.urandom((3 << 20) + 17))
    channel: grpc.Channel = client._channel

    upload = upload_file(uploads_pb2_grpc.UploadServiceStub(channel), path)

    assert upload.sha256 == hashlib.sha256(path.read_bytes()).digest()
    (held,) = world.uploads.values()
    assert bytes(held.data) == path.read_bytes()
