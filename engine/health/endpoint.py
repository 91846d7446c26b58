"""/livez, /readyz and /metrics over plain HTTP, on threads of their own: they answer whatever the rest does.

    200 /livez   the process need not be started again     503 it should be
    200 /readyz  it can do its work                         503 not now
    200 /metrics the Prometheus text format

For this host alone unless a setting says otherwise: there is no token here, and what is told (jobs by kind, ages of
backups, bytes) is the operator's business though it is nobody's secret.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Self

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest

from engine.errors import InvalidRequest, Unavailable
from engine.health.checks import Readiness, checks_of
from engine.health.pulse import Pulse
from engine.health.state import StateCollector
from engine.resources import Resources

CLIENT_SECONDS = 5.0
"""In which a client has said what it asks for, or is gone; a byte now and then is nothing said."""

MOST_CLIENTS = 64
"""That have not said it yet: each is a thread and a file of a process which needs both for its work."""

JSON = "application/json"

Alive = Callable[[], Mapping[str, str]]
"""By name what a process cannot do without, each with why it should be started again; empty texts where it lives."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Asked:
    """What the paths answer with."""

    alive: Alive
    readiness: Readiness
    registry: CollectorRegistry

    def livez(self) -> tuple[int, str, bytes]:
        told = {name: {"ok": not wrong, "found": wrong or "it lives"} for name, wrong in self.alive().items()}
        return _report(all(one["ok"] for one in told.values()), "alive", told)

    def readyz(self) -> tuple[int, str, bytes]:
        ready, told = self.readiness.look()
        return _report(ready, "ready", told)

    def metrics(self) -> tuple[int, str, bytes]:
        return 200, CONTENT_TYPE_LATEST, generate_latest(self.registry)


class HealthEndpoint:
    """Listens from its construction on, until `close`."""

    def __init__(self, listen: str, asked: Asked, *, public: bool = False) -> None:
        """Raises:
        InvalidRequest: CONFIG_INVALID for what is no address, or one that others can reach where that is not wanted.
        Unavailable: LISTEN_FAILED.
        """
        host, port = _address(listen, public=public)
        try:
            self._http = _Server((host, port), asked)
        except OSError as error:
            raise Unavailable(
                f"health_listen: cannot bind {listen}: {error.strerror or 'unknown'}", reason="LISTEN_FAILED"
            ) from None
        self.address = f"[{host}]:{self._http.server_port}" if ":" in host else f"{host}:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, name="health", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, resources: Resources, alive: Alive, draining: Callable[[], bool]) -> Self | None:
        """That of a process, with the numbers of the installation beside the process's own; None where it is off."""
        settings = resources.settings
        if not settings.health_listen:
            return None
        registry = resources.meters.registry
        ProcessCollector(registry=registry)
        registry.register(StateCollector(resources))
        asked = Asked(alive, Readiness(checks_of(resources), draining), registry)
        return cls(settings.health_listen, asked, public=settings.health_public)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # one that hangs in a check does not keep the process from ending
    request_queue_size = 2 * MOST_CLIENTS

    def __init__(self, address: tuple[str, int], asked: Asked) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.asked = asked
        self._silent: dict[socket.socket, float] = {}
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Without the base's look-up of the host's name, which may ask a resolver."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def verify_request(self, request: Any, client_address: Any) -> bool:
        del request, client_address
        return len(self._silent) < MOST_CLIENTS

    def process_request(self, request: Any, client_address: Any) -> None:
        self._silent[request] = time.monotonic() + CLIENT_SECONDS
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Twice a second. The client's own thread then closes what is cut off here."""
        for request, until in list(self._silent.items()):
            if until < time.monotonic():
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def heard(self, request: Any) -> None:
        """The client has said what it asks for, or is gone."""
        self._silent.pop(request, None)

    def shutdown_request(self, request: Any) -> None:
        self.heard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("health_client_gone", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CLIENT_SECONDS
    server_version, sys_version = "dataops", ""

    def do_GET(self) -> None:
        self.server.heard(self.connection)
        asked = self.server.asked
        paths = {"/livez": asked.livez, "/readyz": asked.readyz, "/metrics": asked.metrics}
        answer = paths.get(self.path.partition("?")[0])
        try:
            code, kind, body = (404, "text/plain", b"/livez /readyz /metrics\n") if answer is None else answer()
        except Exception as error:
            log.exception("health_failed", path=self.path[:100])
            code, kind, body = 500, "text/plain", f"{type(error).__name__}\n".encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 -- the base's name

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base's name
        """Probes come every few seconds."""


def _report(good: bool, word: str, told: Mapping[str, object]) -> tuple[int, str, bytes]:
    record = {"status": word if good else f"not {word}", "checks": told}
    return 200 if good else 503, JSON, json.dumps(record, indent=2).encode() + b"\n"


def _address(listen: str, *, public: bool) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    host = host.strip("[]")
    if not (colon and host and port.isdecimal() and int(port) < 1 << 16):
        raise InvalidRequest(f"health_listen: expected host:port, found {listen[:100]!r}", reason="CONFIG_INVALID")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False  # whatever a resolver says of it
    if not (loopback or public):
        raise InvalidRequest(
            f"health_listen: found {host[:100]}, expected an address of the loopback, or health_public",
            reason="CONFIG_INVALID",
        )
    return host, int(port)


def alive_of(pulses: Sequence[Pulse]) -> Alive:
    """Of threads that beat: `engine.health.pulse`."""
    return lambda: {pulse.name: pulse.wrong() for pulse in pulses}
