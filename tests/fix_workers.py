"""Real worker processes that are killed, stopped and paused at exact points."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engine.config import Settings
from tests.engine.jobs.kit import wait_until
from workers.app import ROLLBACK_SECONDS

ROOT = Path(__file__).parent.parent


class Nursery:
    """The other side of `tests.faults.nursery`."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DATAOPS_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=ROOT,
            text=True,
        )

    def ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """The nursery ends at the end of its input, and the workers with it."""
        with self._process:
            pass


@dataclass
class WorkerProcess:
    """One worker; `gates` are the fault points at which it waits for the test."""

    nursery: Nursery
    pid: int
    log: Path
    gates: dict[str, Path]
    code: int | None = field(default=None)

    def wait_ready(self) -> None:
        self._wait(lambda: "worker_ready" in self.log.read_text())

    def wait_at(self, point: str) -> None:
        """Until the process has come to the fault point."""
        self._wait(self._reached(point).exists)

    def wait_interrupted(self) -> None:
        """Until its job is to stop at its next look: a cancel or a signal has been heard."""
        self._wait(lambda: "job_interrupted" in self.log.read_text())

    def open_gate(self, point: str) -> None:
        self.gates[point].touch()

    def close_gate(self, point: str) -> None:
        """Make it wait there once more."""
        self.gates[point].unlink()
        self._reached(point).unlink()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        if self.code is None:
            self.code = self.nursery.ask({"poll": self.pid})
        return self.code

    def wait(self) -> int:
        """Its exit code, within five times the 10 s that are promised; `start_worker` gives a job as long to stop."""
        self._wait(lambda: self.poll() is not None, 50)
        assert self.code is not None
        return self.code

    def _reached(self, point: str) -> Path:
        return self.gates[point].with_name(self.gates[point].name + ".reached")

    def _wait(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        wait_until(condition, seconds, lambda: self.log.read_text()[-4000:])


Start = Callable[..., WorkerProcess]


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def start_worker(tmp_path: Path, nursery: Nursery) -> Iterator[Start]:
    """Starts workers: `start_worker(settings, "effect.batch2")` waits there, `…, kill="effect.batch2"` dies there."""
    running: list[WorkerProcess] = []

    def start(
        settings: Settings, *waits: str, kill: str = "", rollback_seconds: float = 5 * ROLLBACK_SECONDS
    ) -> WorkerProcess:
        number = len(running)
        gates = {point: tmp_path / f"gate-{number}-{point}" for point in waits}
        faults = [f"{point}=wait:{path}" for point, path in gates.items()] + ([f"{kill}=kill"] if kill else [])
        environment = {
            f"DATAOPS_{name.upper()}": str(value) for name, value in settings.model_dump(exclude_defaults=True).items()
        }
        environment["DATAOPS_FAULT_AT"] = ",".join(faults)
        log = tmp_path / f"worker-{number}.log"
        log.touch()
        request = {"start": environment, "log": str(log), "rollback_seconds": rollback_seconds}
        worker = WorkerProcess(nursery, nursery.ask(request), log, gates)
        running.append(worker)
        return worker

    yield start
    for worker in running:
        while worker.poll() is None:
            worker.signal(signal.SIGKILL)
            time.sleep(0.01)
