"""A small server of the contract that breaks where a test tells it to. It keeps everything in memory."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import threading
import uuid
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NoReturn

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from dataops.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    common_pb2,
    exports_pb2,
    exports_pb2_grpc,
    imports_pb2,
    imports_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    uploads_pb2,
    uploads_pb2_grpc,
)
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

TOKEN = "secret-token"
PART = 2 * 1024 * 1024
"""The server's part border; 8 MiB at the real one."""


def refuse(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    reason: str,
    message: str,
    *,
    metadata: dict[str, str] | None = None,
    violations: dict[str, str] | None = None,
    retry_after: float | None = None,
) -> NoReturn:
    """End the call as the real server does: a status with details."""
    details = [error_details_pb2.ErrorInfo(reason=reason, domain="dataops", metadata=metadata or {})]
    if violations:
        bad = error_details_pb2.BadRequest()
        for name, text in violations.items():
            bad.field_violations.add(field=name, description=text)
        details.append(bad)
    if retry_after is not None:
        delay = duration_pb2.Duration(nanos=int(retry_after * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code.value[0], message=message, details=packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)
    raise AssertionError


@dataclass
class Held:
    """One upload and what came of it."""

    upload: uploads_pb2.Upload
    data: bytearray = field(default_factory=bytearray)


@dataclass
class World:
    """What the server holds, where it breaks, and what it saw."""

    uploads: dict[str, Held] = field(default_factory=dict)
    break_upload_at: list[int] = field(default_factory=list)
    lose_finish_answer: bool = False
    damage_upload: bool = False
    upload_streams: list[int] = field(default_factory=list)

    export: bytes = b""
    break_export_at: list[int] = field(default_factory=list)
    end_export_without_footer: bool = False
    export_digest: bytes | None = None
    next_export: bytes | None = None
    tells_restart: bool = False
    export_offsets: list[int] = field(default_factory=list)

    events: list[jobs_pb2.JobEvent] = field(default_factory=list)
    job: jobs_pb2.Job = field(default_factory=jobs_pb2.Job)
    break_watch_after: list[int] = field(default_factory=list)
    silent_watches: int = 0
    watches: list[int] = field(default_factory=list)

    imported: imports_pb2.Import = field(default_factory=imports_pb2.Import)
    row_errors: list[imports_pb2.ImportRowError] = field(default_factory=list)
    applied_with: list[imports_pb2.ApplyImportRequest] = field(default_factory=list)
    user_agents: set[str] = field(default_factory=set)
    unavailable_calls: int = 0


class Uploads(uploads_pb2_grpc.UploadServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def StartUpload(self, request, context):
        upload = uploads_pb2.Upload(
            upload_id=str(uuid.uuid4()), file_name=request.file_name, state=uploads_pb2.UPLOAD_STATE_OPEN
        )
        if request.HasField("size_bytes"):
            upload.declared_size = request.size_bytes
        self.world.uploads[upload.upload_id] = Held(upload)
        return uploads_pb2.StartUploadResponse(upload=upload)

    def WriteUpload(self, request_iterator, context):
        held = None
        for message in request_iterator:
            if held is None:
                held = self.world.uploads[message.upload_id]
                self.world.upload_streams.append(message.offset)
                offset = message.offset
                if offset > len(held.data):
                    committed = str(len(held.data))
                    refuse(
                        context,
                        grpc.StatusCode.OUT_OF_RANGE,
                        "OFFSET_MISMATCH",
                        f"offset {offset} found, {committed} expected",
                        metadata={"committed_size": committed},
                    )
            assert len(message.data) <= 1024 * 1024
            assert message.crc32 == zlib.crc32(message.data)
            held.data[message.offset :] = message.data
            if self.world.break_upload_at and len(held.data) > self.world.break_upload_at[0]:
                self.world.break_upload_at.pop(0)
                del held.data[len(held.data) // PART * PART :]
                held.upload.committed_size = len(held.data)
                refuse(context, grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", "going away", retry_after=0.01)
            if message.finish:
                self._finish(held)
        assert held is not None
        held.upload.committed_size = len(held.data)
        if self.world.lose_finish_answer and held.upload.state == uploads_pb2.UPLOAD_STATE_FINISHED:
            refuse(context, grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", "going away", retry_after=0.01)
        return uploads_pb2.WriteUploadResponse(
            committed_size=len(held.data), sha256=held.upload.sha256, state=held.upload.state
        )

    def _finish(self, held: Held) -> None:
        if self.world.damage_upload:
            held.data[0] ^= 1
        held.upload.state = uploads_pb2.UPLOAD_STATE_FINISHED
        held.upload.sha256 = hashlib.sha256(held.data).digest()

    def GetUpload(self, request, context):
        if request.upload_id not in self.world.uploads:
            refuse(context, grpc.StatusCode.NOT_FOUND, "UPLOAD_UNKNOWN", "no such upload")
        return uploads_pb2.GetUploadResponse(upload=self.world.uploads[request.upload_id].upload)

    def AbortUpload(self, request, context):
        held = self.world.uploads[request.upload_id]
        held.upload.state = uploads_pb2.UPLOAD_STATE_ABORTED
        return uploads_pb2.AbortUploadResponse(upload=held.upload)


class Exports(exports_pb2_grpc.ExportServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def CreateExport(self, request, context):
        return exports_pb2.CreateExportResponse(export=self._export())

    def GetExport(self, request, context):
        return exports_pb2.GetExportResponse(export=self._export())

    def _export(self) -> exports_pb2.Export:
        return exports_pb2.Export(
            export_id=self.world.job.resource.removeprefix("exports/"),
            job_id=self.world.job.job_id,
            entity_types=["users"],
            record_count=3,
            file_size_bytes=len(self.world.export),
            status=exports_pb2.EXPORT_STATUS_COMPLETED,
        )

    def DownloadExport(self, request, context):
        self.world.export_offsets.append(request.offset)
        offset, data = request.offset, self.world.export
        if offset > len(data):
            refuse(context, grpc.StatusCode.OUT_OF_RANGE, "OFFSET_MISMATCH", "beyond the end")
        while offset < len(data):
            if self.world.break_export_at and offset >= self.world.break_export_at[0]:
                self.world.break_export_at.pop(0)
                self.world.export = self.world.next_export or self.world.export
                if self.world.tells_restart:
                    refuse(context, grpc.StatusCode.ABORTED, "EXPORT_RESTARTED", "begun anew")
                refuse(context, grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", "going away", retry_after=0.01)
            piece = data[offset : offset + 100_000]
            yield exports_pb2.DownloadExportResponse(offset=offset, data=piece)
            offset += len(piece)
        if self.world.end_export_without_footer:
            self.world.end_export_without_footer = False
            return
        digest = self.world.export_digest or hashlib.sha256(data).digest()
        yield exports_pb2.DownloadExportResponse(
            offset=offset, footer=common_pb2.DownloadFooter(size_bytes=len(data), sha256=digest)
        )


class Jobs(jobs_pb2_grpc.JobServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def WatchJob(self, request, context):
        self.world.watches.append(request.after_sequence)
        if request.job_id != self.world.job.job_id:
            refuse(context, grpc.StatusCode.NOT_FOUND, "JOB_UNKNOWN", "no such job")
        yield self._heartbeat(request.after_sequence)
        if self.world.silent_watches:
            self.world.silent_watches -= 1
            stopped = threading.Event()
            context.add_callback(stopped.set)
            stopped.wait(30)
            return
        for event in self.world.events:
            if event.sequence <= request.after_sequence:
                continue
            yield jobs_pb2.WatchJobResponse(event=event)
            if self.world.break_watch_after and event.sequence >= self.world.break_watch_after[0]:
                self.world.break_watch_after.pop(0)
                refuse(context, grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", "going away", retry_after=0.01)

    def _heartbeat(self, sequence: int) -> jobs_pb2.WatchJobResponse:
        beat = jobs_pb2.JobHeartbeat(last_sequence=sequence)
        return jobs_pb2.WatchJobResponse(event=jobs_pb2.JobEvent(heartbeat=beat))

    def GetJob(self, request, context):
        return jobs_pb2.GetJobResponse(job=self.world.job)

    def ListJobs(self, request, context):
        if self.world.unavailable_calls:
            self.world.unavailable_calls -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        return jobs_pb2.ListJobsResponse(jobs=[self.world.job])

    def CancelJob(self, request, context):
        self.world.job.state = jobs_pb2.JOB_STATE_CANCELLED
        return jobs_pb2.CancelJobResponse(job=self.world.job)


class Imports(imports_pb2_grpc.ImportServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def CreateImport(self, request, context):
        if not request.upload_id:
            refuse(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                "INVALID_REQUEST",
                "1 field of the request is wrong",
                violations={"upload_id": "is required"},
            )
        return imports_pb2.CreateImportResponse(data_import=self.world.imported)

    def GetImport(self, request, context):
        return imports_pb2.GetImportResponse(data_import=self.world.imported)

    def ApplyImport(self, request, context):
        self.world.applied_with.append(request)
        if request.plan_digest != self.world.imported.plan.plan_digest:
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "PLAN_CHANGED", "another plan stands")
        self.world.imported.status = imports_pb2.IMPORT_STATUS_COMPLETED
        self.world.imported.apply_job_id = self.world.job.job_id
        return imports_pb2.ApplyImportResponse(data_import=self.world.imported)

    def CancelImport(self, request, context):
        self.world.imported.status = imports_pb2.IMPORT_STATUS_CANCELLED
        return imports_pb2.CancelImportResponse(data_import=self.world.imported)

    def ListImportErrors(self, request, context):
        at = int(request.page_token or 0)
        page = self.world.row_errors[at : at + request.page_size]
        more = at + len(page) < len(self.world.row_errors)
        return imports_pb2.ListImportErrorsResponse(
            errors=page,
            next_page_token=str(at + len(page)) if more else "",
            total_errors=len(self.world.row_errors),
        )


class Catalog(catalog_pb2_grpc.CatalogServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def ListEntities(self, request, context):
        self.world.user_agents |= {str(v) for k, v in context.invocation_metadata() if k == "user-agent"}
        names = ["users", "tokens"] if not request.page_token else ["points_rules"]
        return catalog_pb2.ListEntitiesResponse(
            entities=[catalog_pb2.Entity(name=n, estimated_rows=5, key_fields=["id"]) for n in names],
            next_page_token="" if request.page_token else "2",
        )

    def GetEntity(self, request, context):
        refuse(context, grpc.StatusCode.NOT_FOUND, "ENTITY_UNKNOWN", f"no entity {request.entity}")


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
    uploads_pb2_grpc.add_UploadServiceServicer_to_server(Uploads(world), server)  # type: ignore[abstract]
    exports_pb2_grpc.add_ExportServiceServicer_to_server(Exports(world), server)  # type: ignore[abstract]
    jobs_pb2_grpc.add_JobServiceServicer_to_server(Jobs(world), server)  # type: ignore[abstract]
    imports_pb2_grpc.add_ImportServiceServicer_to_server(Imports(world), server)  # type: ignore[abstract]
    catalog_pb2_grpc.add_CatalogServiceServicer_to_server(Catalog(world), server)
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
