"""The one way to make the Python stubs, and every check of the contract.

    python -m protos.tool generate   write clients/python/dataops/v1 from protos/dataops/v1
    python -m protos.tool check      fail if the committed stubs are not what generate would write
    python -m protos.tool lint       buf lint and buf format
    python -m protos.tool breaking   fail if the contract breaks one that was released
    python -m protos.tool release    write protos/released.binpb; a commit of its own

Stubs are made by protoc, not by buf: grpcio-tools has no plug-in binary that buf could call.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "protos"
STUBS = ROOT / "clients" / "python"
RELEASED = SOURCES / "released.binpb"
PACKAGE = Path("dataops") / "v1"


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 if the contract is as it should be."""
    commands = {"generate": generate, "check": check, "lint": lint, "breaking": breaking, "release": release}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=sorted(commands))
    return commands[parser.parse_args(argv).command]()


def generate() -> int:
    """Replace the committed stubs by fresh ones."""
    with tempfile.TemporaryDirectory() as scratch:
        write_stubs(Path(scratch))
        shutil.rmtree(STUBS / PACKAGE, ignore_errors=True)
        shutil.copytree(Path(scratch) / PACKAGE, STUBS / PACKAGE)
    return 0


def check() -> int:
    """Compare the committed stubs with fresh ones, file by file and byte by byte."""
    with tempfile.TemporaryDirectory() as scratch:
        write_stubs(Path(scratch))
        want = _contents(Path(scratch) / PACKAGE)
    got = _contents(STUBS / PACKAGE)
    drifted = sorted(name for name in want.keys() | got.keys() if want.get(name) != got.get(name))
    for name in drifted:
        print(f"stub differs from the contract: {PACKAGE / name}; run `make protos`", file=sys.stderr)
    return 1 if drifted else 0


def lint() -> int:
    """Check names, comments and layout."""
    return _buf("lint") or _buf("format", "--diff", "--exit-code")


def breaking() -> int:
    """Compare the contract with the released one.

    The input is the folder, not an image of it: breaking.ignore names paths of the folder, and an image's paths
    lack its first part, so that nothing would be ignored.
    """
    return _buf("breaking", "--against", str(RELEASED))


def release() -> int:
    """Make the present contract the one that later changes are held against."""
    return _buf("build", "--exclude-source-info", "-o", str(RELEASED))


def write_stubs(target: Path) -> None:
    """Write modules, service stubs and their type files for every proto file below `target`."""
    protos = sorted(str(path.relative_to(SOURCES)) for path in SOURCES.glob("dataops/**/*.proto"))
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{SOURCES}",
        f"-I{resources.files('grpc_tools') / '_proto'}",
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_out=quiet:{target}",
        f"--mypy_grpc_out=quiet:{target}",
        *protos,
    ]
    subprocess.run(command, check=True, env=_environment())
    _drop_empty_services(target / PACKAGE)


def _drop_empty_services(folder: Path) -> None:
    """Delete the service modules of files without a service: protoc writes them all the same."""
    for module in folder.glob("*_pb2_grpc.py"):
        if "class " not in module.read_text():
            module.unlink()
            module.with_suffix(".pyi").unlink(missing_ok=True)


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def _buf(*arguments: str) -> int:
    command = [str(Path(sys.executable).parent / "buf"), *arguments]
    return subprocess.run(command, check=False, cwd=ROOT, env=_environment()).returncode


def _environment() -> dict[str, str]:
    """Ours, with this interpreter's tools first: the plug-ins of protoc and buf are found by PATH."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


if __name__ == "__main__":
    sys.exit(main())
