"""docs/command-line.md against the command: every command and option stands there, and every example is understood,
those of the other pages too."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from dataops_client import cli
from dataops_client.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^(dataops .*?)(?:  +#.*)?$", PAGE, re.MULTILINE)
ELSEWHERE = {
    example
    for page in sorted((ROOT / "docs").glob("*.md"))
    for example in re.findall(r"^(?:\$ )?(dataops [^`]*?)$", page.read_text(encoding="utf-8"), re.MULTILINE)
} - set(EXAMPLES)
EVERYWHERE = {"--help", "-h", "--json", "--output", "--reason", "--quiet", "-q", "--install-completion"}


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, f"{path} {name}")


COMMANDS = dict(_commands(typer.main.get_command(app), "dataops"))


@pytest.mark.parametrize("path", [path for path, command in COMMANDS.items() if not hasattr(command, "commands")])
def test_every_command_has_an_example_and_every_option_a_word(path: str):
    words = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", PAGE))

    assert any(example.startswith(path) for example in EXAMPLES)
    for parameter in COMMANDS[path].params:
        if parameter.param_type_name == "option":
            names = {*parameter.opts, *parameter.secondary_opts}
            assert names & (words | EVERYWHERE), f"{path} {parameter.opts}"


@pytest.mark.parametrize("example", [*EXAMPLES, *sorted(ELSEWHERE)])
def test_every_example_is_understood(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("users.csv", "users.json", "platform.zip", "people.toml", "people.csv", "fewer.csv"):
        (tmp_path / name).write_text("")
    words = shlex.split(example)[1:]
    if words[:1] == ["--stack"]:
        words = words[4:]
    if words == ["--version"]:
        return

    path = "dataops"
    while f"{path} {words[0]}" in COMMANDS:
        path = f"{path} {words.pop(0)}"
        if not words:
            break
    COMMANDS[path].make_context(path, list(words))  # raises for whatever it does not understand


def test_the_page_has_the_exit_codes_of_the_command():
    listed = re.findall(r"^    (\d+) ", cli.__doc__ or "", re.MULTILINE)
    written = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)

    assert listed == written
