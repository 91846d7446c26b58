"""What ``up`` and ``demo`` share: they stop everything at a signal, and die with ``make`` when told to."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from examples.stack.programs import ROOT

BUILD = ROOT / "build"
_PR_SET_PDEATHSIG = 1


class Stopped(BaseException):
    """SIGINT or SIGTERM came; not an Exception, so that no handler on the way swallows it."""


def stop_on_signals() -> None:
    """Make SIGINT, SIGTERM and SIGHUP raise Stopped once; later ones are ignored, so that clean-up completes."""

    def stop(number: int, frame: FrameType | None) -> None:
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sig, signal.SIG_IGN)
        raise Stopped

    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, stop)


def die_with_parent() -> None:
    """Get SIGTERM when our parent ends: killing ``make`` must not leave its launcher running."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        raise Stopped


@contextmanager
def private_folder(build: Path, name: str) -> Iterator[Path]:
    """``build/NAME``, empty, readable by us alone, and ours until the end; refused while another run holds it."""
    build.mkdir(exist_ok=True)
    with (build / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"another run holds {build / name}: stop it first")
        folder = build / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        yield folder
