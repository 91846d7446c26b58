"""The command in a process of its own: at a terminal that answers its questions, or interrupted on its way."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_HEARING = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    " runpy.run_module('dataops_client', run_name='__main__', alter_sys=True)"
)
"""Who starts the tests in the background has them ignore Ctrl-C, and with them every process they start. It is undone
there and not by `preexec_fn`, for which Python forks: gRPC's threads, which the tests have, do not bear that (seen:
`epoll_wait error: Bad file descriptor`, and the command never began)."""
_COMMAND = (sys.executable, "-c", _HEARING)

_HEARD_SECONDS = 10.0
"""After so much silence a Ctrl-C is typed again, as a person would: Python passes over one that comes while it is in
a callback of gRPC's or in a destructor. Long enough for a slow command that has heard it, to end in peace."""


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "clients" / "python"), "TERM": "xterm-256color", "COLUMNS": "200"}


def at_terminal(arguments: Sequence[str], question: str, answer: bytes, *, interrupts: bool = False) -> tuple[int, str]:
    """The exit code, and what stood on the screen; `answer` is typed when `question` stands there."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*_COMMAND, *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment(),
        start_new_session=True,
    )
    os.close(terminal)
    screen = b""
    answered = False
    while True:
        if answered and interrupts and not select.select([controller], [], [], _HEARD_SECONDS)[0]:
            # one that comes between the question and the wait for its answer is not heard: a person types it again
            process.send_signal(signal.SIGINT)
            continue
        try:
            screen += os.read(controller, 100_000)
        except OSError:  # the far end is closed: the process has ended
            break
        if not answered and question.encode() in screen:
            answered = True
            if interrupts:
                process.send_signal(signal.SIGINT)
            else:
                os.write(controller, answer)
    os.close(controller)
    return process.wait(60), screen.decode().replace("\r\n", "\n")


def interrupted(arguments: Sequence[str], when: Callable[[], bool]) -> tuple[int, str, str]:
    """Exit code, standard output and error of a command that gets Ctrl-C as soon as `when` holds."""
    process = subprocess.Popen(
        [*_COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    deadline = time.monotonic() + 60
    try:
        while not when():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for _ in range(6):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                out, err = process.communicate(timeout=_HEARD_SECONDS)
                break
        else:
            raise AssertionError("it goes on")
    finally:
        process.kill()
    return process.returncode, out, err
