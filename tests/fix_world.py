"""A whole engine in one process: control and platform databases, artifacts in a folder, a runner for its jobs."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from engine.config import Settings
from engine.resources import open_resources
from examples.stack.servers import PostgresServer
from tests.world import World

_numbers = itertools.count(1)


@pytest.fixture
def make_world(control_dsn: str, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes a world over a platform database; keyword arguments are settings."""
    opened: list[World] = []

    def make(platform_dsn: str, **options: Any) -> World:
        settings = Settings(
            control_dsn=control_dsn,
            platform_dsn=platform_dsn,
            artifacts=str(tmp_path / "artifacts"),
            keys="test " + base64.b64encode(bytes(range(32))).decode(),
            **options,
        )
        world = World(open_resources(settings, name="tests", pool_size=5))
        opened.append(world)
        return world

    yield make
    for world in opened:
        world.resources.close()


@pytest.fixture
def world(make_world: Callable[..., World], platform_dsn: str) -> World:
    """The sample platform, empty."""
    catalog = Path(__file__).parents[1] / "examples" / "platform" / "catalog.toml"
    return make_world(platform_dsn, catalog_file=catalog)


@pytest.fixture
def made(make_world: Callable[..., World], empty_dsn: str) -> Callable[..., World]:
    """Makes a world over tables of one's own: `made("CREATE TABLE public.things (…)")`."""

    def make(schema: str, **options: Any) -> World:
        with psycopg.connect(empty_dsn, autocommit=True) as connection:
            connection.execute(schema.encode())
        return make_world(empty_dsn, **options)

    return make


@pytest.fixture(scope="module")
def shared_world(
    postgres: PostgresServer, control_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """One world for the tests of a module; each makes its own tables by `fresh`."""
    name = f"shared_{next(_numbers)}"
    settings = Settings(
        control_dsn=postgres.create_database(f"{name}_control", control_template),
        platform_dsn=postgres.create_database(f"{name}_platform"),
        artifacts=str(tmp_path_factory.mktemp("artifacts")),
        keys="test " + base64.b64encode(bytes(range(32))).decode(),
    )
    resources = open_resources(settings, name="tests", pool_size=5)
    yield World(resources)
    resources.close()
    for kind in ("control", "platform"):
        postgres.drop_database(f"{name}_{kind}")


@pytest.fixture
def fresh(shared_world: World) -> Callable[[str], World]:
    """`fresh("CREATE TABLE public.t (…)")`: the module's world with these tables only, faster than `made`."""

    def make(schema: str) -> World:
        shared_world.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public;" + schema)
        shared_world.resources.catalogs.forget()
        return shared_world

    return make
