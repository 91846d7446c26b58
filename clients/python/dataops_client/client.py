"""The whole of DataOps for a program: one object over one channel.

    with DataOps.connect("dataops.example:8443", ca_file=Path("ca.pem"), token=TokenFile(path)) as dataops:
        planned = dataops.plan_import(Path("users.csv"), "users")
        done = dataops.apply_import(planned)
        dataops.export_to(Path("copy.csv"), ["users"])
        dataops.create_backup(["users"])

Catalog and connection stand here; what is about jobs, imports, exports, backups, restores, schedules, retention and
webhooks, and the overview, stands in the modules of those names.
Every call raises `dataops_client.errors`; the stubs stand beside it as attributes for what has no method here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from dataops.v1 import (
    access_pb2_grpc,
    audit_pb2_grpc,
    backups_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    exports_pb2_grpc,
    imports_pb2_grpc,
    jobs_pb2_grpc,
    overview_pb2_grpc,
    restores_pb2_grpc,
    schedules_pb2_grpc,
    webhooks_pb2_grpc,
)

from dataops_client.backups import BackupCalls
from dataops_client.channel import Token, open_channel
from dataops_client.errors import typed_errors
from dataops_client.exports import ExportCalls
from dataops_client.jobs import OnEvent
from dataops_client.overview import OverviewCalls
from dataops_client.paging import pages
from dataops_client.restores import RestoreCalls
from dataops_client.retention import RetentionCalls
from dataops_client.schedules import ScheduleCalls
from dataops_client.webhooks import WebhookCalls
from dataops_client.wire import UploadStub

__all__ = ["DataOps", "OnEvent"]

_CLOSE_SECONDS = 2.0


class DataOps(ExportCalls, BackupCalls, RestoreCalls, ScheduleCalls, RetentionCalls, OverviewCalls, WebhookCalls):
    """A connection to one server. Safe for many threads; close it when done."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.access = access_pb2_grpc.AccessServiceStub(channel)
        self.audit = audit_pb2_grpc.AuditServiceStub(channel)
        self.backups = backups_pb2_grpc.BackupServiceStub(channel)
        self.catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
        self.exports = exports_pb2_grpc.ExportServiceStub(channel)
        self.imports = imports_pb2_grpc.ImportServiceStub(channel)
        self.jobs = jobs_pb2_grpc.JobServiceStub(channel)
        self.overview = overview_pb2_grpc.OverviewServiceStub(channel)
        self.restores = restores_pb2_grpc.RestoreServiceStub(channel)
        self.schedules = schedules_pb2_grpc.ScheduleServiceStub(channel)
        self.uploads = UploadStub(channel)
        self.webhooks = webhooks_pb2_grpc.WebhookServiceStub(channel)

    @classmethod
    def connect(
        cls,
        address: str,
        *,
        ca_file: Path | None = None,
        token: Token | None = None,
        server_name: str | None = None,
        client_name: str = "",
    ) -> Self:
        """Open a channel; see `open_channel`. Nothing is sent before the first call."""
        ca = ca_file.read_bytes() if ca_file else None
        channel = open_channel(address, ca=ca, token=token, server_name=server_name, client_name=client_name)
        return cls(channel)

    def close(self) -> None:
        """End the connection and every call on it."""
        # gRPC 1.85 waits for each call to end, and where Ctrl-C came just as one had begun, for ever: the thread that
        # would have told of its end was not started (6 of 300 interrupted calls). What is left then is a socket and
        # a thread that waits, which go with the process.
        closing = threading.Thread(target=self._channel.close, name="dataops-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def entities(self, group: str = "") -> Iterator[catalog_pb2.Entity]:
        """Every entity the caller may see, by name, without fields."""
        request = catalog_pb2.ListEntitiesRequest(group=group, page_size=1000)
        for page in pages(self.catalog.ListEntities, request):
            yield from page.entities

    def entity(self, name: str) -> catalog_pb2.Entity:
        """One entity with its fields."""
        with typed_errors():
            return self.catalog.GetEntity(catalog_pb2.GetEntityRequest(entity=name)).entity
