"""Start programs that cannot outlive us, as a chosen user, in folders that user can reach.

Nothing outside our own new folder is changed: no account is made, no parent folder's mode is touched.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_LAUNCH = Path(__file__).with_name("_launch.py")
_UNPRIVILEGED = ("nobody", "daemon", "www-data", "games")
_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - mkdtemp makes our folder in it
_FOLDER_PREFIX = "dataops-"
_MAX_SOCKET_FOLDER = 80  # sun_path holds 108 bytes; "/.s.PGSQL.65535.lock" takes 20 of them
_LOWEST_PORT = 20_000
_ABANDONED_AFTER = 60.0  # seconds; younger folders may not have taken their lock yet


class ServerStartError(RuntimeError):
    """A program we started ended, or was not ready in time; the message ends with the tail of its log."""


@dataclass(frozen=True)
class Account:
    """An existing operating system user."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """The user that servers run as: None means our own, which is right for everyone but root.

    PostgreSQL refuses to run as root, so root gets the first well-known user that exists.
    """
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise ServerStartError(f"running as root and none of the users {', '.join(_UNPRIVILEGED)} exists")


def reachable(path: Path, account: Account | None) -> bool:
    """Whether ``account`` (None: ourselves) may enter every parent of ``path`` and read and enter it."""
    if account is None:
        return os.access(path, os.R_OK | os.X_OK)
    resolved = path.resolve()
    return all(_may_enter(part, account) for part in (resolved, *resolved.parents))


def _may_enter(path: Path, account: Account) -> bool:
    info = path.stat()
    if info.st_uid == account.uid:
        return bool(info.st_mode & stat.S_IXUSR)
    if info.st_gid == account.gid:
        return bool(info.st_mode & stat.S_IXGRP)
    return bool(info.st_mode & stat.S_IXOTH)


class RunFolder:
    """A fresh folder for one server's data and sockets, owned by its user, removed at the end.

    It holds a lock for as long as we live, so that a later start can tell an abandoned folder (its starter
    was killed) from one in use, and remove it.
    """

    def __init__(self, kind: str, account: Account | None) -> None:
        base = _folder_base(account)
        _remove_abandoned(base)
        self.path = Path(tempfile.mkdtemp(prefix=f"{_FOLDER_PREFIX}{kind}-", dir=base))
        self._lock: IO[str] | None = (self.path / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if account is not None:
            os.chown(self.path, account.uid, account.gid)

    def remove(self) -> None:
        """Delete the folder and all in it; calling it again does nothing."""
        if self._lock is None:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()
        self._lock = None


def _folder_base(account: Account | None) -> Path:
    candidates = dict.fromkeys((Path(tempfile.gettempdir()), *map(Path, _TEMPORARY)))
    for base in candidates:
        if len(os.fsencode(base)) + 24 > _MAX_SOCKET_FOLDER or not os.access(base, os.W_OK | os.X_OK):
            continue
        if reachable(base, account):
            return base
    raise ServerStartError(f"no usable temporary folder among {', '.join(map(str, candidates))}: set TMPDIR")


def _remove_abandoned(base: Path) -> None:
    for folder in base.glob(f"{_FOLDER_PREFIX}*-*"):
        lock = folder / "lock"
        try:
            if lock.stat().st_uid != os.geteuid() or time.time() - folder.stat().st_ctime < _ABANDONED_AFTER:
                continue
            with lock.open("r+") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use, not ours, or gone meanwhile
            continue


def spawn(
    argv: Sequence[str | Path],
    *,
    death_signal: signal.Signals,
    account: Account | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``argv`` in its own session; the kernel sends it ``death_signal`` when we end, however we end.

    Main thread only: the kernel ties the signal to the *thread* that forks, so a helper thread's end would
    take the server down with it. Output goes to ``log`` (appended), or nowhere.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("servers are started from the main thread only, or they die with the thread")
    uid, gid = (account.uid, account.gid) if account else (-1, -1)
    ids = [str(int(death_signal)), str(os.getpid()), str(uid), str(gid)]
    command = [sys.executable, "-I", "-S", str(_LAUNCH), *ids, *map(str, argv)]
    output = log.open("ab") if log else None
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output or subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            start_new_session=True,
        )
    finally:
        if output:
            output.close()


def end(process: subprocess.Popen[bytes], steps: Sequence[tuple[signal.Signals, float]]) -> int:
    """Send each signal in turn, waiting its seconds for the process to end; the last resort is SIGKILL."""
    for sig, patience in steps:
        if process.poll() is not None:
            break
        process.send_signal(sig)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    if process.poll() is None:
        process.kill()
    return process.wait()


def wait_ready(
    process: subprocess.Popen[bytes],
    ready: Callable[[], bool],
    *,
    what: str,
    log: Path,
    timeout: float = 60.0,
) -> None:
    """Wait until ``ready`` says so; ServerStartError when the process ends or ``timeout`` passes first."""
    deadline = time.monotonic() + timeout
    while not ready():
        if process.poll() is not None:
            raise ServerStartError(f"{what} ended with code {process.returncode}{log_tail(log)}")
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise ServerStartError(f"{what} was not ready in {timeout:.0f} s{log_tail(log)}")
        time.sleep(0.02)


def log_tail(log: Path, lines: int = 25) -> str:
    """The end of a log, on lines of its own, or nothing."""
    if not log.exists():
        return ""
    text = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n" + "\n".join(f"    {line}" for line in text) if text else ""


def free_port() -> int:
    """A TCP port that was free on loopback a moment ago; who binds it must be ready to try another.

    Not of those that the system gives to whom names none: while a server of ours is restarted, another program's
    socket could take its port, and a restart has no other to try.
    """
    for _ in range(20):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", _LOWEST_PORT + secrets.randbelow(_given_from() - _LOWEST_PORT)))
            return int(probe.getsockname()[1])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _given_from() -> int:
    """The first port that the system may give by itself."""
    try:
        found = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):  # not Linux: 49152 by RFC 6335
        return 49_152
    return max(found, _LOWEST_PORT + 1_000)
