"""Real servers and fresh databases for tests.

One PostgreSQL and one Valkey per pytest process (so one each per xdist worker), started at first use. A test
that asks for a DSN gets a database of its own, made from a template in some 40 ms and dropped afterwards.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from examples.platform import generate
from examples.stack.servers import PostgresServer, ValkeyServer

if TYPE_CHECKING:
    from examples.stack.stack import Stack

_numbers = itertools.count(1)


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
    from engine.db import migrate

    migrate.upgrade(postgres.create_database("template_control"))
    return "template_control"


@pytest.fixture(scope="session")
def platform_template(postgres: PostgresServer) -> str:
    """A database with the sample platform's empty tables."""
    generate.create_schema(postgres.create_database("template_platform"))
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


@pytest.fixture
def make_stack(
    postgres: PostgresServer,
    valkey: ValkeyServer,
    control_template: str,
    platform_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., Stack]]:
    """Starts stacks of server and workers on this process's servers, each on fresh databases: for tests that
    break something. Arguments are Stack's; ``users`` loads that many into the sample platform."""
    with contextlib.ExitStack() as started:

        def make(**options: Any) -> Stack:
            return started.enter_context(
                _stack(postgres, valkey, control_template, platform_template, tmp_path_factory, **options)
            )

        yield make


@pytest.fixture(scope="module")
def stack(
    postgres: PostgresServer,
    valkey: ValkeyServer,
    control_template: str,
    platform_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """One stack for the tests of a module, with 1,000 users of seed 1; they must leave it running."""
    with _stack(postgres, valkey, control_template, platform_template, tmp_path_factory, users=1_000) as running:
        yield running


@contextlib.contextmanager
def _stack(
    postgres: PostgresServer,
    valkey: ValkeyServer,
    control_template: str,
    platform_template: str,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    users: int = 0,
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[Stack]:
    from examples.stack.stack import Stack  # it imports grpc, which most tests can do without

    folder = tmp_path_factory.mktemp("stack")
    with (
        contextlib.contextmanager(_fresh_database)(postgres, "control", control_template) as control_dsn,
        contextlib.contextmanager(_fresh_database)(postgres, "platform", platform_template) as platform_dsn,
    ):
        if users:
            generate.load(platform_dsn, users=users)
        options = {"postgres": postgres, "valkey": valkey, **options}
        env = {"DATAOPS_CATALOG_FILE": str(generate.CATALOG), **(env or {})}
        with Stack(folder, control_dsn=control_dsn, platform_dsn=platform_dsn, env=env, **options) as running:
            yield running


def _fresh_database(postgres: PostgresServer, kind: str, template: str) -> Iterator[str]:
    name = f"{kind}_{next(_numbers)}"
    yield postgres.create_database(name, template)
    postgres.drop_database(name)
