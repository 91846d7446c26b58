"""The server's own health over HTTP: alive, ready, counted."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from dataops.v1 import common_pb2, exports_pb2, jobs_pb2
from dataops_client import DataOps
from dataops_client.channel import open_channel
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engine.jobs.registry import handlers
from engine.jobs.runner import Runner
from examples.stack.servers import PostgresServer
from server.living import Living
from tests.engine.health.kit import Labels, ask, away, failing, scrape
from tests.engine.jobs.kit import wait_until
from tests.server.edge import Edge, edge_settings, running_edge
from tests.server.test_lifecycle import PATIENCE, Process

LIST = "/dataops.v1.JobService/ListJobs"
WATCH = "/dataops.v1.JobService/WatchJob"


@pytest.fixture
async def listening(tmp_path: Path, control_dsn: str, platform_dsn: str) -> AsyncIterator[Edge]:
    async with running_edge(tmp_path, control_dsn, platform_dsn, health_listen="127.0.0.1:0") as edge:
        yield edge


def address_of(edge: Edge) -> str:
    assert edge.server.health is not None
    return edge.server.health.address


def labels(**values: str) -> Labels:
    return tuple(sorted(values.items()))


def test_a_server_process_says_where_and_how_it_is(
    tmp_path: Path, control_dsn: str, platform_dsn: str, postgres: PostgresServer
) -> None:
    more = {"artifacts": str(tmp_path / "artifacts"), "health_listen": "127.0.0.1:0"}
    settings, _, _ = edge_settings(tmp_path, control_dsn, platform_dsn, **more)
    process = Process(settings, tmp_path)
    try:
        address = process.told()["health"]
        assert (ask(address, "/livez")[0], failing(address)) == (200, (200, set()))
        found = scrape(address)
        assert found["process_resident_memory_bytes"][()] > 10 << 20
        assert found["dataops_control_database_up"] == {(): 1.0}

        with away(postgres, control_dsn):
            wait_until(lambda: failing(address) == (503, {"control_database"}), PATIENCE)
            assert ask(address, "/livez")[0] == 200
        wait_until(lambda: failing(address) == (200, set()), PATIENCE)
        code, log = process.end()
    finally:
        process.kill()
    assert code == 0
    assert f'"health": "{address}"' in log


async def test_a_draining_server_is_not_ready_and_lives(listening: Edge) -> None:
    address = address_of(listening)
    assert await asyncio.to_thread(failing, address) == (200, set())

    listening.server.drain.begin()

    assert await asyncio.to_thread(failing, address) == (503, {"draining"})
    assert (await asyncio.to_thread(ask, address, "/livez"))[0] == 200


async def test_calls_are_counted_by_how_they_ended_and_made_up_names_are_one(listening: Edge) -> None:
    await listening.raw(LIST)
    await listening.error(LIST, metadata=())
    await listening.error(
        WATCH, jobs_pb2.WatchJobRequest(job_id="0197a000-0000-7000-8000-00000000000b").SerializeToString()
    )
    for number in range(3):
        await listening.error(f"/dataops.v1.JobService/Invented{number}")
        await listening.error(f"/grpc.health.v1.Health/Invented{number}")
    found = await asyncio.to_thread(scrape, address_of(listening))

    assert found["dataops_rpcs_total"] == {
        labels(method="dataops.v1.JobService/ListJobs", code="OK"): 1,
        labels(method="dataops.v1.JobService/ListJobs", code="UNAUTHENTICATED"): 1,
        labels(method="dataops.v1.JobService/WatchJob", code="NOT_FOUND"): 1,
        labels(method="unknown", code="UNIMPLEMENTED"): 6,
    }
    assert found["dataops_rpc_duration_seconds_count"][labels(method="dataops.v1.JobService/ListJobs")] == 2


async def test_open_streams_are_counted_and_so_is_what_ends_them(listening: Edge) -> None:
    watch = health_pb2_grpc.HealthStub(listening.channel).Watch(health_pb2.HealthCheckRequest())
    await watch.read()
    address, method = address_of(listening), labels(method="grpc.health.v1.Health/Watch")
    assert (await asyncio.to_thread(scrape, address))["dataops_rpcs_open"][method] == 1

    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch.read()
    for _ in range(500):
        found = await asyncio.to_thread(scrape, address)
        if found.get("dataops_rpcs_total"):  # looked at first, counted last: what is open is looked at after
            break
        await asyncio.sleep(0.05)
    assert found["dataops_rpcs_total"] == {labels(method="grpc.health.v1.Health/Watch", code="CANCELLED"): 1}
    assert found["dataops_rpcs_open"][method] == 0


async def test_bytes_of_files_are_counted_either_way(listening: Edge, tmp_path: Path) -> None:
    file, copy = tmp_path / "users.csv", tmp_path / "copy.csv"
    file.write_bytes(b"x" * 100_000)

    def move() -> int:
        trusted = listening.certificates.ca_file.read_bytes()
        channel = open_channel(listening.server.address, ca=trusted, token=listening.tokens.token("sam"))
        with DataOps(channel) as client:
            client.upload(file)
            request = exports_pb2.CreateExportRequest(
                request_id=str(uuid.uuid4()),
                export_type=exports_pb2.EXPORT_TYPE_ENTITY,
                entity_types=["users"],
                format=common_pb2.FILE_FORMAT_CSV,
            )
            made = client.create_export(request)
            Runner(listening.resources, handlers(), "test").run_next()
            return client.download_export(made.export_id, copy).size

    size = await asyncio.to_thread(move)
    found = await asyncio.to_thread(scrape, address_of(listening))

    assert found["dataops_upload_bytes_total"] == {(): 100_000}
    assert found["dataops_download_bytes_total"] == {(): size}
    assert size > 0


async def test_a_control_database_that_is_away_is_counted_as_the_code_that_is_answered(
    listening: Edge, control_dsn: str, postgres: PostgresServer
) -> None:
    with away(postgres, control_dsn):
        refusal = await listening.error(LIST)
        found = await asyncio.to_thread(scrape, address_of(listening))

    assert refusal.code == grpc.StatusCode.UNAVAILABLE
    assert found["dataops_rpcs_total"] == {labels(method="dataops.v1.JobService/ListJobs", code="UNAVAILABLE"): 1}


async def test_a_loop_that_stands_still_is_noticed() -> None:
    patient = Living(asyncio.get_running_loop(), limit=PATIENCE)
    assert await asyncio.to_thread(patient.wrong) == {"event_loop": ""}
    living, asked, told = Living(asyncio.get_running_loop(), limit=0.05), threading.Event(), dict[str, str]()

    def ask_it() -> None:
        told.update(living.wrong())
        asked.set()

    asker = threading.Thread(target=ask_it)
    asker.start()
    asked.wait(PATIENCE)  # on the loop
    asker.join()

    assert told == {"event_loop": "no answer within 0.05 s"}


def test_a_loop_that_is_closed_is_not_alive() -> None:
    loop = asyncio.new_event_loop()
    loop.close()

    assert Living(loop).wrong() == {"event_loop": "it is closed"}
