"""Questions to a person at a terminal, who may be nobody."""

from __future__ import annotations

import sys


def can_ask() -> bool:
    """Whether there is somebody to answer."""
    return sys.stdin.isatty()


def ask(question: str) -> str:
    """A line from the terminal, asked for on standard error; empty at its end."""
    sys.stderr.write(f"{question} ")
    sys.stderr.flush()
    return sys.stdin.readline().strip()
