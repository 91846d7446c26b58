"""Real worker processes that are killed, stopped and paused at exact points."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.config import Settings
from examples.stack.processes import end, spawn
from tests.engine.jobs.kit import wait_until

ROOT = Path(__file__).parent.parent


@dataclass
class WorkerProcess:
    """One `tests.faults.worker`; `gates` are the fault points at which it waits for the test."""

    process: subprocess.Popen[bytes]
    log: Path
    gates: dict[str, Path]

    def wait_at(self, point: str) -> None:
        """Until the process has come to the fault point."""
        gate = self.gates[point]
        wait_until(gate.with_name(gate.name + ".reached").exists, 60, lambda: self.log.read_text()[-4000:])

    def wait_ready(self) -> None:
        wait_until(lambda: "worker_ready" in self.log.read_text(), 60, lambda: self.log.read_text()[-4000:])

    def open_gate(self, point: str) -> None:
        self.gates[point].touch()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def wait(self) -> int:
        """Its exit code, within five times the 10 s that are promised."""
        return self.process.wait(50)


Start = Callable[..., WorkerProcess]


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Start]:
    """Starts workers: `start_worker(settings, "effect.batch2")` waits there, `…, kill="effect.batch2"` dies there."""
    running: list[subprocess.Popen[bytes]] = []

    def start(settings: Settings, *waits: str, kill: str = "") -> WorkerProcess:
        number = len(running)
        gates = {point: tmp_path / f"gate-{number}-{point}" for point in waits}
        faults = [f"{point}=wait:{path}" for point, path in gates.items()]
        faults += [f"{kill}=kill"] if kill else []
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DATAOPS_")}
        environment |= {
            f"DATAOPS_{name.upper()}": str(value)
            for name, value in settings.model_dump(exclude_defaults=True).items()
            if value is not None
        }
        environment["DATAOPS_FAULT_AT"] = ",".join(faults)
        log = tmp_path / f"worker-{number}.log"
        process = spawn(
            [sys.executable, "-m", "tests.faults.worker"],
            death_signal=signal.SIGKILL,
            env=environment,
            cwd=ROOT,
            log=log,
        )
        running.append(process)
        return WorkerProcess(process, log, gates)

    yield start
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
        end(process, ((signal.SIGKILL, 10.0),))
