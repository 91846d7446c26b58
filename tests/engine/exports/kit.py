"""What the tests of exports share: requests in a line, and files read back by rules of their own."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from engine.db.models import ExportRow
from engine.exports.model import (
    Compression,
    Condition,
    ExportFormat,
    ExportOptions,
    ExportRequest,
    ExportType,
    FilterOperator,
    Order,
    Selection,
)
from tests.world import World


def records(data: bytes) -> list[list[str]]:
    """A CSV file's records, header and all; NULL and '' look alike."""
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def where(field: str, operator: str, *values: str) -> Selection:
    """A filter of one condition."""
    return Selection(conditions=(Condition(field, FilterOperator(operator), values),))


def ordered(*fields: str, limit: int = 0) -> Selection:
    """An order; a field with `-` before it is descending."""
    return Selection(order_by=tuple(Order(f.lstrip("-"), f.startswith("-")) for f in fields), limit=limit)


def ask(
    *entities: str,
    format: str = "CSV",  # noqa: A002
    kind: str = "ENTITY",
    selection: Selection | None = None,
    **options: Any,
) -> ExportRequest:
    if "compression" in options:
        options["compression"] = Compression(options["compression"])
    return ExportRequest(
        ExportType(kind), entities, ExportFormat(format), ExportOptions(**options), selection=selection or Selection()
    )


def begin(world: World, *entities: str, **asked: Any) -> ExportRow:
    return world.exports.create(world.caller, ask(*entities, **asked), *world.request())


def export(world: World, *entities: str, **asked: Any) -> tuple[ExportRow, bytes]:
    """Ask, work, download."""
    row = begin(world, *entities, **asked)
    world.work()
    row = world.exports.get(world.caller, row.id)
    assert row.status == "COMPLETED", row.error
    return row, world.read(world.exports.download(world.caller, row.id).artifact_id)


class Digits(str):
    """A number's own digits."""


def load_json(text: str | bytes) -> Any:
    """JSON with numbers as they are written."""
    return json.loads(text, parse_float=Digits, parse_int=Digits, parse_constant=_no_constant)


def dump_json(value: Any) -> str:
    """JSON again, numbers as they were written."""
    if isinstance(value, Digits):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{dump_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dump_json, value)) + "]"
    return json.dumps(value)


def text_of(value: Any) -> str | None:
    """A JSON value as PostgreSQL's text, as an import has it to be; an array or object as JSON."""
    if value is None or isinstance(value, str):
        return value
    return dump_json(value)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")
