"""Real servers and fresh databases for tests.

One PostgreSQL and one Valkey per pytest process (so one each per xdist worker), started at first use. A test
that asks for a DSN gets a database of its own, made from a template in some 40 ms and dropped afterwards.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import psycopg
import pytest

from examples.stack.servers import PostgresServer, ValkeyServer

_numbers = itertools.count(1)
_PLATFORM_SCHEMA = Path(__file__).parent.parent / "examples" / "platform" / "schema.sql"


def skip_or_fail(reason: str) -> NoReturn:
    """Skip on a developer's machine; in CI, where nothing may be missing, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"in CI this may not be skipped: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The PostgreSQL of this pytest process; tests make databases in it, or ask for a DSN below."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """The Valkey of this pytest process; a test may flush or restart it, so nobody relies on its content."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="session")
def control_template(postgres: PostgresServer) -> str:
    """A database with the control schema at head, made by running every migration once."""
    if importlib.util.find_spec("engine.db") is None or importlib.util.find_spec("engine.db.migrate") is None:
        skip_or_fail("engine.db.migrate does not exist yet")
    from engine.db import migrate

    migrate.upgrade(postgres.create_database("template_control"))
    return "template_control"


@pytest.fixture(scope="session")
def platform_template(postgres: PostgresServer) -> str:
    """A database with the sample platform's empty tables."""
    if not _PLATFORM_SCHEMA.exists():
        skip_or_fail("examples/platform/schema.sql does not exist yet")
    with psycopg.connect(postgres.create_database("template_platform"), autocommit=True) as connection:
        connection.execute(_PLATFORM_SCHEMA.read_bytes())
    return "template_platform"


@pytest.fixture
def control_dsn(postgres: PostgresServer, control_template: str) -> Iterator[str]:
    """A fresh database with the control schema at head."""
    yield from _fresh_database(postgres, "control", control_template)


@pytest.fixture
def platform_dsn(postgres: PostgresServer, platform_template: str) -> Iterator[str]:
    """A fresh database with the sample platform's empty tables."""
    yield from _fresh_database(postgres, "platform", platform_template)


@pytest.fixture
def empty_dsn(postgres: PostgresServer) -> Iterator[str]:
    """A fresh, empty database."""
    yield from _fresh_database(postgres, "empty", "template1")


def _fresh_database(postgres: PostgresServer, kind: str, template: str) -> Iterator[str]:
    name = f"{kind}_{next(_numbers)}"
    yield postgres.create_database(name, template)
    postgres.drop_database(name)
