"""Fixtures of the job engine: databases with the test kinds' tables, settings with short leases."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import Settings
from tests.engine.jobs import kit


@pytest.fixture
def job_settings(control_dsn: str, empty_dsn: str, tmp_path: Path) -> Settings:
    """Without Redis; a worker that is silent for 1.5 s has lost its job."""
    kit.prepare(control_dsn, empty_dsn)
    return Settings(
        control_dsn=control_dsn,
        platform_dsn=empty_dsn,
        artifacts=str(tmp_path / "artifacts"),
        keys="test " + base64.b64encode(bytes(range(32))).decode(),
        lease_seconds=1.5,
        heartbeat_seconds=0.3,
        look_seconds=0.2,
        fault_hooks=True,
    )


@pytest.fixture
def bench(job_settings: Settings) -> Iterator[kit.Bench]:
    with kit.open_bench(job_settings) as bench:
        yield bench
