"""Where the server listens, and how it tells."""

from __future__ import annotations

import json
import os
import socket
from contextlib import closing
from pathlib import Path

import grpc

from engine.errors import InvalidRequest, Unavailable


def bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials) -> str:
    """Bind `host:port`, any free port for port 0; the address bound.

    Raises:
        InvalidRequest: CONFIG_INVALID when `listen` is no `host:port`.
        Unavailable: LISTEN_FAILED with the system's own reason.
    """
    host, colon, port = listen.rpartition(":")
    if not (colon and host and port.isdecimal()):
        raise InvalidRequest(f"listen: expected host:port, found {listen[:100]!r}", reason="CONFIG_INVALID")
    try:
        bound = server.add_secure_port(listen, credentials)
    except RuntimeError:
        raise Unavailable(f"listen: cannot bind {listen}: {_why(host, int(port))}", reason="LISTEN_FAILED") from None
    return f"{host}:{bound}"


def announce(path: Path, address: str, health: str = "") -> None:
    """Write `{"address", "pid", "health"}`, whole or not at all: whoever waits for the file may read it at once."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps({"address": address, "pid": os.getpid(), "health": health}))
    beside.replace(path)


def _why(host: str, port: int) -> str:
    """grpc says only that it failed; the system says why when asked once more."""
    host = host.strip("[]")
    try:
        with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
            probe.bind((host, port))
    except OSError as error:
        return error.strerror or "unknown"
    return "it was in use a moment ago"
