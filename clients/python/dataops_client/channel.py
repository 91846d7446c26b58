"""Opens channels: TLS, the token with every call, keepalive, and retries where a repeat cannot do harm."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
from dataops.v1 import (
    access_pb2,
    audit_pb2,
    catalog_pb2,
    exports_pb2,
    imports_pb2,
    jobs_pb2,
    uploads_pb2,
)
from google.protobuf.descriptor import ServiceDescriptor

from dataops_client.version import VERSION

# A page of a list is at most 1 MiB and a transfer message carries at most 1 MiB of data beside its own fields;
# grpc's default of 4 MiB is kept as the limit so that a wrong server cannot make us allocate more.
_MAX_MESSAGE = 4 * 1024 * 1024

_KEEPALIVE: list[tuple[str, Any]] = [
    # A dead path is found within 80 s even while a watcher waits; the server accepts a ping every 10 s.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that restarts is back within seconds; grpc's default lets the pause grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]

_SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service
    for module in (access_pb2, audit_pb2, catalog_pb2, exports_pb2, imports_pb2, jobs_pb2, uploads_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)

Token = str | Callable[[], str]
"""A token, or a function that gives the present one: it is asked at every call."""


def open_channel(
    address: str,
    *,
    ca: bytes | None = None,
    token: Token | None = None,
    server_name: str | None = None,
    client_name: str = "",
) -> grpc.Channel:
    """A channel to `address` (host:port). It connects at the first call and by itself again.

    `ca` is the PEM of the authorities to trust (None: the system's); `server_name` is the name to expect in the
    certificate where it differs from the address. Close it when done.
    """
    return grpc.secure_channel(address, _credentials(ca, token), _options(server_name, client_name))


def open_aio_channel(
    address: str,
    *,
    ca: bytes | None = None,
    token: Token | None = None,
    server_name: str | None = None,
    client_name: str = "",
) -> grpc.aio.Channel:
    """The same for asyncio."""
    return grpc.aio.secure_channel(address, _credentials(ca, token), _options(server_name, client_name))


class TokenFile:
    """The token in a file, read again when the file has changed, so that a renewed one is used without a restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._token = ""

    def __call__(self) -> str:
        with self._lock:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._token, self._stamp = self._path.read_text().strip(), stamp
            return self._token


class _Bearer(grpc.AuthMetadataPlugin):
    """Puts the token on every call."""

    def __init__(self, token: Token) -> None:
        self._token = token

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        try:
            token = self._token if isinstance(self._token, str) else self._token()
        except OSError as error:
            callback((), error)
        else:
            callback((("authorization", f"Bearer {token}"),), None)


def _credentials(ca: bytes | None, token: Token | None) -> grpc.ChannelCredentials:
    tls = grpc.ssl_channel_credentials(root_certificates=ca)
    if token is None:
        return tls
    return grpc.composite_channel_credentials(tls, grpc.metadata_call_credentials(_Bearer(token), "dataops"))


def _options(server_name: str | None, client_name: str) -> Sequence[tuple[str, Any]]:
    options = [
        *_KEEPALIVE,
        ("grpc.primary_user_agent", f"{client_name or 'dataops-client'}/{VERSION}"),
        ("grpc.max_receive_message_length", _MAX_MESSAGE),
        ("grpc.service_config", _service_config()),
    ]
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    return options


def _service_config() -> str:
    """Retry UNAVAILABLE of every unary rpc: each is a read, idempotent by request_id, or idempotent by state.

    Streams resume by offset or sequence instead (upload, download, watch).
    """
    unary = [
        {"service": service.full_name, "method": method.name}
        for service in _SERVICES
        for method in service.methods
        if not method.client_streaming and not method.server_streaming
    ]
    policy = {
        "maxAttempts": 5,
        "initialBackoff": "0.2s",
        "maxBackoff": "3s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return json.dumps({"methodConfig": [{"name": unary, "retryPolicy": policy}]})
