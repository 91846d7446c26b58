"""Mapping files: where each field's value comes from and what is done to it, as TOML or JSON that people write.

    ignore = ["Internal note"]          # columns of the file that are left out
    [fields.email]                      # a field of the entity
    column = "E-mail"
    trim = true

`docs/mapping.md` has every step. Whatever is not understood is refused with its place: a key that is written wrongly
and passed over would import other values than its writer meant.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dataops.v1 import imports_pb2

_CASES = {"upper": imports_pb2.LETTER_CASE_UPPER, "lower": imports_pb2.LETTER_CASE_LOWER}
_STEPS = (
    "column",
    "constant",
    "trim",
    "empty_is_null",
    "case",
    "values",
    "only_listed_values",
    "date_format",
    "time_zone",
    "default",
    "lookup",
)

_T = TypeVar("_T")


class MappingFileError(ValueError):
    """A mapping file that cannot be understood; the message begins with the place in it."""


def read_mapping(path: Path) -> list[imports_pb2.FieldMapping]:
    """The mapping in a `.toml` or `.json` file.

    Raises:
        MappingFileError: it has another ending, is no TOML or JSON, or holds what no mapping has.
        OSError: it cannot be read.
    """
    try:
        return parse_mapping(path.read_text(encoding="utf-8"), path.suffix.lower().lstrip("."))
    except UnicodeDecodeError as error:
        raise MappingFileError(f"{path.name}: found byte {error.start} that is not UTF-8") from error
    except MappingFileError as error:
        raise MappingFileError(f"{path.name}: {error}") from error


def parse_mapping(text: str, language: str) -> list[imports_pb2.FieldMapping]:
    """The mapping in `text`, which is written in `language`: toml or json.

    Raises:
        MappingFileError: as `read_mapping`.
    """
    if language == "toml":
        try:
            document: Any = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise MappingFileError(f"no TOML: {error}") from error
    elif language == "json":
        document = _json(text)
    else:
        raise MappingFileError(f"found the ending {language!r}, expected toml or json")
    return list(_document(document))


def format_mapping(mapping: Iterable[imports_pb2.FieldMapping]) -> str:
    """The mapping as the JSON that `parse_mapping` reads."""
    document: dict[str, Any] = {}
    for step in mapping:
        part = document.setdefault("entities", {}).setdefault(step.entity, {}) if step.entity else document
        if step.field:
            part.setdefault("fields", {})[step.field] = dict(_steps_of(step))
        else:
            part.setdefault("ignore", []).append(step.column)
    return json.dumps(document, indent=2, ensure_ascii=False)


def _json(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise MappingFileError(f"found the key {key!r} twice in one object")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise MappingFileError(f"no JSON: {error}") from error
    except RecursionError as error:
        raise MappingFileError("no mapping: nested too deeply") from error


def _document(document: Any) -> Iterator[imports_pb2.FieldMapping]:
    table = _typed(document, dict, "the file")
    _known(table, ("fields", "ignore", "entities"), "")
    if "entities" in table and len(table) > 1:
        raise MappingFileError("entities: found beside fields or ignore, expected either one entity's or a bundle's")
    yield from _part(table, "", "")
    for entity, part in _typed(table.get("entities", {}), dict, "entities").items():
        place = f"entities.{entity}"
        if not entity:
            raise MappingFileError(f"{place}: found an empty name, expected an entity's")
        _known(_typed(part, dict, place), ("fields", "ignore"), f"{place}.")
        yield from _part(part, entity, f"{place}.")


def _part(table: dict[str, Any], entity: str, place: str) -> Iterator[imports_pb2.FieldMapping]:
    """What stands for one entity: its fields, then the columns that are left out."""
    for field, steps in _typed(table.get("fields", {}), dict, f"{place}fields").items():
        if not field:
            raise MappingFileError(f"{place}fields: found an empty name, expected a field's")
        yield _field(field, entity, steps, f"{place}fields.{field}")
    ignored = _typed(table.get("ignore", []), list, f"{place}ignore")
    for number, column in enumerate(ignored):
        name = _typed(column, str, f"{place}ignore[{number}]")
        if name in ignored[:number]:
            raise MappingFileError(f"{place}ignore[{number}]: found the column {name!r} twice")
        yield imports_pb2.FieldMapping(column=name, entity=entity)


def _field(field: str, entity: str, steps: Any, place: str) -> imports_pb2.FieldMapping:
    if isinstance(steps, str):  # the short form: only another name
        return imports_pb2.FieldMapping(field=field, column=steps, entity=entity)
    _known(_typed(steps, dict, place, "a column's name or a table of steps"), _STEPS, f"{place}.")
    if "column" in steps and "constant" in steps:
        raise MappingFileError(f"{place}: found column and constant, expected one of them")

    def step(name: str, kind: type[_T]) -> _T | None:
        return _typed(steps[name], kind, f"{place}.{name}") if name in steps else None

    constant = step("constant", str)
    mapping = imports_pb2.FieldMapping(
        field=field,
        entity=entity,
        trim=bool(step("trim", bool)),
        empty_is_null=bool(step("empty_is_null", bool)),
        values=_values(steps, place),
        only_listed_values=bool(step("only_listed_values", bool)),
        date_format=_date_format(steps, place),
        default=step("default", str),
        lookup=step("lookup", str) or "",
    )
    if constant is not None:
        mapping.constant = constant
    else:
        column = step("column", str)
        mapping.column = field if column is None else column
    case = step("case", str)
    if case is not None:
        if case not in _CASES:
            raise MappingFileError(f"{place}.case: found {case!r}, expected upper or lower")
        mapping.letter_case = _CASES[case]
    return mapping


def _values(steps: dict[str, Any], place: str) -> list[imports_pb2.ValueMapping]:
    if "values" not in steps:
        if steps.get("only_listed_values"):
            raise MappingFileError(f"{place}.only_listed_values: found without values, expected them beside it")
        return []
    found = _typed(steps["values"], dict, f"{place}.values")
    return [
        imports_pb2.ValueMapping(text=key, becomes=_typed(value, str, f"{place}.values.{key}"))
        for key, value in found.items()
    ]


def _date_format(steps: dict[str, Any], place: str) -> imports_pb2.DateFormat | None:
    if "date_format" not in steps:
        if "time_zone" in steps:
            raise MappingFileError(f"{place}.time_zone: found without date_format, expected it beside it")
        return None
    pattern = _typed(steps["date_format"], str, f"{place}.date_format")
    zone = _typed(steps.get("time_zone", ""), str, f"{place}.time_zone")
    return imports_pb2.DateFormat(pattern=pattern, time_zone=zone)


def _steps_of(mapping: imports_pb2.FieldMapping) -> Iterator[tuple[str, Any]]:
    source = mapping.WhichOneof("source")
    if source:
        yield source, getattr(mapping, source)
    for name in ("trim", "empty_is_null", "only_listed_values", "lookup"):
        if getattr(mapping, name):
            yield name, getattr(mapping, name)
    for word, number in _CASES.items():
        if mapping.letter_case == number:
            yield "case", word
    if mapping.values:
        yield "values", {value.text: value.becomes for value in mapping.values}
    if mapping.HasField("date_format"):
        yield "date_format", mapping.date_format.pattern
        if mapping.date_format.time_zone:
            yield "time_zone", mapping.date_format.time_zone
    if mapping.HasField("default"):
        yield "default", mapping.default


def _known(table: dict[str, Any], names: Sequence[str], place: str) -> None:
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            expected = f"{near[0]}?" if near else f"one of {', '.join(names)}"
            raise MappingFileError(f"{place}{key}: found an unknown key, expected {expected}")


_WORDS = {dict: "a table", list: "a list", str: "text in quotes", bool: "true or false"}


def _typed(value: Any, kind: type[_T], place: str, expected: str = "") -> _T:
    """`value` as it is if it is of `kind`. A number is no text: 007 and 1.10 would come out as others."""
    if isinstance(value, kind):
        return value
    expected = expected or _WORDS[kind]
    raise MappingFileError(f"{place}: found {_found(value)}, expected {expected}")


def _found(value: Any) -> str:
    for kind, word in ((bool, "true or false"), (str, "text"), (dict, "a table"), (list, "a list")):
        if isinstance(value, kind):
            return word
    if value is None:
        return "null"
    return "a number" if isinstance(value, int | float) else f"a {type(value).__name__}"
