"""A failed call is an exception of the right class, with all that the server said."""

from __future__ import annotations

import pickle
from pathlib import Path

import grpc
import pytest
from dataops.v1 import catalog_pb2, catalog_pb2_grpc, imports_pb2
from dataops_client import DataOps, TokenFile, open_aio_channel
from dataops_client.errors import (
    DataOpsError,
    InvalidRequest,
    NotAuthenticated,
    NotBuilt,
    NotFound,
    Unavailable,
    from_rpc_error,
    typed_errors,
)

from tests.clients.fake_server import TOKEN, FakeServer, World


def test_reason_and_message_of_a_refusal_are_kept(client: DataOps):
    with pytest.raises(NotFound) as caught:
        client.entity("nothing")

    assert (caught.value.reason, caught.value.message) == ("ENTITY_UNKNOWN", "no entity nothing")
    assert caught.value.code == grpc.StatusCode.NOT_FOUND
    assert str(caught.value) == "ENTITY_UNKNOWN: no entity nothing"


def test_violations_name_their_fields(client: DataOps):
    with pytest.raises(InvalidRequest) as caught:
        client.create_import(imports_pb2.CreateImportRequest())

    assert [(v.subject, v.description) for v in caught.value.violations] == [("upload_id", "is required")]
    assert str(caught.value) == "INVALID_REQUEST: 1 field of the request is wrong (upload_id: is required)"


def test_an_rpc_the_server_does_not_have_is_not_built(client: DataOps):
    with pytest.raises(NotBuilt), typed_errors():
        client.imports.RevertImport(imports_pb2.RevertImportRequest())


def test_every_error_can_be_pickled(client: DataOps):
    with pytest.raises(DataOpsError) as caught:
        client.create_import(imports_pb2.CreateImportRequest())

    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), copy.violations, str(copy)) == (
        type(caught.value),
        caught.value.violations,
        str(caught.value),
    )


def test_a_call_without_a_token_is_not_authenticated(server: FakeServer, tmp_path: Path):
    ca = tmp_path / "ca.pem"
    ca.write_bytes(server.ca)

    with DataOps.connect(server.address, ca_file=ca) as client, pytest.raises(NotAuthenticated):
        list(client.entities())


def test_a_server_that_nobody_vouches_for_is_not_spoken_to(server: FakeServer):
    with DataOps.connect(server.address, token=TOKEN) as client, pytest.raises(Unavailable):
        list(client.entities())


def test_a_token_file_is_read_again_when_it_changes(server: FakeServer, tmp_path: Path):
    ca, token = tmp_path / "ca.pem", tmp_path / "token"
    ca.write_bytes(server.ca)
    token.write_text("old\n")

    with DataOps.connect(server.address, ca_file=ca, token=TokenFile(token)) as client:
        with pytest.raises(NotAuthenticated):
            list(client.entities())
        token.write_text(f"{TOKEN}\n")
        names = [entity.name for entity in client.entities()]

    assert names == ["users", "tokens", "points_rules"]


def test_a_unary_call_that_meets_a_draining_server_is_repeated(client: DataOps, world: World):
    world.unavailable_calls = 2

    assert len(client.list_jobs()) == 1


def test_the_server_is_told_who_the_client_is(client: DataOps, world: World):
    list(client.entities())

    (agent,) = world.user_agents
    assert agent.startswith("dataops-client/0.1.0 grpc-python")


async def test_an_aio_channel_speaks_to_the_same_server(server: FakeServer):
    async with open_aio_channel(server.address, ca=server.ca, token=TOKEN) as channel:
        stub = catalog_pb2_grpc.CatalogServiceStub(channel)
        answer = await stub.ListEntities(catalog_pb2.ListEntitiesRequest())
        with pytest.raises(grpc.RpcError) as caught:
            await stub.GetEntity(catalog_pb2.GetEntityRequest(entity="nothing"))

    assert [entity.name for entity in answer.entities] == ["users", "tokens"]
    assert from_rpc_error(caught.value).reason == "ENTITY_UNKNOWN"
