"""Every `dataops-admin` that a page, a message or the recovery sheet names is a command and has these options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from engine.admin.cli import app

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"dataops-admin((?: [a-z][a-z-]*| --[a-z][a-z-]*(?:[ =][^ `-][^ `]*)?| [A-Z]\w*)*)")
SHEETS = ["engine/admin/keyfile.py", "engine/admin/doctor", "docker-compose.yml"]


def _texts() -> Iterator[tuple[str, str]]:
    for top in ("README.md", "docs", *SHEETS):
        path = ROOT / top
        for file in [path] if path.is_file() else sorted(path.rglob("*.*")):
            if file.suffix in (".md", ".py", ".yml"):
                yield str(file.relative_to(ROOT)), re.sub(r"\s+", " ", file.read_text(encoding="utf-8"))


NAMES = sorted({(file, found[1]) for file, text in _texts() for found in NAMED.finditer(text) if found[1]})


def _command(words: list[str]) -> Any:
    """The command that the words begin with, a group where they end there; None where there is none of that name."""
    command: Any = typer.main.get_command(app)
    for word in words:
        if not hasattr(command, "commands"):
            break
        command = command.commands.get(word)
        if command is None:
            return None
    return command


def test_there_are_many() -> None:
    assert len(NAMES) > 20


@pytest.mark.parametrize(("file", "words"), NAMES)
def test_it_is_a_command_with_these_options(file: str, words: str) -> None:
    command = _command(words.split())
    assert command is not None, f"{file}: there is no `dataops-admin{words}`"
    if hasattr(command, "commands"):
        return
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert set(re.findall(r"--[a-z-]+", words)) <= known, f"{file}: `dataops-admin{words}`"
