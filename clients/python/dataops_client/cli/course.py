"""What an interrupted command leaves at the server, in words: how to follow it, how to stop it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from dataops_client.cli import exits
from dataops_client.cli import output as out


class Course:
    """What stands at the server at this moment, and on the screen. The command says so as it goes on."""

    def __init__(self, words: str) -> None:
        self.words = words
        self.plan_shown = False


@contextmanager
def on_course(words: str) -> Iterator[Course]:
    """Run a command's work. Ctrl-C asks nothing and stops nothing at the server: it tells what stands there."""
    course = Course(words)
    try:
        yield course
    except KeyboardInterrupt:
        out.complain(f"interrupted; {course.words}")
        raise typer.Exit(exits.INTERRUPTED) from None
