"""A whole server in this process, over TLS, on a real control database; what its tests ask it with."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from engine.config import Settings
from engine.resources import Resources, open_resources
from examples.stack.certificates import Certificates, make_certificates
from examples.stack.tokens import AUDIENCE, ISSUER, TokenIssuer
from server.app import Server, assemble

CHANNEL_OPTIONS = [("grpc.max_send_message_length", -1)]


class Edge:
    """The server and one channel to it."""

    def __init__(self, server: Server, tokens: TokenIssuer, certificates: Certificates, channel: Any) -> None:
        self.server, self.tokens, self.certificates, self.channel = server, tokens, certificates, channel
        self.resources: Resources = server.resources

    def bearer(self, subject: str = "sam", **claims: Any) -> tuple[tuple[str, str], ...]:
        """Metadata of a caller; sam is super_admin, anybody else holds what a test grants."""
        return (("authorization", f"Bearer {self.tokens.token(subject, **claims)}"),)

    async def raw(self, method: str, data: bytes = b"", metadata: Any = None) -> bytes:
        """One unary call of bytes, as sam when no metadata is given."""
        sent = self.bearer() if metadata is None else metadata
        answer: bytes = await self.channel.unary_unary(method)(data, metadata=sent, timeout=30)
        return answer

    async def error(self, method: str, data: bytes = b"", metadata: Any = None) -> Refusal:
        """The refusal of a call that must be refused."""
        try:
            await self.raw(method, data, metadata)
        except grpc.aio.AioRpcError as error:
            return Refusal(error)
        raise AssertionError(f"{method} was answered, expected a refusal")


class Refusal:
    """An error's parts."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code: grpc.StatusCode = error.code()
        self.message = error.details() or ""
        trailers: Iterable[tuple[str, Any]] = error.trailing_metadata() or ()
        self.details = next((value for key, value in trailers if key == "grpc-status-details-bin"), b"")
        self.status = status_pb2.Status.FromString(self.details)
        self.reason = self.part(error_details_pb2.ErrorInfo).reason
        self.metadata = dict(self.part(error_details_pb2.ErrorInfo).metadata)
        self.domain = self.part(error_details_pb2.ErrorInfo).domain

    def part(self, kind: Any) -> Any:
        """The detail of that kind; an empty one when there is none."""
        found = kind()
        for detail in self.status.details:
            if detail.Is(kind.DESCRIPTOR):
                detail.Unpack(found)
        return found


def edge_settings(
    folder: Path, control_dsn: str, platform_dsn: str, **more: Any
) -> tuple[Settings, TokenIssuer, Certificates]:
    """Settings of a server for one test, with its token issuer and certificates."""
    certificates, tokens = make_certificates(folder), TokenIssuer(folder)
    values: dict[str, Any] = {
        "control_dsn": control_dsn,
        "platform_dsn": platform_dsn,
        "artifacts": "memory:",
        "keys": "k1 " + base64.b64encode(bytes(range(32))).decode(),
        "listen": "127.0.0.1:0",
        "tls_cert_file": certificates.cert_file,
        "tls_key_file": certificates.key_file,
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
        "jwks_file": tokens.jwks_file,
        "bootstrap_admins": "sam",
        "drain_seconds": 5.0,
        "rpc_threads": 4,
    }
    return Settings(**(values | more)), tokens, certificates


@asynccontextmanager
async def running_edge(folder: Path, control_dsn: str, platform_dsn: str, **more: Any) -> AsyncIterator[Edge]:
    """A server that takes calls, stopped at the end."""
    settings, tokens, certificates = edge_settings(folder, control_dsn, platform_dsn, **more)
    resources = open_resources(settings, name="test edge", pool_size=settings.rpc_threads)
    try:
        server = await assemble(resources)
        await server.start()
        trusted = grpc.ssl_channel_credentials(certificates.ca_file.read_bytes())
        async with grpc.aio.secure_channel(server.address, trusted, options=CHANNEL_OPTIONS) as channel:
            yield Edge(server, tokens, certificates, channel)
        await server.stop()
    finally:
        resources.close()
