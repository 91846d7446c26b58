"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer


class Output(StrEnum):
    """How a result is printed."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print the result.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document (the same as -o json).")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Tell no progress.")]
ReasonOption = Annotated[str, typer.Option(help="Why; stands in the audit log.")]
LimitOption = Annotated[int, typer.Option(min=1, max=1000, help="At most so many, newest first.")]

_T = TypeVar("_T")


def wants_json(output: Output, json: bool) -> bool:
    """True if either option asks for JSON."""
    return json or output is Output.JSON


def chosen(words: list[str], value_of: Callable[[str], _T], prefix: str, what: str) -> list[_T]:
    """Enum values for bare words in any case, for example `completed` with prefix EXPORT_STATUS_."""
    values = []
    for word in words:
        try:
            values.append(value_of(prefix + word.upper().replace("-", "_")))
        except ValueError:
            raise typer.BadParameter(f"{word!r} is no {what}") from None
    return values


def file_to_write(path: Path | None) -> Path | None:
    """Refuse, before anything is started at the server, a file that cannot be written in the end."""
    if path is None:
        return None
    if str(path) == "-":
        raise typer.BadParameter("standard output cannot be written to; name a file")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {str(path.parent)!r}")
    return path


FileOption = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        dir_okay=False,
        callback=file_to_write,
        help="The file to write; an existing one is replaced.",
    ),
]
