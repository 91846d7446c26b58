"""The README's commands work as they stand: every ``sh`` block of it is run, in order, in one shell."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import psycopg

from examples.stack.programs import ROOT
from examples.stack.stack import Stack
from examples.stack.up import write_environment

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


def test_every_shell_block_of_the_readme_runs(stack: Stack, tmp_path: Path) -> None:
    blocks = _BLOCK.findall((ROOT / "README.md").read_text())
    assert len(blocks) >= 4
    write_environment(stack)
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "stack").symlink_to(stack.folder)
    script = "set -euo pipefail\n" + "\n".join(f"echo '--- block {n}'\n{block}" for n, block in enumerate(blocks, 1))
    env = {name: value for name, value in os.environ.items() if not name.startswith("DATAOPS_")}
    ran = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    with psycopg.connect(stack.platform_dsn) as connection:
        found = connection.execute(
            "SELECT email FROM public.users WHERE email LIKE '%@readme.example.org' ORDER BY email"
        ).fetchall()
    # from the tour and from grpcurl, each without its bad row
    assert [email for (email,) in found] == [
        "ada@readme.example.org",
        "bob@readme.example.org",
        "eve@readme.example.org",
    ]


def test_every_file_the_readme_points_to_exists() -> None:
    for target in _LINK.findall((ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
