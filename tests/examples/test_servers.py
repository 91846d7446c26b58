"""The embedded servers: what a test and a newcomer may rely on."""

import psycopg
import pytest

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
