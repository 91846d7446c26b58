"""The endpoint: its paths, whom it listens for, what it takes for ready, and that it tells no secret."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from engine.db.revision import MIN_REVISION
from engine.errors import DataOpsError
from engine.health import checks
from engine.health.checks import Check, NotReady, Readiness
from engine.health.endpoint import MOST_CLIENTS, Asked, HealthEndpoint, alive_of
from engine.health.pulse import Pulse
from engine.jobs.doorbell import Doorbell
from examples.stack.servers import PostgresServer, ValkeyServer
from tests.engine.health.kit import ask, away, failing, look
from tests.world import World


@pytest.fixture(autouse=True)
def look_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "GOOD_SECONDS", {})
    monkeypatch.setattr(checks, "BAD_SECONDS", 0.0)


@pytest.fixture
def listening(make_world: Callable[..., World], platform_dsn: str) -> World:
    return make_world(platform_dsn, health_listen="127.0.0.1:0")


@pytest.fixture
def draining() -> threading.Event:
    return threading.Event()


@pytest.fixture
def address(listening: World, draining: threading.Event) -> Iterator[str]:
    endpoint = HealthEndpoint.of(listening.resources, dict, draining.is_set)
    assert endpoint is not None
    yield endpoint.address
    endpoint.close()


def test_what_works_is_ready_and_says_what_it_found(address: str) -> None:
    status, told = look(address)

    assert status == 200
    assert {name: check["found"] for name, check in told.items()} == {
        "control_database": f"revision {MIN_REVISION}",
        "platform_database": "PostgreSQL 18",
        "storage": "an object was written and removed",
        "redis": "none is configured",
    }
    assert ask(address, "/livez")[0] == 200
    assert ask(address, "/readyz?verbose", "HEAD") == (200, "")
    assert ask(address, "/")[0] == 404
    assert ask(address, "/readyz", "POST")[0] == 501


def test_it_listens_for_this_host_alone_unless_it_is_told_otherwise(listening: World, address: str) -> None:
    def start(listen: str, **settings: object) -> HealthEndpoint | None:
        told = listening.resources.settings.model_copy(update={"health_listen": listen, **settings})
        fresh = dataclasses.replace(listening.resources, settings=told, meters=type(listening.resources.meters)())
        return HealthEndpoint.of(fresh, dict, lambda: False)

    assert start("") is None
    for wrong in ("0.0.0.0:0", "[::]:0", "10.1.2.3:0", "example.org:80", "127.0.0.1", "127.0.0.1:http", ":0", "::1"):
        with pytest.raises(DataOpsError, match="CONFIG_INVALID: health_listen"):
            start(wrong)
    with pytest.raises(DataOpsError, match=r"LISTEN_FAILED: health_listen: .*in use"):
        start(address)
    for right, public in (("localhost:0", False), ("[::1]:0", False), ("0.0.0.0:0", True)):
        started = start(right, health_public=public)
        assert started is not None
        assert ask(started.address.replace("0.0.0.0", "127.0.0.1"), "/livez")[0] == 200
        started.close()


def test_clients_that_never_come_to_the_point_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.health.endpoint.CLIENT_SECONDS", 1.0)
    asked = Asked(dict, Readiness([], lambda: False), CollectorRegistry())
    endpoint, stop = HealthEndpoint("127.0.0.1:0", asked), threading.Event()
    host, _, port = endpoint.address.rpartition(":")

    def drip(client: socket.socket) -> bool:
        """Whether it was cut off: a byte now and then keeps no connection alive."""
        with client, suppress(OSError):
            client.settimeout(0.2)
            while not stop.is_set():
                client.sendall(b"G")
                with suppress(TimeoutError):
                    return not client.recv(1)
        return not stop.is_set()

    with ThreadPoolExecutor(3 * MOST_CLIENTS) as pool:
        clients = [socket.create_connection((host, int(port))) for _ in range(3 * MOST_CLIENTS)]
        cut = [pool.submit(drip, client) for client in clients]
        wait(cut, timeout=60)
        stop.set()
        assert all(found.result() for found in cut)
    assert ask(endpoint.address, "/livez")[0] == 200
    endpoint.close()


def test_a_database_that_goes_away_is_told_and_so_is_its_coming_back(
    listening: World, address: str, postgres: PostgresServer
) -> None:
    settings = listening.resources.settings
    with away(postgres, settings.control_dsn):
        assert failing(address) == (503, {"control_database"})
    assert failing(address) == (200, set())
    with away(postgres, settings.platform_dsn):
        status, told = look(address)
    assert (status, told["platform_database"]["found"]) == (503, "PLATFORM_UNREACHABLE")
    assert failing(address) == (200, set())


@pytest.mark.parametrize(
    ("revision", "found"),
    [("0001", f"found revision 0001, expected {MIN_REVISION} or newer"), (None, "found no control schema")],
)
def test_a_control_schema_that_this_release_cannot_work_on_is_not_ready(
    listening: World, address: str, revision: str | None, found: str
) -> None:
    with psycopg.connect(listening.resources.settings.control_dsn, autocommit=True) as connection:
        if revision is None:
            connection.execute("DROP TABLE dataops.alembic_version")
        else:
            connection.execute("UPDATE dataops.alembic_version SET version_num = %s", (revision,))

    assert look(address)[1]["control_database"] == {"ok": False, "required": True, "found": found}


def test_a_newer_control_schema_came_with_a_deployment_and_is_as_good(listening: World, address: str) -> None:
    with psycopg.connect(listening.resources.settings.control_dsn, autocommit=True) as connection:
        connection.execute("UPDATE dataops.alembic_version SET version_num = '9999'")

    status, told = look(address)
    assert (status, told["control_database"]["found"]) == (200, "revision 9999, newer than this process")


def test_a_storage_that_takes_nothing_is_not_ready(
    listening: World, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = listening.resources.artifacts.vault.storage
    assert failing(address) == (200, set())
    assert list(storage.list()) == []  # probes leave nothing

    def full(_name: str, _data: bytes) -> None:
        raise DataOpsError("no room", reason="STORAGE_FULL")

    monkeypatch.setattr(storage, "put", full)
    assert look(address)[1]["storage"]["found"] == "STORAGE_FULL"
    assert failing(address) == (503, {"storage"})


def test_redis_is_told_and_never_needed(listening: World, valkey: ValkeyServer) -> None:
    for url, good in ((valkey.url, True), ("redis://127.0.0.1:1/0", False)):
        there = dataclasses.replace(listening.resources, bell=Doorbell(url))
        ready, told = Readiness(checks.checks_of(there), lambda: False).look()
        assert (ready, told["redis"]["ok"], told["redis"]["required"]) == (True, good, False)
        there.bell.close()


def test_what_drains_is_not_ready_and_lives(address: str, draining: threading.Event) -> None:
    draining.set()

    assert failing(address) == (503, {"draining"})
    assert ask(address, "/livez")[0] == 200


def test_no_answer_holds_a_secret(listening: World, address: str, postgres: PostgresServer) -> None:
    settings = listening.resources.settings
    secrets = {str(psycopg.conninfo.conninfo_to_dict(settings.control_dsn)["password"]), settings.keys.split()[1]}
    texts = [ask(address, path)[1] for path in ("/livez", "/readyz", "/metrics")]
    with away(postgres, settings.control_dsn), away(postgres, settings.platform_dsn):
        texts += [ask(address, path)[1] for path in ("/readyz", "/metrics")]

    for text in texts:
        assert not [secret for secret in secrets if secret in text]
        assert "postgresql://" not in text
        assert "password" not in text.lower()


def test_a_finding_is_believed_for_a_while_and_a_bad_one_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "GOOD_SECONDS", {"storage": 3600.0})
    refusals = [NotReady("full")]

    def act() -> str:
        if refusals:
            raise refusals.pop()
        return "room"

    check = Check("storage", act)
    assert [check.look() for _ in range(3)] == [(False, "full"), (True, "room"), (True, "room")]


def test_a_defect_in_a_check_is_told_without_its_words() -> None:
    def act() -> str:
        raise ValueError("postgresql://user:hunter2@host")

    assert Check("storage", act).look() == (False, "ValueError")


def test_a_thread_lives_while_it_is_heard_of_or_at_work() -> None:
    end, busy = threading.Event(), threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    pulses = [Pulse("patient", thread, 3600.0), Pulse("strict", thread, -1.0, busy.is_set)]
    alive = alive_of(pulses)

    assert [bool(wrong) for wrong in alive().values()] == [False, True]
    busy.set()
    assert list(alive().values()) == ["", ""]
    end.set()
    thread.join()
    assert set(alive().values()) == {"its thread has ended"}
