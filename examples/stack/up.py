"""``make up``: keep a whole stack running in the foreground until Ctrl-C or SIGTERM; a worker that dies starts again.

``DATAOPS_*`` variables are its settings, but for those that the stack decides itself, which a line names.

Writes build/stack.json last, when everything answers, and removes it first, when everything is about to stop.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from engine.admin.doctor import diagnose
from engine.admin.doctor.text import one_line
from engine.config import PREFIX, from_environment
from engine.errors import DataOpsError
from examples.stack import launcher
from examples.stack.certificates import write_secret
from examples.stack.keeper import Keeper
from examples.stack.launcher import BUILD, Stopped
from examples.stack.processes import ServerStartError
from examples.stack.programs import Program
from examples.stack.stack import SUBJECTS, Stack

SHEET = "recovery-sheet.txt"
"""Beside stack.json: what an operator would print."""

CONFIG = PREFIX + "CONFIG"
"""Names a file of settings; env.sh sets it, so that a shell which has sourced that has it of another stack."""

_LOOK_SECONDS = 0.5


def main() -> int:
    """The command line; 0 when stopped by a signal, 1 when a part of the stack failed."""
    args = _arguments()
    launcher.stop_on_signals()
    try:
        if args.die_with_parent:
            launcher.die_with_parent()
        with launcher.private_folder(args.build, "stack") as folder:
            stack_file, sheet = args.build / "stack.json", args.build / SHEET
            for path in (stack_file, sheet):
                path.unlink(missing_ok=True)  # left by a run that was killed
            print("starting PostgreSQL, Valkey, server and workers ...", flush=True)
            with _stack(folder, args) as stack:
                try:
                    write_environment(stack)
                    write_secret(sheet, stack.recovery_sheet.encode())
                    publish(stack, stack_file)
                    print(welcome(stack, stack_file, diagnosis(stack) if args.platform_dsn else ""), flush=True)
                    return _watch(stack)
                finally:
                    stack_file.unlink(missing_ok=True)
                    sheet.unlink(missing_ok=True)  # its keys open nothing any more: the artifacts go with the stack
    except (ServerStartError, DataOpsError) as error:
        print(error, file=sys.stderr)
        return 1
    except Stopped:
        print("stopped", flush=True)
        return 0


def publish(stack: Stack, path: Path) -> None:
    """Write stack.json for other programs of this user: mode 0600, complete or absent."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    write_secret(draft, json.dumps(stack.describe(), indent=2).encode() + b"\n")
    draft.rename(path)


def write_environment(stack: Stack) -> None:
    """Write env.sh for shells to source: the commands of this checkout on PATH, and whom they talk to.

    `dataops-admin` finds the service's own settings in a file beside it: variables would show in every child process.
    """
    settings = stack.folder / "settings.toml"
    lines = [f"{name.removeprefix(PREFIX).lower()} = {json.dumps(value)}\n" for name, value in stack.env.items()]
    write_secret(settings, "".join(lines).encode())
    values = {
        "DATAOPS_CONFIG": str(settings),
        "DATAOPS_ADDRESS": stack.address,
        "DATAOPS_CA_FILE": stack.ca_file,
        "DATAOPS_TOKEN_FILE": str(stack.token_file("super_admin")),
    }
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in values.items()]
    lines.append(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH\n")
    write_secret(stack.folder / "env.sh", "".join(lines).encode())


def diagnosis(stack: Stack) -> str:
    """What `doctor` would mend in a platform that is not of our making, in one line."""
    found = one_line(diagnose(stack.settings))
    return f"\n\nFound in it: {found}. To see what that means, and the SQL that mends it:\n\n" if found else ""


def welcome(stack: Stack, path: Path, found: str = "") -> str:
    """What stands where, and commands that work as they stand, from the root of the checkout; `found` by the doctor."""
    env = os.path.relpath(stack.folder / "env.sh")
    call = (
        'grpcurl -cacert "$DATAOPS_CA_FILE" -H "authorization: Bearer $(cat "$DATAOPS_TOKEN_FILE")" "$DATAOPS_ADDRESS"'
    )
    if found:
        found += f"  . {env} && dataops-admin doctor"
    return f"""
DataOps serves on {stack.address} (TLS 1.3).
  platform database   {_without_password(stack.platform_dsn)}
  control database    {_without_password(stack.control_dsn)}
  logs                {os.path.relpath(stack.folder)}/*.log
  health, metrics     {_health(stack)}
  all of this         {os.path.relpath(path)} (mode 0600: it holds tokens and passwords)
  recovery sheet      {os.path.relpath(path.with_name(SHEET))} (mode 0600: the keys, and how to read backups with
                      nothing else; of an installation in earnest, print it and keep it elsewhere){found}

In another shell, from this folder:

  . {env}
  dataops entities
  dataops export users -o users.csv
  dataops import users.csv --entity users

  {call} list
  {call} dataops.v1.CatalogService/ListEntities

A worker that dies is started again: kill -9 one and watch its job being taken over. Ctrl-C stops everything."""


def _health(stack: Stack) -> str:
    """Where the server and every worker say how they are: of each, the address in its own line that it is ready."""
    found = [re.search(rb'"health": "([^"]+)"', program.log.read_bytes()) for program in stack.programs]
    places = [f"http://{match[1].decode()}/metrics" for match in found if match]
    return f"{', '.join(places)} (/livez, /readyz)"


def _without_password(dsn: str) -> str:
    """The DSN as it may stand on a screen or in a log: PLATFORM_DSN may be that of a database in earnest."""
    parts = urlsplit(dsn)
    login, at, place = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{login.partition(':')[0]}{at}{place}{parts.path}"


def _stack(folder: Path, args: argparse.Namespace) -> Stack:
    env = {"DATAOPS_HEALTH_LISTEN": "127.0.0.1:0"}  # any free port each; their logs say which
    if args.catalog:
        env["DATAOPS_CATALOG_FILE"] = str(args.catalog.resolve())
    if args.schemas:
        env["DATAOPS_PLATFORM_SCHEMAS"] = args.schemas
    wanted = wanted_settings(os.environ)
    stack = Stack(
        folder,
        platform_dsn=args.platform_dsn,
        users=args.users,
        workers=args.workers,
        env=env,
        wanted=wanted,
        subjects=args.subjects,
    )
    refused = [*stack.refused, *([CONFIG] if CONFIG in os.environ else [])]
    if refused:
        print(f"not taken from the environment, the stack has its own: {', '.join(refused)}", file=sys.stderr)
    return stack


def wanted_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What the user's environment says of the settings, by variable. A file is named from the present folder there, and
    from any folder by what is made of it.

    Raises:
        InvalidRequest: CONFIG_INVALID.
    """
    found = from_environment(environ)
    return {
        PREFIX + name.upper(): str(Path(value).resolve()) if name.endswith("_file") and value else value
        for name, value in found.items()
    }


def _watch(stack: Stack) -> int:
    """Return when the stack cannot go on: without its server, or with a worker that dies all the time."""
    keeper = Keeper(lambda text: print(text, file=sys.stderr, flush=True))
    while True:
        time.sleep(_LOOK_SECONDS)
        ended = keeper.look(stack.workers) if stack.server.alive else stack.server
        if ended is not None:
            print(_obituary(ended), file=sys.stderr)
            return 1


def _obituary(part: Program) -> str:
    return f"{part.name} ended by itself with code {part.returncode}; stopping the rest{part.tail()}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make up", description=__doc__)
    parser.add_argument(
        "--platform-dsn",
        default=os.environ.get("PLATFORM_DSN"),
        help="operate on this existing database instead of a sample platform; or say PLATFORM_DSN in the "
        "environment, where other users do not see its password",
    )
    parser.add_argument(
        "--catalog",
        type=_file,
        default=os.environ.get("CATALOG") or None,
        help="catalog.toml for it: names, groups, secret fields; or CATALOG in the environment",
    )
    parser.add_argument(
        "--schemas",
        default=os.environ.get("PLATFORM_SCHEMAS", ""),
        help="its schemas whose tables are entities, comma-separated (default: public); or PLATFORM_SCHEMAS",
    )
    parser.add_argument(
        "--subjects",
        type=_subjects,
        default=os.environ.get("SUBJECTS", ""),
        help="further callers, comma-separated, who get a token and no role; or SUBJECTS in the environment",
    )
    parser.add_argument("--users", type=int, default=10_000, help="users of the sample platform (default: 10000)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--build", type=Path, default=BUILD, help="folder to keep files in (default: build)")
    parser.add_argument("--die-with-parent", action="store_true", help="stop when the parent process ends")
    return parser.parse_args()


def _file(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"found no file {name}")
    return path


def _subjects(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name) or name in SUBJECTS:
            raise argparse.ArgumentTypeError(f"found {name!r}, expected small letters and digits, and no role")
    return names


if __name__ == "__main__":
    sys.exit(main())
