"""``make up``: what it leaves to find, what it leaves behind, and what it never touches."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from examples.stack.certificates import make_certificates
from examples.stack.processes import Account, unprivileged_account
from examples.stack.programs import ROOT
from examples.stack.servers import postgres_bin

_READY = 180.0  # seconds: a start needs some 5 s of a core, and tests share two cores that others may keep busy
_GONE = 30.0


class Launched:
    """A running ``up`` of our own, in a build folder of its own."""

    def __init__(
        self,
        build: Path,
        *,
        prefix: Sequence[str] = (),
        options: Sequence[str] = (),
        platform_dsn: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.build = build
        self.stack_file = build / "stack.json"
        self.output = build.parent / f"{build.name}.out"
        command = [*prefix, sys.executable, "-m", "examples.stack.up"]
        command += ["--build", str(build), "--users", "50", "--workers", "1", *options]
        outside = {name: value for name, value in os.environ.items() if not name.startswith("DATAOPS_")}
        env = outside | dict(settings or {})
        if platform_dsn:
            env["PLATFORM_DSN"] = platform_dsn
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=output, stderr=output, start_new_session=True
            )

    def wait_ready(self) -> dict[str, object]:
        _wait(lambda: self.stack_file.exists() or self.process.poll() is not None, _READY)
        assert self.process.poll() is None, self.output.read_text()
        facts: dict[str, object] = json.loads(self.stack_file.read_text())
        return facts

    def family(self) -> list[psutil.Process]:
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def _gone(family: list[psutil.Process]) -> bool:
    return not any(_runs(process) for process in family)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _environments(family: list[psutil.Process], ends: Sequence[list[str]]) -> Iterator[dict[str, str]]:
    """Of those whose command ends so; backends of PostgreSQL come and go meanwhile."""
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.cmdline()[-2:] in ends:
                yield process.environ()


def _uids(family: list[psutil.Process]) -> set[int]:
    found = set()
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.add(process.uids().real)
    return found


def _become(account: Account) -> list[str]:
    """The words before a command that run it as ``account``.

    Where the interpreter lies in root's home, as pyenv's does, the account is lent the right to read, no more.
    """
    plain = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
    reading = [*plain, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    same = ["-c", "import subprocess, sys; sys.exit(sys.argv[1] != sys.version)", sys.version]
    for words in (plain, reading):
        with contextlib.suppress(OSError):
            tried = subprocess.run([*words, sys.executable, *same], cwd=ROOT, capture_output=True, check=False)
            if tried.returncode == 0:
                return words
    pytest.skip(f"nobody but root can run {sys.executable} here, and setpriv cannot lend the right to")


def _modes() -> dict[Path, tuple[int, int, int]]:
    """Mode and owner of every folder above anything that a stack uses."""
    used = [ROOT / "build", Path(sys.executable), postgres_bin(), Path(tempfile.gettempdir()) / "x", Path.home() / "x"]
    folders = {parent for path in used for parent in (*path.parents, *path.resolve().parents)}
    found = {folder: folder.stat() for folder in folders if folder.exists()}
    return {folder: (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) for folder, info in found.items()}


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    launched: list[Launched] = []

    def start(name: str, **options: Any) -> Launched:
        launched.append(Launched(tmp_path / name, **options))
        return launched[-1]

    yield start
    for one in launched:
        one.process.kill()
        one.process.wait()


def test_two_stacks_run_at_once_and_nothing_outlives_kill_9_of_launcher_or_make(
    launch: Callable[..., Launched], platform_dsn: str
) -> None:
    before = _modes()
    like_make = ["sh", "-c", '"$@"; exit $?', "sh"]
    first = launch("first", prefix=like_make, options=["--die-with-parent", "--subjects", "erin"])
    second = launch("second", platform_dsn=platform_dsn)
    facts, other = first.wait_ready(), second.wait_ready()
    assert set(facts) == {"address", "ca_file", "tokens", "control_dsn", "platform_dsn", "artifacts"}
    assert set(facts["tokens"]) == {"super_admin", "admin", "none", "erin"}  # type: ignore[call-overload]
    assert stat.S_IMODE(first.stack_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((first.build / "stack").stat().st_mode) == 0o700
    sheet = first.build / "recovery-sheet.txt"
    assert stat.S_IMODE(sheet.stat().st_mode) == 0o600
    assert (first.build / "stack" / "keys").read_text().strip() in sheet.read_text()
    assert f"--artifacts {facts['artifacts']} --key-file FILE" in sheet.read_text()
    assert facts["address"] != other["address"]
    assert other["platform_dsn"] == platform_dsn
    shown = second.output.read_text()
    assert str(urlsplit(platform_dsn).password) not in shown, "it may be of a database in earnest"
    assert (second.build / "stack" / "keys").read_text().split()[1] not in shown
    with psycopg.connect(str(facts["platform_dsn"])) as connection:
        assert connection.execute("SELECT count(*) FROM public.users").fetchone() == (50,)

    family = first.family()
    assert len(family) >= 6  # the shell, the launcher, PostgreSQL, Valkey, server, worker
    first.process.kill()
    first.process.wait()
    _wait(lambda: _gone(family), _GONE)
    assert not first.stack_file.exists()  # the launcher had time to tidy up
    assert not sheet.exists()

    family = second.family()
    second.process.kill()
    second.process.wait()
    _wait(lambda: _gone(family), _GONE)
    assert _modes() == before


def test_a_database_that_is_not_prepared_gets_a_stack_and_is_told_what_is_missing(
    launch: Callable[..., Launched], platform_dsn: str, tmp_path: Path
) -> None:
    """Its service is a role that may read and make nothing; catalog.toml says what a table is called."""
    with psycopg.connect(platform_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE ROLE up_reader LOGIN PASSWORD 'hunter2'; GRANT SELECT ON public.users, public.tokens TO up_reader;"
            "INSERT INTO public.users (id, email, name, role, password_hash)"
            " VALUES (gen_random_uuid(), 'a@b.example', 'A', 'DRIVER', '!')"
        )
    catalog = tmp_path / "catalog.toml"
    catalog.write_text('[entities.people]\ntable = "public.users"\n')
    parts = urlsplit(platform_dsn)
    dsn = parts._replace(netloc=f"up_reader:hunter2@{parts.hostname}:{parts.port}").geturl()
    try:
        one = launch("mine", platform_dsn=dsn, options=["--catalog", str(catalog)])
        one.wait_ready()
        _wait(lambda: "Ctrl-C" in one.output.read_text(), _READY)
        shell = f". {one.build}/stack/env.sh && cd {tmp_path} && "
        ask = ["bash", "-c", shell + "dataops export people -o people.csv --where 'name = A' && dataops-admin doctor"]
        ran = subprocess.run(ask, capture_output=True, text=True, timeout=_READY, check=False, env=_bare())
        shown = one.output.read_text()
        one.process.kill()
        one.process.wait()
    finally:
        with psycopg.connect(platform_dsn, autocommit=True) as connection:
            connection.execute("DROP OWNED BY up_reader; DROP ROLE up_reader")

    assert "Found in it: 1 ERROR (work_schema) and " in shown
    assert "dataops-admin doctor" in shown
    assert (ran.returncode, (tmp_path / "people.csv").exists()) == (1, True), ran.stderr
    assert "CREATE SCHEMA IF NOT EXISTS dataops_work" in ran.stdout
    assert "hunter2" not in shown + ran.stdout + ran.stderr


def _bare() -> dict[str, str]:
    """Our environment without settings, and with this checkout's code."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("DATAOPS_")}
    return env | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "clients" / "python")])}


def test_a_catalog_file_that_is_not_there_is_refused_at_once(launch: Callable[..., Launched], tmp_path: Path) -> None:
    one = launch("none", options=["--catalog", str(tmp_path / "none.toml")])
    assert one.process.wait(_READY) == 2
    assert "found no file" in one.output.read_text()


def test_a_setting_that_does_not_exist_is_refused(launch: Callable[..., Launched]) -> None:
    one = launch("odd", settings={"DATAOPS_APROVAL_DELETES": "5"})
    assert one.process.wait(_READY) == 1
    assert "CONFIG_INVALID: settings: aproval_deletes: extra inputs are not permitted" in one.output.read_text()


def test_a_second_run_in_the_same_folder_is_refused_and_sigterm_ends_the_first_in_good_order(
    launch: Callable[..., Launched], tmp_path: Path
) -> None:
    """And the first has the settings of its environment, but for those that a stack decides itself."""
    authority = make_certificates(tmp_path).ca_file
    taken = {"DATAOPS_APPROVAL_DELETES": "5", "DATAOPS_WEBHOOK_CA_FILE": os.path.relpath(authority, ROOT)}
    other = {"DATAOPS_LISTEN": "0.0.0.0:1", "DATAOPS_CONFIG": "none.toml", "DATAOPS_ADDRESS": "127.0.0.1:2"}
    first = launch("one", settings=taken | other)
    facts = first.wait_ready()
    assert facts["address"] != other["DATAOPS_LISTEN"]
    refused = "not taken from the environment, the stack has its own: DATAOPS_LISTEN, DATAOPS_CONFIG\n"
    assert refused in first.output.read_text()
    found = list(_environments(first.family(), (["-m", "server"], ["-m", "workers"])))
    assert [env["DATAOPS_APPROVAL_DELETES"] for env in found] == ["5", "5"]
    written = tomllib.loads((first.build / "stack" / "settings.toml").read_text())
    assert (written["approval_deletes"], written["webhook_ca_file"]) == ("5", str(authority))
    second = Launched(first.build)
    assert second.process.wait(_READY) == 1
    assert "stop it first" in second.output.read_text()
    assert first.stack_file.exists()
    family = first.family()
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(_GONE) == 0, first.output.read_text()
    _wait(lambda: _gone(family), _GONE)
    assert not first.stack_file.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_gets_a_stack_too() -> None:
    account = unprivileged_account()
    assert account is not None
    prefix = _become(account)
    with tempfile.TemporaryDirectory(prefix="dt-") as folder:
        os.chown(folder, account.uid, account.gid)
        one = Launched(Path(folder) / "build", prefix=prefix)
        try:
            one.wait_ready()
            family = one.family()
            assert _uids(family) == {account.uid}
            one.process.send_signal(signal.SIGINT)
            assert one.process.wait(_GONE) == 0, one.output.read_text()
            _wait(lambda: _gone(family), _GONE)
        finally:
            one.process.kill()
            one.process.wait()
