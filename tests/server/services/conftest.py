"""A client of the services of data: imports, exports, backups, restores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
from dataops.v1 import backups_pb2_grpc, exports_pb2_grpc, imports_pb2_grpc, restores_pb2_grpc

from engine.backups.service import Backups
from engine.clock import utc_now
from engine.exports.service import Exports
from engine.imports.service import Imports
from engine.jobs.registry import handlers
from engine.jobs.runner import Runner
from engine.restores.service import Restores
from examples.platform import generate
from server.download import Downloads
from server.principals import Principals
from server.services.backups import BackupService
from server.services.exports import ExportService
from server.services.imports import ImportService
from server.services.restores import RestoreService
from tests.server.rpc import Edge
from tests.server.services.kit import Client


@pytest.fixture
def edge(control_dsn: str, platform_dsn: str, tmp_path) -> Iterator[Edge]:
    edge = Edge(control_dsn, tmp_path, platform_dsn=platform_dsn, catalog_file=generate.CATALOG)
    yield edge
    edge.close()


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[Client]:
    resources, offload = edge.resources, edge.offload
    downloads = Downloads(edge.db, edge.store, utc_now, offload, edge.drain)
    principals = Principals(edge.db, offload)
    imports = ImportService(Imports(resources), edge.uploads, downloads, principals, offload)  # type: ignore[abstract]
    exports = ExportService(Exports(resources), downloads, principals, offload, edge.drain)
    backups = BackupService(Backups(resources), principals, offload)
    restores = RestoreService(Restores(resources), principals, offload, utc_now)
    async with (
        edge.serving(
            (imports_pb2_grpc.add_ImportServiceServicer_to_server, imports),
            (exports_pb2_grpc.add_ExportServiceServicer_to_server, exports),
            (backups_pb2_grpc.add_BackupServiceServicer_to_server, backups),
            (restores_pb2_grpc.add_RestoreServiceServicer_to_server, restores),
        ) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        runner = Runner(resources, handlers(), "test")
        yield Client(
            edge,
            imports_pb2_grpc.ImportServiceStub(channel),
            exports_pb2_grpc.ExportServiceStub(channel),
            backups_pb2_grpc.BackupServiceStub(channel),
            restores_pb2_grpc.RestoreServiceStub(channel),
            runner,
        )
