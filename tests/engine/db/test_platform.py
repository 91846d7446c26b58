"""Sessions to the platform: pinned, direct, and never quietly filtered."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from engine.db.platform import SESSION_SETTINGS, Platform
from engine.errors import FailedPrecondition, Unavailable


def test_every_session_is_pinned_alike_whatever_the_databases_own_settings(empty_dsn: str) -> None:
    name = urlsplit(empty_dsn).path.lstrip("/")
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        for setting in ("DateStyle = 'SQL, DMY'", "IntervalStyle = 'iso_8601'", "TimeZone = 'Asia/Tokyo'"):
            connection.execute(f'ALTER DATABASE "{name}" SET {setting}'.encode())
        connection.execute(f'ALTER DATABASE "{name}" SET search_path = public, pg_temp'.encode())

    with Platform(empty_dsn).connect("test", autocommit=True) as connection:
        found = {setting: connection.execute(f"SHOW {setting}".encode()).fetchone() for setting in SESSION_SETTINGS}
        shown = connection.execute("SHOW application_name").fetchone()

    assert {setting: row[0] for setting, row in found.items() if row} == SESSION_SETTINGS
    assert shown == ("dataops: test",)


def test_no_time_limit_of_the_platforms_ends_a_session_of_ours(empty_dsn: str) -> None:
    name = urlsplit(empty_dsn).path.lstrip("/")
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        known = "SELECT name FROM pg_settings WHERE name ~ '^(statement|transaction|idle_session)_timeout$'"
        for (limit,) in connection.execute(known).fetchall():
            connection.execute(f"ALTER DATABASE \"{name}\" SET {limit} = '150ms'".encode())

    with Platform(empty_dsn).connect("test", autocommit=True) as connection:
        with connection.transaction():
            connection.execute("SELECT pg_sleep(0.3)")
        time.sleep(0.3)
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_read_that_row_security_would_filter_is_an_error(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as owner:
        owner.execute("CREATE TABLE public.t AS SELECT 1 AS a")
        owner.execute("ALTER TABLE public.t ENABLE ROW LEVEL SECURITY")
        owner.execute("CREATE ROLE reader_of_part LOGIN PASSWORD 'p'")
        owner.execute("GRANT SELECT ON public.t TO reader_of_part")
    parts = urlsplit(empty_dsn)
    dsn = urlunsplit(parts._replace(netloc=f"reader_of_part:p@{parts.hostname}:{parts.port}"))
    try:
        with Platform(dsn).connect("test") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM public.t")
    finally:
        with psycopg.connect(empty_dsn, autocommit=True) as owner:
            owner.execute("DROP OWNED BY reader_of_part")
            owner.execute("DROP ROLE reader_of_part")


def test_a_database_that_is_away_has_a_reason_and_shows_no_address() -> None:
    with (
        pytest.raises(Unavailable, match="PLATFORM_UNREACHABLE") as caught,
        Platform("postgresql://nobody:hunter2@127.0.0.1:1/none").connect("test"),
    ):
        pass
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


def test_a_pooler_between_us_is_refused_by_name(empty_dsn: str) -> None:
    with (
        _pooler(empty_dsn) as dsn,
        pytest.raises(FailedPrecondition, match="POOLER_REFUSED"),
        Platform(dsn).connect("test"),
    ):
        pass


@contextlib.contextmanager
def _pooler(dsn: str) -> Iterator[str]:
    """What a pooler does at the start-up: it answers with a backend key of its own making."""
    parts = urlsplit(dsn)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            client, _ = listener.accept()
            with client, socket.create_connection((parts.hostname, parts.port)) as server:
                back = threading.Thread(target=_relay, args=(server, client, True), daemon=True)
                back.start()
                _relay(client, server, False)
                back.join(10)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}")) + (
            "?sslmode=disable&gssencmode=disable"
        )
        thread.join(10)


def _relay(source: socket.socket, target: socket.socket, forge_key: bool) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            at = data.find(b"K\x00\x00\x00\x0c") if forge_key else -1  # BackendKeyData: pid and secret
            if at >= 0:
                data, forge_key = data[: at + 5] + struct.pack("!I", 77_777_777) + data[at + 9 :], False
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
