"""The server under test: one for a module whose tests only look, one of its own for a test that changes something."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from examples.stack.servers import PostgresServer
from tests.server.edge import Edge, running_edge


@pytest.fixture
async def edge(tmp_path: Path, control_dsn: str, platform_dsn: str) -> AsyncIterator[Edge]:
    """A server of this test's own."""
    async with running_edge(tmp_path, control_dsn, platform_dsn) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_edge(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, control_template: str, platform_template: str
) -> AsyncIterator[Edge]:
    """One server for the tests of a module marked `asyncio(loop_scope="module")`: a start takes most of a second."""
    folder = tmp_path_factory.mktemp("edge")
    control = postgres.create_database(f"edge_control_{folder.name}", control_template)
    platform = postgres.create_database(f"edge_platform_{folder.name}", platform_template)
    async with running_edge(folder, control, platform) as running:
        yield running
    for name in (f"edge_control_{folder.name}", f"edge_platform_{folder.name}"):
        postgres.drop_database(name)
