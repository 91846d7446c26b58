"""Fixtures of the job engine: databases with the test kinds' tables, emptied for every test."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from engine.config import Settings
from examples.stack.servers import PostgresServer
from tests.engine.jobs import kit

_EMPTY_CONTROL = (
    "TRUNCATE dataops.jobs, dataops.job_events, dataops.job_claims, dataops.leases, dataops.webhooks,"
    " dataops.webhook_deliveries, public.things"
)
_EMPTY_PLATFORM = "DROP SCHEMA IF EXISTS dataops_work CASCADE; TRUNCATE public.effects"


@pytest.fixture(scope="session")
def job_databases(postgres: PostgresServer, control_template: str) -> tuple[str, str]:
    """Control and platform database of all tests of jobs: emptying them takes a tenth of making new ones."""
    control, platform = postgres.create_database("jobs_control", control_template), postgres.create_database("jobs")
    kit.prepare(control, platform)
    return control, platform


@pytest.fixture
def job_settings(job_databases: tuple[str, str], tmp_path: Path) -> Settings:
    """Without Redis. Leases stay long, so that a busy machine loses none; `bench.lease_runs_out` makes time pass."""
    for dsn, statements in zip(job_databases, (_EMPTY_CONTROL, _EMPTY_PLATFORM), strict=True):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(statements)
    return Settings(
        control_dsn=job_databases[0],
        platform_dsn=job_databases[1],
        artifacts=str(tmp_path / "artifacts"),
        keys="test " + base64.b64encode(bytes(range(32))).decode(),
        heartbeat_seconds=0.3,
        look_seconds=0.2,
        fault_hooks=True,
    )


@pytest.fixture
def bench(job_settings: Settings) -> Iterator[kit.Bench]:
    with kit.open_bench(job_settings) as bench:
        yield bench
