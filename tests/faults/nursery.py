"""Real worker processes, forked from one that has imported everything: a start takes 50 ms, not 2 s of a busy core.

`python -m tests.faults.nursery` reads one JSON request a line and answers each with one line:
`{"start": {environment}, "log": path, "rollback_seconds": s}` -> pid, `{"poll": pid}` -> exit code or null.
The workers know the test kinds and the real ones. They die with the nursery, and it with the test that started it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from engine import telemetry
from engine.config import load_settings
from engine.jobs import registry
from tests.engine.jobs import kit
from workers import app

_PR_SET_PDEATHSIG = 1


def main() -> None:
    # A thread made by an import would be missing in the forked process. pyarrow's allocator starts its own again.
    threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    assert [name for name in threads if name != "jemalloc_bg_thd"][1:] == [], threads
    for line in sys.stdin:
        request = json.loads(line)
        answer = _poll(request["poll"]) if "poll" in request else _start(request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _start(request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        _work(request)
    return pid


def _poll(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _work(request: dict[str, Any]) -> NoReturn:
    code = 70
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(log, number)
        os.environ.update(request["start"])
        app.ROLLBACK_SECONDS = request["rollback_seconds"]
        telemetry.configure("text")
        code = app.run(load_settings(), {**registry.handlers(), **kit.kinds()})
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
