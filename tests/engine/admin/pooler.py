"""A transaction pooler, small and real: clients' statements go to whichever of its server sessions is free."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg

SSL_REQUEST, GSS_REQUEST = 80_877_103, 80_877_104


class Pooler:
    """`in_turn` takes the server session that has been free for longest, else the one that has just become free.
    `own_key` gives clients a cancel key of its own making, as PgBouncer does; else that of a server session."""

    def __init__(self, dsn: str, *, in_turn: bool, own_key: bool) -> None:
        self._servers = [psycopg.connect(dsn, sslmode="disable", gssencmode="disable") for _ in range(2)]
        self._free = [socket.socket(fileno=os.dup(server.fileno())) for server in self._servers]
        for server in self._free:
            server.setblocking(True)
        self._all = list(self._free)
        self._in_turn = in_turn
        self._key = 77_777_777 if own_key else self._servers[0 if in_turn else -1].info.backend_pid
        self._lock = threading.Condition()

    def close(self) -> None:
        for link in self._all:
            link.close()
        for server in self._servers:
            server.close()

    def serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), client:
            self._greet(client)
            while True:
                self._transaction(client, _asked(client))

    def _greet(self, client: socket.socket) -> None:
        while True:
            size, code = struct.unpack("!II", _exactly(client, 8))
            _exactly(client, size - 8)
            if code not in (SSL_REQUEST, GSS_REQUEST):
                break
            client.sendall(b"N")
        version = self._servers[0].info.parameter_status("server_version") or ""
        facts = (("server_version", version), ("client_encoding", "UTF8"), ("standard_conforming_strings", "on"))
        client.sendall(b"R" + struct.pack("!II", 8, 0))
        for name, value in facts:
            body = name.encode() + b"\0" + value.encode() + b"\0"
            client.sendall(b"S" + struct.pack("!I", len(body) + 4) + body)
        client.sendall(b"K" + struct.pack("!III", 12, self._key, 1) + b"Z" + struct.pack("!I", 5) + b"I")

    def _transaction(self, client: socket.socket, asked: bytes) -> None:
        """One, however many statements it has."""
        with self._lock:
            self._lock.wait_for(lambda: self._free, 10)
            server = self._free.pop(0 if self._in_turn else -1)
        done = False
        try:
            while not done:
                server.sendall(asked)
                kind = b""
                while kind != b"Z":
                    kind, message = _message(server)
                    done = kind == b"Z" and message[-1:] == b"I"
                    if done:
                        self._give_back(server)  # before its client hears of it, whose other session may ask at once
                    client.sendall(message)
                if not done:
                    asked = _asked(client)
        finally:
            if not done:
                self._give_back(server)

    def _give_back(self, server: socket.socket) -> None:
        with self._lock:
            self._free.append(server)
            self._lock.notify()


@contextlib.contextmanager
def pooled(dsn: str, *, in_turn: bool, own_key: bool) -> Iterator[str]:
    """The DSN of a pooler before that of `dsn`."""
    pooler = Pooler(dsn, in_turn=in_turn, own_key=own_key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=pooler.serve, args=(client,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        parts = urlsplit(dsn)
        yield urlunsplit(parts._replace(netloc=f"u:p@127.0.0.1:{listener.getsockname()[1]}"))
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    pooler.close()


def _asked(client: socket.socket) -> bytes:
    """All that a client says before it waits for an answer; EOFError when it says goodbye."""
    asked, kind = b"", b""
    while kind not in (b"Q", b"S"):
        kind, message = _message(client)
        if kind == b"X":
            raise EOFError
        asked += message
    return asked


def _message(source: socket.socket) -> tuple[bytes, bytes]:
    """Its kind, and all of it."""
    head = _exactly(source, 5)
    return head[:1], head + _exactly(source, struct.unpack("!I", head[1:])[0] - 4)


def _exactly(source: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        if not (more := source.recv(size - len(found))):
            raise EOFError
        found += more
    return found
