"""A server process and its surroundings: TLS, health, reflection, busy, drain, start and stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from dataops.v1 import jobs_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from engine.config import Settings
from engine.errors import DataOpsError
from examples.stack.certificates import make_certificates
from server import tls
from tests.server.edge import Edge, Refusal, edge_settings, running_edge

ROOT = Path(__file__).resolve().parents[2]
JOBS = "/dataops.v1.JobService/ListJobs"
CALLER = "/dataops.v1.AccessService/GetCaller"
PATIENCE = 60.0


class Process:
    """`python -m server` on a port of its own."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.ready_file = folder / "ready.json"
        values = {f"DATAOPS_{name.upper()}": str(getattr(settings, name)) for name in settings.model_fields_set}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DATAOPS_", "GRPC_"))}
        path = os.pathsep.join([str(ROOT), str(ROOT / "clients" / "python")])
        own = {"DATAOPS_READY_FILE": str(self.ready_file), "PYTHONPATH": path}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server"], env=kept | values | own, cwd=ROOT, stderr=subprocess.PIPE, text=True
        )

    def address(self) -> tuple[str, int]:
        """Where it listens, once it says so."""
        host, _, port = self.told()["address"].rpartition(":")
        return host, int(port)

    def told(self) -> dict[str, Any]:
        """What it says when it serves."""
        for _ in range(int(PATIENCE / 0.05)):
            if self.ready_file.exists():
                return dict(json.loads(self.ready_file.read_text()))
            if self.process.poll() is not None:
                raise AssertionError(self.process.communicate()[1])
            threading.Event().wait(0.05)
        raise AssertionError("the server was not ready in time")

    def end(self) -> tuple[int, str]:
        """SIGTERM; exit code and log."""
        self.process.send_signal(signal.SIGTERM)
        log = self.process.communicate(timeout=PATIENCE)[1]
        return self.process.returncode, log

    def kill(self) -> None:
        """Whatever its state."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def process(tmp_path: Path, control_dsn: str, platform_dsn: str) -> Iterator[Process]:
    settings, _, _ = edge_settings(tmp_path, control_dsn, platform_dsn, artifacts=str(tmp_path / "artifacts"))
    started = Process(settings, tmp_path)
    yield started
    started.kill()


def test_a_server_process_speaks_tls_13_only_and_ends_in_good_order(process: Process) -> None:
    host, port = process.address()
    assert tls.handshake(host, port, ssl.TLSVersion.TLSv1_2) is None
    assert tls.handshake(host, port, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    code, log = process.end()
    assert code == 0
    assert "server_stopped" in log


def test_a_server_refuses_to_start_on_a_control_schema_it_does_not_know(
    tmp_path: Path, empty_dsn: str, platform_dsn: str
) -> None:
    settings, _, _ = edge_settings(tmp_path, empty_dsn, platform_dsn)
    process = Process(settings, tmp_path).process
    told = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 1
    assert "SCHEMA_REVISION" in told
    assert "Traceback" not in told


async def test_a_server_that_would_take_tls_12_refuses_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "handshake", lambda _host, _port, version: version.name.replace("_", "."))
    certificates = make_certificates(tmp_path)
    with pytest.raises(DataOpsError, match="TLS_VERSION"):
        await tls.require_tls13(tls.Certificates(certificates.cert_file, certificates.key_file))


async def test_renewed_certificates_are_served_without_a_restart(edge: Edge, tmp_path: Path) -> None:
    host, _, port = edge.server.address.rpartition(":")

    def served() -> int:
        pem = ssl.get_server_certificate((host, int(port)))
        return x509.load_pem_x509_certificate(pem.encode()).serial_number

    before = await asyncio.to_thread(served)
    new = make_certificates(tmp_path)  # the same file names
    after = await asyncio.to_thread(served)
    assert after != before
    new.key_file.write_bytes(b"half a renewal")
    assert await asyncio.to_thread(served) == after


def test_a_certificate_without_its_key_refuses_the_start(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    (tmp_path / "other").mkdir()
    other = make_certificates(tmp_path / "other")
    for cert, key in ((files.cert_file, other.key_file), (files.cert_file, None), (files.ca_file, files.key_file)):
        with pytest.raises(DataOpsError, match="CONFIG_INVALID"):
            tls.Certificates(cert, key)


async def test_health_is_for_everybody_and_turns_when_the_server_stops(edge: Edge) -> None:
    health = health_pb2_grpc.HealthStub(edge.channel)
    serving, stopping = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == serving
    assert (await health.Check(health_pb2.HealthCheckRequest(service="dataops.v1.JobService"))).status == serving
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="no.such"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    watch = health.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == serving
    edge.server.drain.begin()
    assert (await asyncio.wait_for(watch.read(), PATIENCE)).status == stopping
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == stopping


async def test_a_stopping_server_refuses_new_calls_with_a_time_to_come_back(edge: Edge) -> None:
    edge.server.drain.begin()
    refusal = await edge.error(JOBS)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING")
    assert refusal.part(error_details_pb2.RetryInfo).HasField("retry_delay")


async def _services(edge: Edge, metadata: Any) -> list[str]:
    async def asked() -> Any:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    stub = reflection_pb2_grpc.ServerReflectionStub(edge.channel)
    call = stub.ServerReflectionInfo(asked(), metadata=metadata)
    answer = await call.read()
    if answer is grpc.aio.EOF:
        await call  # raises the refusal
        raise grpc.aio.AioRpcError(await call.code(), None, await call.trailing_metadata())
    return [service.name for service in answer.list_services_response.service]


async def test_reflection_answers_any_authenticated_caller_and_nobody_else(edge: Edge) -> None:
    assert "dataops.v1.ImportService" in await _services(edge, edge.bearer("nora"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _services(edge, ())
    assert Refusal(caught.value).reason == "TOKEN_MISSING"


async def test_reflection_answers_everybody_where_the_installation_says_so(
    tmp_path: Path, control_dsn: str, platform_dsn: str
) -> None:
    async with running_edge(tmp_path, control_dsn, platform_dsn, anonymous_reflection=True) as edge:
        assert "grpc.health.v1.Health" in await _services(edge, ())
        assert (await edge.error(CALLER, metadata=())).reason == "TOKEN_MISSING"


async def test_more_calls_than_the_server_holds_are_refused_with_a_time_to_come_back(
    tmp_path: Path, control_dsn: str, platform_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_edge(tmp_path, control_dsn, platform_dsn, max_calls=1) as edge:
        entered, leave = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def slow(*_args: Any) -> None:
            loop.call_soon_threadsafe(entered.set)
            leave.wait(PATIENCE)
            raise DataOpsError("x")

        monkeypatch.setattr(type(edge.resources.catalogs), "load", slow)
        first = asyncio.ensure_future(edge.error("/dataops.v1.CatalogService/ListEntities"))
        await asyncio.wait_for(entered.wait(), PATIENCE)
        refusal = await edge.error(CALLER)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER_BUSY")
        assert refusal.part(error_details_pb2.RetryInfo).retry_delay.seconds == 1
        leave.set()
        await first
        assert await edge.raw(CALLER)


async def test_a_port_that_is_taken_is_said_so(edge: Edge, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    settings = edge.resources.settings
    with pytest.raises(DataOpsError, match=r"LISTEN_FAILED: .*[aA]ddress already in use"):
        async with running_edge(folder, settings.control_dsn, settings.platform_dsn, listen=edge.server.address):
            pass


async def test_many_calls_at_once_are_all_answered(edge: Edge) -> None:
    answers = await asyncio.gather(*(edge.raw(JOBS) for _ in range(100)))
    assert {jobs_pb2.ListJobsResponse.FromString(answer).next_page_token for answer in answers} == {""}
