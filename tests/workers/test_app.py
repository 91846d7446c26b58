"""The worker process: when it starts, when it refuses, how it ends."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg

from engine.config import Settings
from tests.fix_workers import ROOT, Start


def test_a_worker_refuses_a_database_without_the_control_schema(empty_dsn: str, tmp_path: Path) -> None:
    environment = os.environ | {
        "DATAOPS_CONTROL_DSN": empty_dsn,
        "DATAOPS_PLATFORM_DSN": empty_dsn,
        "DATAOPS_ARTIFACTS": str(tmp_path),
        "DATAOPS_KEYS": "test " + base64.b64encode(bytes(range(32))).decode(),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "workers"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )

    assert ended.returncode == 1
    assert "SCHEMA_REVISION" in ended.stderr
    assert empty_dsn not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_workers_never_import_grpc() -> None:
    # A channel that exists where a process is started can hang it; and a worker image has no grpcio.
    code = "import sys, workers.app, workers.__main__; print([m for m in sys.modules if m.split('.')[0] == 'grpc'])"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert (ended.stdout.strip(), ended.returncode) == ("[]", 0), ended.stderr


def test_an_idle_worker_ends_in_good_order_and_leaves_no_lease(job_settings: Settings, start_worker: Start) -> None:
    settings = job_settings.model_copy(update={"sweep_seconds": 0.2})
    worker = start_worker(settings)
    worker.wait_ready()

    worker.signal(signal.SIGTERM)

    assert worker.wait() == 0, worker.log.read_text()
    with psycopg.connect(settings.control_dsn) as connection:
        held = connection.execute("SELECT count(*) FROM dataops.leases WHERE expires_at > clock_timestamp()").fetchone()
    assert held == (0,)
