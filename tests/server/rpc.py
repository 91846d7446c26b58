"""A real grpc.aio server on a free port with our interceptors; only TLS and tokens are left out.

Who calls is what metadata `subject` says; `admin` is a super admin, anybody else has the roles that a test grants.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from engine.access import CallContext, Caller, bootstrap, resolve_caller
from engine.access.service import ensure_principal
from engine.artifacts import ArtifactStore
from engine.backups.repository import Repository
from engine.catalog import CatalogSource
from engine.clock import utc_now
from engine.config import Settings
from engine.crypto.keyring import KeyRing
from engine.db.database import Database
from engine.db.models import GrantRow, RoleRow
from engine.db.platform import Platform
from engine.ids import new_id
from engine.jobs.doorbell import Doorbell
from engine.resources import Resources
from engine.storage import Storage, storage_from
from engine.uploads import Uploads
from server.caller import Call
from server.drain import Drain
from server.interceptors.base import MAX_MESSAGE_BYTES, Chain, Interceptor
from server.interceptors.errors import Errors
from server.interceptors.permission import Permissions
from server.interceptors.validation import Validation
from server.offload import Offload

ISSUER = "test"


class GivenCaller(Interceptor):
    """Believes the metadata."""

    def __init__(self, db: Database, offload: Offload) -> None:
        self._db, self._offload = db, offload

    @asynccontextmanager
    async def around(self, call: Call, context: Any) -> AsyncIterator[None]:
        subject = dict(context.invocation_metadata() or ()).get("subject", "admin")
        call.caller = await self._offload.call(self._resolve, str(subject), call)
        yield

    def _resolve(self, subject: str, call: Call) -> Any:
        with self._db.transaction() as session:
            return resolve_caller(session, ISSUER, subject, "USER", "", call.context, utc_now())


class Edge:
    """The pieces a service needs, and a server to put services on."""

    def __init__(
        self,
        control_dsn: str,
        artifacts: Path,
        *,
        platform_dsn: str = "",
        redis_url: str = "",
        storage: Storage | None = None,
        catalog_file: Path | None = None,
    ) -> None:
        settings = Settings(
            control_dsn=control_dsn,
            platform_dsn=platform_dsn or control_dsn,
            artifacts=str(artifacts),
            catalog_file=catalog_file,
        )
        self.db = Database(control_dsn, pool_size=8)
        self.offload = Offload(8)
        self.drain = Drain()
        platform = Platform(settings.platform_dsn)
        keys = KeyRing({"k1": bytes(range(32))}, "k1")
        storage = storage or storage_from(str(artifacts))
        self.store = ArtifactStore(self.db, storage, keys)
        self.resources = Resources(
            settings=settings,
            db=self.db,
            platform=platform,
            keys=keys,
            artifacts=self.store,
            repository=Repository(storage, keys),
            catalogs=CatalogSource(platform, settings.platform_schemas, settings.catalog_file),
            bell=Doorbell(redis_url),
            clock=utc_now,
        )
        self.uploads = Uploads(self.resources)
        with self.db.transaction() as session:
            bootstrap(session, ISSUER, ["admin"], utc_now())

    def caller(self, subject: str = "admin") -> Caller:
        with self.db.transaction() as session:
            return resolve_caller(session, ISSUER, subject, "USER", "", CallContext(), utc_now())

    def grant(self, subject: str, *permissions: str) -> None:
        """Give `subject` a role of its own with these permissions."""
        now = utc_now()
        with self.db.transaction() as session:
            principal = ensure_principal(session, ISSUER, subject, "USER", now)
            session.add(RoleRow(name=f"of {subject}", permissions=list(permissions), updated_at=now))
            session.flush()
            session.add(GrantRow(id=new_id(), principal_id=principal.id, role=f"of {subject}", granted_at=now))

    def regrant(self, subject: str, *permissions: str) -> None:
        """Change what the role that `grant` made permits."""
        with self.db.transaction() as session:
            session.get_one(RoleRow, f"of {subject}").permissions = list(permissions)

    @asynccontextmanager
    async def serving(self, *added: tuple[Any, Any]) -> AsyncIterator[str]:
        """Serve `(add_…_to_server, servicer)` pairs; gives the address."""
        chain = Chain([Errors(), GivenCaller(self.db, self.offload), Permissions(), Validation()])
        options = [("grpc.max_receive_message_length", 2 * MAX_MESSAGE_BYTES)]
        server = grpc.aio.server(interceptors=[chain], options=options)
        for add, servicer in added:
            add(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(None)

    def close(self) -> None:
        self.offload.close()
        self.resources.close()


def error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """The ErrorInfo of a failed call."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    return info


def retry_seconds(error: grpc.aio.AioRpcError) -> float | None:
    """RetryInfo's delay; None when there is none."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    return next((retry.retry_delay.ToTimedelta().total_seconds() for d in status.details if d.Unpack(retry)), None)
