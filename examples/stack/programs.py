"""Our own server and worker processes as children: started, watched, paused, ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from examples.stack.processes import end, log_tail, spawn

ROOT = Path(__file__).resolve().parent.parent.parent
_PATIENCE = 30.0  # seconds; a draining server is given 20, a worker 10


class Program:
    """One ``python -m MODULE`` with its own log; a test may kill, pause or start it again.

    It dies with us (SIGKILL by the kernel), so that killing the launcher leaves nothing behind.
    """

    def __init__(self, name: str, module: str, env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.module = module
        self.env = dict(env)
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, if it does not run; readiness is the caller's to wait for."""
        if self.alive:
            return
        self.process = spawn(
            [sys.executable, "-m", self.module],
            death_signal=signal.SIGKILL,
            env=self.env,
            cwd=ROOT,
            log=self.log,
        )

    @property
    def alive(self) -> bool:
        """Whether the process has not ended; a paused one is alive."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """The running process's id."""
        return self._running().pid

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs or before it was started."""
        return None if self.process is None else self.process.poll()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def terminate(self) -> int:
        """SIGTERM, wait for the orderly end, SIGKILL if it does not come; returns the exit code."""
        return end(self._running(), ((signal.SIGTERM, _PATIENCE),))

    def pause(self) -> None:
        """SIGSTOP: to everyone else it looks hung."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after ``pause``."""
        self._running().send_signal(signal.SIGCONT)

    def wait(self, timeout: float) -> int:
        """Wait for its end; raises subprocess.TimeoutExpired."""
        if self.process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self.process.wait(timeout)

    def stop(self) -> None:
        """End it in good order whatever state it is in; calling it again does nothing."""
        if self.alive:
            self.resume()
            self.terminate()

    def tail(self) -> str:
        """The end of its log, for an error message."""
        return log_tail(self.log)

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"{self.name} is not running{self.tail()}")
        return self.process
