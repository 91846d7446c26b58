"""A server that goes away in the middle of an upload costs time, not bytes."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from dataops.v1 import uploads_pb2

from examples.stack.stack import Stack

MIB = 1 << 20
CONTENT = os.urandom(41 * MIB + 4321)


@pytest.mark.parametrize("end", [Stack.kill_server, lambda stack: stack.server.terminate()], ids=["kill -9", "SIGTERM"])
def test_a_server_that_dies_in_mid_upload_is_resumed_on_a_part_border(
    stack: Stack, tmp_path: Path, end: Callable[[Stack], object]
):
    file = tmp_path / "big.csv"
    file.write_bytes(CONTENT)
    half_way, gone = threading.Event(), threading.Event()

    def on_bytes(done: int, _size: int | None) -> None:
        if done >= len(CONTENT) // 2:
            half_way.set()
            gone.wait(60)  # it sends nothing more until the server is gone

    with stack.client() as client, ThreadPoolExecutor(1) as helper:
        uploading = helper.submit(client.upload, file, on_bytes=on_bytes)
        assert half_way.wait(60)
        end(stack)
        gone.set()
        assert _committed(stack) % (8 * MIB) == 0
        stack.start_server()  # on the main thread, which the server's life is tied to
        finished = uploading.result(timeout=120)

    assert finished.state == uploads_pb2.UPLOAD_STATE_FINISHED
    assert (finished.committed_size, finished.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).digest())


def _committed(stack: Stack) -> int:
    with psycopg.connect(stack.control_dsn) as connection:
        row = connection.execute(
            "SELECT committed_size FROM dataops.uploads ORDER BY created_at DESC LIMIT 1"
        ).fetchone()
    assert row is not None
    return int(row[0])
