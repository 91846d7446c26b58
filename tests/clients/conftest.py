"""A fake server over real TLS, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dataops_client import DataOps
from dataops_client.channel import open_channel

from tests.clients import fake_server
from tests.clients.fake_server import FakeServer, World


@pytest.fixture(scope="session")
def certificate() -> tuple[bytes, bytes]:
    return fake_server.make_certificate()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def server(world: World, certificate: tuple[bytes, bytes]) -> Iterator[FakeServer]:
    yield from fake_server.serve(world, *certificate)


@pytest.fixture
def client(server: FakeServer) -> Iterator[DataOps]:
    with DataOps(open_channel(server.address, ca=server.ca, token=fake_server.TOKEN)) as client:
        yield client
