"""Questions to a person at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from dataops_client.cli import exits
from dataops_client.cli import output as out


def can_ask() -> bool:
    """Whether there is somebody to answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> str:
    """A line from the terminal; empty at its end. Not click's prompt, which takes Ctrl-C for no answer."""
    print(f"\n{question}", end=" ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def agreed(question: str) -> bool:
    """Whether the answer is yes."""
    return ask(f"{question} [y/N]").lower() in ("y", "yes")


def require_yes(verb: str, group: str, question: str, show: Callable[[], None], *, as_json: bool = False) -> None:
    """Return when a person to whom it was shown says yes. `verb`: delete or approve; `group` has a command `show`.

    Raises:
        typer.Exit: NOT_APPLIED without a yes.
    """
    if as_json or not can_ask():
        out.complain(f"not {verb}d: nobody can be asked; --yes {verb}s what `dataops {group} show` shows")
        raise typer.Exit(exits.NOT_APPLIED)
    show()
    if not agreed(question):
        out.complain(f"not {verb}d")
        raise typer.Exit(exits.NOT_APPLIED)
