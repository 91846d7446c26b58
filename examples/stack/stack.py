"""The whole service on this machine: databases, Valkey, certificates, tokens, server and workers.

``make up`` and ``make demo`` show one, tests run against one. Everything lies in one folder of ours and in the
embedded servers' own; when this process ends, however it ends, nothing of it keeps running.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from dataops.v1 import access_pb2
from dataops_client.client import DataOps
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engine import ids
from engine.admin import keyfile
from engine.clock import utc_now
from engine.config import Settings, load_settings
from engine.db import migrate
from examples.platform import generate
from examples.stack.certificates import make_certificates, write_secret
from examples.stack.processes import ServerStartError, free_port, wait_ready
from examples.stack.programs import ROOT, Program
from examples.stack.servers import PostgresServer, ValkeyServer
from examples.stack.tokens import AUDIENCE, ISSUER, TokenIssuer

SUBJECTS = {"super_admin": "sam", "admin": "alex", "none": "nora"}
"""Who the ready-made tokens are for: the role each subject holds; nora holds none."""

_TOKEN_LIFETIME = timedelta(days=7)  # a stack that is kept running outlives a working day
_START_TRIES = 3  # a free port may be taken by someone else before the server binds it


class Stack:
    """Starts everything on construction, ends everything on ``stop``; use it in a ``with``.

    ``postgres``, ``valkey``: servers to use instead of own ones. ``control_dsn``, ``platform_dsn``: existing
    databases to use instead of making them (the control schema is upgraded, a platform is left as it is).
    ``users``: size of a sample platform that is made here. ``env``: settings on top, as ``DATAOPS_*``; ``wanted``: such
    of a user's, where the stack decides nothing itself; ``refused`` has the names of the others. ``subjects``: further
    callers who get a token, and no role.

    Raises:
        InvalidRequest: CONFIG_INVALID when what is wanted is no setting.
    """

    def __init__(
        self,
        folder: Path,
        *,
        postgres: PostgresServer | None = None,
        valkey: ValkeyServer | None = None,
        control_dsn: str | None = None,
        platform_dsn: str | None = None,
        users: int = 0,
        seed: int = 1,
        workers: int = 1,
        durable: bool = False,
        env: Mapping[str, str] | None = None,
        wanted: Mapping[str, str] | None = None,
        subjects: Sequence[str] = (),
    ) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._own = contextlib.ExitStack()
        self.workers: list[Program] = []
        self._borrowed = postgres is not None
        try:
            self.postgres = postgres or self._own.enter_context(PostgresServer(durable=durable))
            self.valkey = valkey or self._own.enter_context(ValkeyServer())
            self.control_dsn = control_dsn or self._new_database("control")
            self.platform_dsn = platform_dsn or self._new_platform(users, seed)
            migrate.upgrade(self.control_dsn)
            self.issuer = TokenIssuer(self.folder)
            self.tokens = {role: self._token(role) for role in (*SUBJECTS, *subjects)}
            self.artifacts = self.folder / "artifacts"
            own = self._settings(sample=platform_dsn is None) | dict(env or {})
            self.refused = sorted((wanted or {}).keys() & own.keys())
            self.env = dict(wanted or {}) | own
            if wanted:
                load_settings(self.env)  # said here, not in the log of a server that does not start
            if control_dsn is None:  # without its database no sealed part can be opened again
                self._own.callback(shutil.rmtree, self.artifacts, ignore_errors=True)
            self._own.callback(self._stop_programs)
            self._start_server_somewhere()
            self._grant_roles()
            for _ in range(workers):
                self.start_worker()
            for worker in self.workers:
                self._wait_for_worker(worker)
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
    def address(self) -> str:
        """Where the server listens; it keeps its address when it is started again."""
        return self.env["DATAOPS_LISTEN"]

    @property
    def settings(self) -> Settings:
        """The settings that server and workers run with, for a test that opens the engine itself."""
        return load_settings(self.env)

    @property
    def programs(self) -> list[Program]:
        """The server and every worker started so far."""
        return [self.server, *self.workers]

    def start_server(self) -> None:
        """Start the server, after ``kill_server`` say, and wait until it serves."""
        self.server.start()
        if self.server.process is None:
            raise RuntimeError("the server was not started")
        wait_ready(self.server.process, self._serves, what="the server", log=self.server.log)

    def kill_server(self) -> None:
        """SIGKILL the server; workers go on."""
        self.server.kill()

    def start_worker(self, env: Mapping[str, str] | None = None) -> Program:
        """Start one more worker, with settings of its own on top, and do not wait; it is also in ``workers``."""
        number = len(self.workers) + 1
        worker = self._program(f"worker-{number}", "workers", env)
        self.workers.append(worker)
        worker.start()
        return worker

    def client(self, role: str | None = "super_admin") -> DataOps:
        """A client of the server as the ready-made caller of that role; None brings no token."""
        token = self.tokens[role] if role else None
        return DataOps.connect(self.address, ca_file=Path(self.ca_file), token=token, client_name="stack")

    def describe(self) -> dict[str, object]:
        """What build/stack.json holds."""
        return {
            "address": self.address,
            "ca_file": self.ca_file,
            "tokens": self.tokens,
            "control_dsn": self.control_dsn,
            "platform_dsn": self.platform_dsn,
            "artifacts": str(self.artifacts),
        }

    def stop(self) -> None:
        """End workers, server and own databases, in this order; calling it again does nothing."""
        self._own.close()

    def token_file(self, role: str) -> Path:
        """The ready-made token of that role or subject, in a file of its own for shell commands (mode 0600)."""
        return self.folder / f"{role}.token"

    def _token(self, role: str) -> str:
        token = self.issuer.token(SUBJECTS.get(role, role), lifetime=_TOKEN_LIFETIME)
        write_secret(self.token_file(role), token.encode())
        return token

    def _stop_programs(self) -> None:
        for program in reversed(self.workers):
            program.stop()
        if hasattr(self, "server"):
            self.server.stop()

    def _new_database(self, kind: str) -> str:
        name = f"{kind}_{secrets.token_hex(4)}"
        dsn = self.postgres.create_database(name)
        if self._borrowed:
            self._own.callback(self.postgres.drop_database, name)
        return dsn

    def _new_platform(self, users: int, seed: int) -> str:
        dsn = self._new_database("platform")
        generate.create_schema(dsn)
        if users:
            generate.load(dsn, users=users, seed=seed)
        return dsn

    def _settings(self, *, sample: bool) -> dict[str, str]:
        certificates = make_certificates(self.folder)
        self.ca_file = str(certificates.ca_file)
        key_file = self.folder / "keys"
        ring = f"local-1 {base64.b64encode(secrets.token_bytes(32)).decode()}\n"
        write_secret(key_file, ring.encode())
        self.recovery_sheet = keyfile.sheet(ring, utc_now(), artifacts=str(self.artifacts), file=key_file)
        """The keys and how backups are read with nothing else: for a terminal, or a file that only we can read."""
        values = {
            "CONTROL_DSN": self.control_dsn,
            "PLATFORM_DSN": self.platform_dsn,
            "REDIS_URL": self.valkey.url,
            "ARTIFACTS": str(self.artifacts),
            "KEY_FILE": str(key_file),
            "LISTEN": f"127.0.0.1:{free_port()}",
            "TLS_CERT_FILE": str(certificates.cert_file),
            "TLS_KEY_FILE": str(certificates.key_file),
            "JWT_ISSUER": ISSUER,
            "JWT_AUDIENCE": AUDIENCE,
            "JWKS_FILE": str(self.issuer.jwks_file),
            "BOOTSTRAP_ADMINS": SUBJECTS["super_admin"],
        }
        if sample:
            values["CATALOG_FILE"] = str(generate.CATALOG)
        return {f"DATAOPS_{name}": value for name, value in values.items()}

    def _program(self, name: str, module: str, env: Mapping[str, str] | None = None) -> Program:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("DATAOPS_")}
        # this checkout's code, whichever checkout the virtual environment was made for
        path = [str(ROOT), str(ROOT / "clients" / "python"), *filter(None, [inherited.get("PYTHONPATH")])]
        inherited["PYTHONPATH"] = os.pathsep.join(path)
        inherited["PYTHONUNBUFFERED"] = "1"
        return Program(name, module, inherited | self.env | dict(env or {}), self.folder / f"{name}.log")

    def _start_server_somewhere(self) -> None:
        for attempt in range(1, _START_TRIES + 1):
            self.server = self._program("server", "server")
            try:
                self.start_server()
                return
            except ServerStartError as error:
                if attempt == _START_TRIES or "LISTEN_FAILED" not in str(error):
                    raise
                self.env["DATAOPS_LISTEN"] = f"127.0.0.1:{free_port()}"

    def _serves(self) -> bool:
        request = health_pb2.HealthCheckRequest()
        # without a pool of its own a channel inherits the back-off of the failed ones before it, up to 120 s
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(self.address, self._tls(), options) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _wait_for_worker(self, worker: Program) -> None:
        if worker.process is None:
            raise RuntimeError(f"{worker.name} was not started")
        wait_ready(worker.process, lambda: b"worker_ready" in worker.log.read_bytes(), what=worker.name, log=worker.log)

    def _tls(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(Path(self.ca_file).read_bytes())

    def _grant_roles(self) -> None:
        with self.client() as client:
            for role in ("admin",):
                request = access_pb2.GrantRoleRequest(
                    request_id=str(ids.new_id()), issuer=ISSUER, subject=SUBJECTS[role], role=role
                )
                client.access.GrantRole(request, timeout=30)
