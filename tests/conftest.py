"""Fixtures of the whole suite; the servers' are in fix_stack."""

import gc
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

# grpc reads it once, when it is first imported; a server of ours in this process refuses to start without it.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-PSK-AES256-CBC-SHA"

from hypothesis import HealthCheck, settings


def _work_in_memory() -> None:
    """Put temporary files, the databases' above all, into memory if it has room and TMPDIR names no other place.

    The suite makes some two thousand databases of three hundred files each; on a disk's filesystem most of its time
    would go into their metadata.
    """
    folder, room = Path("/dev/shm"), 4 << 30  # bytes; a whole run takes less than 1 GB
    if "TMPDIR" in os.environ or not os.access(folder, os.W_OK | os.X_OK):
        return
    found = os.statvfs(folder)
    free = min(found.f_bavail * found.f_frsize, psutil.virtual_memory().available)
    if free >= room and not found.f_flag & os.ST_NOEXEC:  # root's servers are copied there and run
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


_work_in_memory()

pytest_plugins = ["tests.fix_stack", "tests.fix_jobs", "tests.fix_workers", "tests.fix_world"]


def pytest_collection_finish() -> None:
    """Five thousand collected tests are no garbage. To look through them again and again took 11 and 13 % of the CPU of
    two files."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


# No deadline: two cores are shared with databases. `make fuzz` loads the second profile.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", parent=settings.get_profile("default"), max_examples=5_000)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A command that a test runs in this process sends the process's log to the stream that stands for its standard
    error. It is closed after the test, and whatever is logged later would be told as an error of logging."""
    root = logging.getLogger()
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    yield
    root.handlers[:], (sys.excepthook, threading.excepthook) = handlers, hooks
    root.setLevel(level)
