"""A bare grpc.aio echo over TLS: what transfers are compared with. `python -m tests.benchmarks.echo CERT KEY`.

`/echo/In` takes a stream of bytes and answers how many; `/echo/Out` sends as many bytes as its request says;
`/echo/HashedIn` and `/echo/HashedOut` also compute their SHA-256. It prints its port and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

MESSAGE = os.urandom(1 << 20)


async def _in(messages: AsyncIterator[bytes], context: Any) -> bytes:
    size = 0
    async for message in messages:
        size += len(message)
    return str(size).encode()


async def _hashed_in(messages: AsyncIterator[bytes], context: Any) -> bytes:
    digest = hashlib.sha256()
    async for message in messages:
        await asyncio.to_thread(digest.update, message)
    return digest.digest()


async def _hashed_out(request: bytes, context: Any) -> AsyncIterator[bytes]:
    digest = hashlib.sha256()
    for _ in range(int(request) // len(MESSAGE)):
        await asyncio.to_thread(digest.update, MESSAGE)
        yield MESSAGE


async def _out(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for _ in range(int(request) // len(MESSAGE)):
        yield MESSAGE


async def _serve(cert_file: Path, key_file: Path) -> None:
    handlers: dict[str, Any] = {
        "In": grpc.stream_unary_rpc_method_handler(_in),
        "HashedIn": grpc.stream_unary_rpc_method_handler(_hashed_in),
        "Out": grpc.unary_stream_rpc_method_handler(_out),
        "HashedOut": grpc.unary_stream_rpc_method_handler(_hashed_out),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", handlers),))
    credentials = grpc.ssl_server_credentials([(key_file.read_bytes(), cert_file.read_bytes())])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), Path(sys.argv[2])))
