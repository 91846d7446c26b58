"""The server, assembled on one page: what surrounds every call, which services there are, how it starts and stops."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import structlog

from server import tls  # isort: skip  before grpc: it sets what grpc reads at its first credentials

import grpc
from dataops.v1 import (
    access_pb2_grpc,
    audit_pb2_grpc,
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
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from engine.access import bootstrap
from engine.backups.service import Backups
from engine.errors import InvalidRequest
from engine.exports.service import Exports
from engine.health.endpoint import HealthEndpoint
from engine.imports.service import Imports
from engine.jobs.calls import Jobs
from engine.overview.service import Overview
from engine.resources import Resources
from engine.restores.service import Restores
from engine.retention.service import Retention
from engine.schedules.service import Schedules
from engine.uploads import Uploads
from engine.webhooks.service import Webhooks
from server import feed_bell
from server.contract import SERVICES
from server.download import Downloads
from server.drain import Drain
from server.feed import Feed
from server.feed_store import FeedStore
from server.interceptors.access_log import AccessLog
from server.interceptors.admission import Admission
from server.interceptors.authentication import Authentication
from server.interceptors.base import MAX_MESSAGE_BYTES, Chain, Interceptor
from server.interceptors.denials import Denials
from server.interceptors.errors import Errors
from server.interceptors.metering import Metering
from server.interceptors.not_built import Unbuilt
from server.interceptors.permission import Permissions
from server.interceptors.read_audit import ReadAudit
from server.interceptors.validation import Validation
from server.listen import bind
from server.living import Living
from server.offload import Offload
from server.principals import Principals
from server.services.access import AccessService
from server.services.audit import AuditService
from server.services.backups import BackupService
from server.services.catalog import CatalogService
from server.services.exports import ExportService
from server.services.health import HealthService
from server.services.imports import ImportService
from server.services.jobs import JobService, Watched, WatchRendering
from server.services.overview import OverviewService
from server.services.restores import RestoreService
from server.services.schedules import ScheduleService
from server.services.uploads import UploadService
from server.services.webhooks import WebhookService
from server.standing import Standings
from server.tokens import KeySet, TokenVerifier
from server.upload_stream import UploadStreams

log = structlog.get_logger(__name__)

OPTIONS = [
    # Twice what we take: a message up to there is refused by us, with a reason; a larger one by grpc, without.
    ("grpc.max_receive_message_length", 2 * MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # What a stream may send ahead of us. Left to its own measuring, grpc took 150 MB more for one upload of 256 MiB.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 2 << 20),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A watch may be silent for long; its client may ask every 10 s whether we live.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    # With it two servers share a port without knowing, and each gets some of the calls.
    ("grpc.so_reuseport", 0),
]


@dataclass
class Server:
    """A server that has been assembled. `start`, then `stop` once."""

    resources: Resources
    grpc_server: grpc.aio.Server
    offload: Offload
    drain: Drain
    feed: Feed[Watched]
    address: str
    health: HealthEndpoint | None = None
    _bell: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to take calls."""
        living = Living(asyncio.get_running_loop())
        self.health = await asyncio.to_thread(HealthEndpoint.of, self.resources, living.wrong, lambda: self.drain.begun)
        if self.resources.settings.redis_url:
            self._bell = asyncio.create_task(feed_bell.listen(self.resources.settings.redis_url, self.feed))
        await self.grpc_server.start()

    async def stop(self) -> None:
        """Drain: health says NOT_SERVING, new calls are refused, streams end at a message edge, the rest gets
        `drain_seconds`. What is still under way then is cancelled."""
        self.drain.begin()
        await self.grpc_server.stop(self.resources.settings.drain_seconds)
        if self._bell is not None:
            self._bell.cancel()
            with suppress(asyncio.CancelledError):
                await self._bell
        await self.feed.close()
        await asyncio.to_thread(self.offload.close)
        if self.health is not None:
            await asyncio.to_thread(self.health.close)


def interceptors(resources: Resources, offload: Offload, drain: Drain) -> list[Interceptor]:
    """What surrounds every call, outermost first. The order is part of what each of them promises."""
    settings, db, clock = resources.settings, resources.db, resources.clock
    if settings.jwks_file is None:
        raise InvalidRequest("jwks_file: expected the key set that tokens are verified with", reason="CONFIG_INVALID")
    verifier = TokenVerifier(KeySet(settings.jwks_file), settings.jwt_issuer, settings.jwt_audience)
    return [
        Errors(),  # outermost: whatever fails further in, parsing included, becomes a status with a reason
        AccessLog(),  # inside Errors, to see the domain's error; outside all else, so that every refusal has a line
        Metering(resources.meters),  # beside AccessLog, for the same reasons
        Admission(drain, settings.max_calls),  # before authentication, which takes a thread and a connection
        Denials(db, offload, clock),  # around all that may refuse a caller: tokens, permissions, the services' own
        Authentication(verifier, db, offload, clock, anonymous_reflection=settings.anonymous_reflection),
        Permissions(),  # before the request is parsed: who may not call costs nothing more, and learns nothing more
        Unbuilt(),  # after Permissions: what a caller may not do is no news to it either
        ReadAudit(db, offload, clock),  # innermost around: its row is written when the answer is made, not sent
        Validation(),  # per message, so it runs after all of the above: the service sees checked requests only
    ]


async def assemble(resources: Resources) -> Server:
    """The server, bound to its address and not yet taking calls.

    Raises:
        DataOpsError: CONFIG_INVALID, TLS_VERSION, LISTEN_FAILED.
    """
    settings = resources.settings
    certificates = tls.Certificates(settings.tls_cert_file, settings.tls_key_file)
    await tls.require_tls13(certificates)
    offload, drain = Offload(settings.rpc_threads), Drain()
    await offload.call(_bootstrap, resources)
    chain = Chain(interceptors(resources, offload, drain))
    server = grpc.aio.server(interceptors=[chain], options=OPTIONS)
    jobs = Jobs(resources.db, resources.bell, resources.clock)
    store = FeedStore(settings.control_dsn)
    rendering = WatchRendering(jobs, offload, resources.clock)
    feed = Feed(store, rendering, drain, heartbeat_seconds=settings.watch_heartbeat_seconds)
    add_services(server, resources, offload, drain, jobs, feed)
    return Server(resources, server, offload, drain, feed, bind(server, settings.listen, certificates.credentials()))


def _bootstrap(resources: Resources) -> None:
    settings = resources.settings
    with resources.db.transaction() as session:
        made = bootstrap(session, settings.jwt_issuer, settings.bootstrap_admins.split(","), resources.clock())
    if made:
        log.info("super_admins_made", subjects=made)


def add_services(
    server: grpc.aio.Server, resources: Resources, offload: Offload, drain: Drain, jobs: Jobs, feed: Feed[Watched]
) -> None:
    """Every service of the contract, and the two that are everybody's.

    Some servicers lack rpcs that are not built (abstract, to mypy): `Unbuilt` answers before they are asked.
    """
    principals = Principals(resources.db, offload)
    uploads = Uploads(resources)
    meters = resources.meters
    streams = UploadStreams(uploads, offload, drain, meters.bytes_received.inc)
    downloads = Downloads(resources.db, resources.artifacts, resources.clock, offload, drain, meters.bytes_sent.inc)
    imports = ImportService(Imports(resources), uploads, downloads, principals, offload)  # type: ignore[abstract]
    exports = ExportService(Exports(resources), downloads, principals, offload, drain)
    backups = BackupService(Backups(resources), principals, offload)
    restores = RestoreService(Restores(resources), principals, offload, resources.clock)
    overview = OverviewService(Overview(resources), principals, offload)
    schedules = ScheduleService(Schedules(resources), Retention(resources), principals, offload)
    webhooks = WebhookService(Webhooks(resources), principals, offload)
    catalog_pb2_grpc.add_CatalogServiceServicer_to_server(CatalogService(resources, offload), server)
    uploads_pb2_grpc.add_UploadServiceServicer_to_server(UploadService(uploads, streams, principals, offload), server)
    imports_pb2_grpc.add_ImportServiceServicer_to_server(imports, server)
    exports_pb2_grpc.add_ExportServiceServicer_to_server(exports, server)
    backups_pb2_grpc.add_BackupServiceServicer_to_server(backups, server)
    restores_pb2_grpc.add_RestoreServiceServicer_to_server(restores, server)
    schedules_pb2_grpc.add_ScheduleServiceServicer_to_server(schedules, server)
    webhooks_pb2_grpc.add_WebhookServiceServicer_to_server(webhooks, server)
    every = resources.settings.watch_heartbeat_seconds
    standings = Standings(resources.db, offload, resources.clock, jobs.entities, every=every)
    jobs_pb2_grpc.add_JobServiceServicer_to_server(JobService(jobs, feed, offload, standings), server)
    audit_pb2_grpc.add_AuditServiceServicer_to_server(AuditService(resources, offload), server)  # type: ignore[abstract]
    access_pb2_grpc.add_AccessServiceServicer_to_server(AccessService(resources, offload), server)  # type: ignore[abstract]
    overview_pb2_grpc.add_OverviewServiceServicer_to_server(overview, server)
    health_pb2_grpc.add_HealthServicer_to_server(HealthService(drain), server)
    names = [service.full_name for service in SERVICES]
    reflection.enable_server_reflection([*names, "grpc.health.v1.Health", reflection.SERVICE_NAME], server)
