"""`python -m server`: one server process. Exit code 0 after a drain, 1 when it refuses to start."""

from __future__ import annotations

import os
import sys

# Before anything imports grpc: it reads these when it makes its first credentials. See server/tls.py for the first;
# the second keeps every refused handshake of every port scanner out of the log.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-PSK-AES256-CBC-SHA"
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import asyncio
import signal

import structlog

from engine import memory, telemetry
from engine.config import Settings, load_settings
from engine.errors import DataOpsError
from engine.resources import open_resources
from server.app import assemble
from server.listen import announce

log = structlog.get_logger("server")


def main() -> int:
    """Entry point: serve until SIGTERM or SIGINT."""
    try:
        settings = load_settings()
        telemetry.configure(settings.log_format)
        memory.reuse_blocks()
        asyncio.run(serve(settings))
    except DataOpsError as error:
        sys.stderr.write(f"server: refuses to start: {error}\n")
        return 1
    return 0


async def serve(settings: Settings) -> None:
    """Serve until told to stop, then drain.

    Raises:
        DataOpsError: the process must not start: SCHEMA_REVISION, KEYS_MISSING, CONFIG_INVALID, TLS_VERSION, ….
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    resources = await asyncio.to_thread(
        open_resources, settings, name="dataops: server", pool_size=settings.rpc_threads
    )
    try:
        server = await assemble(resources)
        await server.start()
        memory.collect_seldom()
        health = "" if server.health is None else server.health.address
        if settings.ready_file is not None:
            announce(settings.ready_file, server.address, health)
        log.info("server_ready", address=server.address, health=health, pid=os.getpid())
        await stop.wait()
        log.info("server_draining", seconds=settings.drain_seconds)
        await server.stop()
    finally:
        await asyncio.to_thread(resources.close)
    log.info("server_stopped")


if __name__ == "__main__":
    sys.exit(main())
