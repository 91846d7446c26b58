"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
JsonOnlyOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Tell no progress.")]
ReasonOption = Annotated[str, typer.Option(help="Why; stands in the audit log.")]
LimitOption = Annotated[int, typer.Option(min=1, max=1000, help="At most so many, newest first.")]
StatusOption = Annotated[
    list[str] | None, typer.Option("--status", help="Only in this status, e.g. completed; repeatable.")
]
RowsOption = Annotated[int, typer.Option("--limit", min=0, help="At most so many rows; 0 for all.")]

FORMATS = ("csv", "json", "jsonl", "bundle")
"""What there is to choose: the contract has more than is built."""

_FORMAT_ALIASES = {"jsonl": "json-lines", "ndjson": "json-lines", "zip": "bundle"}

_T = TypeVar("_T")


def wants_json(output: Output, json: bool) -> bool:
    """True if either option asks for JSON."""
    return json or output is Output.JSON


def chosen(
    words: Sequence[str], value_of: Callable[[str], _T], prefix: str, what: str, expected: Sequence[str] = ()
) -> list[_T]:
    """Enum values for bare words in any case, for example `completed` with prefix EXPORT_STATUS_.

    `expected` are the words to name where it is none; all of the enum's if not given.
    """
    values = []
    for word in words:
        # the zero value is no choice; it fails as any other word does
        name = "" if word.upper() == "UNSPECIFIED" else prefix + word.upper().replace("-", "_")
        try:
            values.append(value_of(name))
        except ValueError:
            allowed = expected or _words_of(value_of, prefix)
            raise typer.BadParameter(f"{word!r} is no {what}; expected {listed(allowed)}") from None
    return values


def _words_of(value_of: Callable[[str], _T], prefix: str) -> list[str]:
    """The bare words of the enum whose `Value` it is, without that for nothing."""
    names: list[str] = getattr(value_of, "__self__").keys()  # noqa: B009 -- a bound method's own object
    words = [name.removeprefix(prefix).lower().replace("_", "-") for name in names]
    return [word for word in words if word != "unspecified"]


def listed(words: Sequence[str]) -> str:
    """Words as a person lists them: a, b or c."""
    *more, last = words
    return f"{', '.join(more)} or {last}" if more else last


def page_of(limit: int) -> int:
    """Rows to ask for at once, for so many in all; 0 means all."""
    return min(limit or 1000, 1000)


def format_word(word: str) -> str:
    """A format's word in the contract for what people call it, or for the ending of a file's name."""
    return _FORMAT_ALIASES.get(word.lower(), word)


def delimiter_of(text: str) -> str:
    """The character between cells; a tab may be spelled out, since few shells let one be typed."""
    return "\t" if text in ("\\t", "tab") else text


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
