"""A real receiver: HTTPS on loopback, which answers as a test says."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from examples.stack.certificates import make_certificates

Answer = Callable[[BaseHTTPRequestHandler], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that goes away is what some tests are about."""


class Receiver:
    """`answers` are used up one by one; then every message is taken with 200."""

    def __init__(self, folder: Path) -> None:
        certificates = make_certificates(folder)
        self.ca_file = certificates.ca_file
        self.answers: list[Answer] = []
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.connections = 0
        self.poured, self.most = 0, 64 << 20
        self.released = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def setup(self) -> None:
                receiver.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append(({**self.headers, "path": self.path}, body))
                with suppress(OSError):
                    (receiver.answers.pop(0) if receiver.answers else status(200))(self)

            def do_GET(self) -> None:
                receiver.received.append(({"path": "GET " + self.path}, b""))

            def log_message(self, *_: Any) -> None:
                """Not on the tests' output."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.cert_file, certificates.key_file)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"https://localhost:{self.port}/hooks?from=dataops"

    def reset(self) -> None:
        self.answers, self.received, self.connections, self.poured = [], [], 0, 0
        self.released.clear()

    def never(self, _: BaseHTTPRequestHandler) -> None:
        """No answer until the test is over."""
        self.released.wait(60)

    def drips(self, handler: BaseHTTPRequestHandler) -> None:
        """A byte now and then, for ever: no single read takes long."""
        handler.wfile.write(b"HTTP/1.1 200 ")
        while not self.released.wait(0.05):
            handler.wfile.write(b"O")

    def lingers(self, handler: BaseHTTPRequestHandler) -> None:
        """A status at once, and then an answer without an end."""
        handler.send_response(200)
        handler.end_headers()
        while not self.released.wait(0.05):
            handler.wfile.write(b"O")

    def pours(self, handler: BaseHTTPRequestHandler) -> None:
        """An answer of 64 MiB, as far as somebody takes it."""
        handler.send_response(200)
        handler.send_header("Content-Length", str(self.most))
        handler.end_headers()
        while self.poured < self.most:
            handler.wfile.write(bytes(1 << 16))
            self.poured += 1 << 16

    def run(self) -> None:
        self._server.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def nonsense(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"what?\r\n\r\n")


def half(handler: BaseHTTPRequestHandler) -> None:
    """What might be a status, cut off: the connection breaks below TLS."""
    handler.wfile.write(b"HTTP/1.1 200")
    socket.socket.shutdown(handler.connection, socket.SHUT_RDWR)


@contextmanager
def receiving(folder: Path) -> Iterator[Receiver]:
    receiver = Receiver(folder)
    thread = threading.Thread(target=receiver.run, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.close()
        thread.join()
