"""Questions to a person at a terminal."""

from __future__ import annotations

import sys


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
