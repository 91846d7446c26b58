"""What the options of `dataops backup` and `dataops restore` say."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from dataops.v1 import restores_pb2

_NEXT = re.compile(r",(?=[^,=]+=)")
"""A comma before the next field; any other is part of a value."""


def chosen_entities(entities: Sequence[str] | None, *, everything: bool) -> Sequence[str]:
    """The entities that are named; none where all are meant.

    Raises:
        typer.BadParameter: neither, or both.
    """
    if everything == bool(entities):
        found = "both" if everything else "neither"
        raise typer.BadParameter(f"ENTITY and --all: found {found}, expected one of them")
    return entities or ()


def keys_of(said: Sequence[str], file: Path | None) -> list[Mapping[str, str | None]]:
    """The keys of rows: those said, then those of the file.

    Raises:
        typer.BadParameter: a key is not FIELD=VALUE, or there is none.
    """
    keys: list[Mapping[str, str | None]] = []
    for text in said:
        pairs = [part.partition("=") for part in _NEXT.split(text)]
        if not all(name and equals for name, equals, _ in pairs):
            raise typer.BadParameter(f"--key {text}: expected FIELD=VALUE, with a comma before the next FIELD=VALUE")
        keys.append({name.strip(): value for name, _, value in pairs})
    if file is not None:
        keys += _keys_in(file)
    if not keys:
        raise typer.BadParameter("--key and --keys: found neither, expected the keys of some rows")
    return keys


def _keys_in(file: Path) -> list[Mapping[str, str | None]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, strict=True)
            rows = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"--keys {file}: {error}") from None
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise typer.BadParameter(f"--keys {file}: record {number} has another number of cells than the header")
    return [dict(row) for row in rows]


def renames_of(said: Sequence[str]) -> list[restores_pb2.ColumnRename]:
    """Columns that are called otherwise now, or are gone.

    Raises:
        typer.BadParameter: one is not ENTITY.OLD=NEW.
    """
    from dataops.v1 import restores_pb2

    made = []
    for text in said:
        left, equals, new = text.partition("=")
        entity, dot, old = left.rpartition(".")
        if not (equals and dot and entity and old):
            raise typer.BadParameter(f"--rename {text}: expected ENTITY.OLD=NEW, or ENTITY.OLD= if it is gone")
        made.append(restores_pb2.ColumnRename(entity=entity, old_name=old, new_name=new))
    return made
