"""A small server of the contract that breaks where a test tells it to. It keeps everything in memory."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from dataops.v1 import (
    backups_pb2_grpc,
    catalog_pb2_grpc,
    exports_pb2_grpc,
    imports_pb2_grpc,
    jobs_pb2_grpc,
    overview_pb2_grpc,
    restores_pb2_grpc,
    schedules_pb2_grpc,
    uploads_pb2_grpc,
    webhooks_pb2_grpc,
)

from tests.clients.fake_backups import Backups, Restores
from tests.clients.fake_overview import Overviews
from tests.clients.fake_schedules import Schedules
from tests.clients.fake_services import Catalog, Exports, Imports, Jobs, Uploads
from tests.clients.fake_webhooks import Webhooks
from tests.clients.fake_world import PART, TOKEN, World, refuse

__all__ = ["PART", "TOKEN", "FakeServer", "World", "make_certificate", "serve"]


class RequireToken(grpc.ServerInterceptor):
    """UNAUTHENTICATED for every call without the token."""

    def intercept_service(self, continuation, handler_call_details):
        given = dict(handler_call_details.invocation_metadata).get("authorization")
        if given == f"Bearer {TOKEN}":
            return continuation(handler_call_details)

        def deny(_request, context):
            refuse(context, grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING", "no token found")

        return grpc.unary_unary_rpc_method_handler(deny)


@dataclass(frozen=True)
class FakeServer:
    """A running server: where it is, who vouches for it, and what it holds."""

    address: str
    ca: bytes
    world: World


def serve(world: World, key: bytes, certificate: bytes) -> Iterator[FakeServer]:
    """Run a server over TLS on a free port of the loopback until the generator is closed."""
    pool = ThreadPoolExecutor(max_workers=8)
    server = grpc.server(pool, interceptors=[RequireToken()])
    # what is not written here answers UNIMPLEMENTED, though the stubs call it abstract
    uploads_pb2_grpc.add_UploadServiceServicer_to_server(Uploads(world), server)
    exports_pb2_grpc.add_ExportServiceServicer_to_server(Exports(world), server)
    jobs_pb2_grpc.add_JobServiceServicer_to_server(Jobs(world), server)  # type: ignore[abstract]
    imports_pb2_grpc.add_ImportServiceServicer_to_server(Imports(world), server)  # type: ignore[abstract]
    catalog_pb2_grpc.add_CatalogServiceServicer_to_server(Catalog(world), server)
    backups_pb2_grpc.add_BackupServiceServicer_to_server(Backups(world), server)
    restores_pb2_grpc.add_RestoreServiceServicer_to_server(Restores(world), server)
    schedules_pb2_grpc.add_ScheduleServiceServicer_to_server(Schedules(world), server)
    overview_pb2_grpc.add_OverviewServiceServicer_to_server(Overviews(world), server)
    webhooks_pb2_grpc.add_WebhookServiceServicer_to_server(Webhooks(world), server)
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield FakeServer(f"127.0.0.1:{port}", certificate, world)
    finally:
        server.stop(0.2).wait()
        pool.shutdown(wait=False)


def make_certificate() -> tuple[bytes, bytes]:
    """A key and a certificate that signs itself, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dataops test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(pem)
