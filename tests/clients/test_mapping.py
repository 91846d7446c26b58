"""Mapping files: every step is read as it is written, and whatever is not understood is refused with its place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from dataops.v1 import imports_pb2
from dataops_client.mapping import MappingFileError, format_mapping, parse_mapping, read_mapping
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "mapping.md").read_text(encoding="utf-8")

# two strategies, since text() makes one alphabet of a union, in which the few characters that matter are lost
_texts = st.text("a1\"'\\.#= \n\t\x7f", max_size=8) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12
)
_names = _texts.filter(bool)
_formats = st.builds(imports_pb2.DateFormat, pattern=_names, time_zone=_texts)


def _step(field: str, entity: str, source: tuple[str, str], steps: dict[str, Any]) -> imports_pb2.FieldMapping:
    listed = [imports_pb2.ValueMapping(text=t, becomes=b) for t, b in steps.get("values", {}).items()]
    parts: dict[str, Any] = {source[0]: source[1], **steps, "values": listed}
    return imports_pb2.FieldMapping(field=field, entity=entity, **parts)


_steps = st.fixed_dictionaries(
    {},
    optional={
        "trim": st.just(True),
        "empty_is_null": st.just(True),
        "letter_case": st.sampled_from([1, 2]),
        "values": st.dictionaries(_texts, _texts, min_size=1, max_size=3),
        "date_format": _formats,
        "default": _texts,
        "lookup": _names,
    },
)
_fields = st.builds(_step, _names, st.just(""), st.tuples(st.sampled_from(["column", "constant"]), _texts), _steps)
_ignored = st.builds(lambda column: imports_pb2.FieldMapping(column=column), _texts)


@st.composite
def mappings(draw: st.DrawFn) -> list[imports_pb2.FieldMapping]:
    """One entity's mapping, or a bundle's: each entity's fields, then its left out columns."""
    entities = draw(st.lists(_names, unique=True, min_size=1, max_size=3)) if draw(st.booleans()) else [""]
    found = []
    for entity in entities:
        part = draw(st.lists(_fields, unique_by=lambda m: m.field, max_size=4))
        part += draw(st.lists(_ignored, unique_by=lambda m: m.column, max_size=3))
        for step in part:
            step.entity = entity
            if step.values:
                step.only_listed_values = draw(st.booleans())
        found += part
    return found


def _toml(value: object) -> str:
    """A value as TOML; JSON's texts are TOML's once DEL is escaped."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@given(mappings())
def test_a_mapping_written_as_json_or_toml_is_read_back_equal(mapping: list[imports_pb2.FieldMapping]):
    text = format_mapping(mapping)
    toml = "\n".join(f"{key} = {_toml(value)}" for key, value in json.loads(text).items())

    assert parse_mapping(text, "json") == mapping
    assert parse_mapping(toml, "toml") == mapping


def test_a_field_without_a_source_takes_the_column_of_its_name():
    assert parse_mapping("[fields.email]\ntrim = true", "toml") == [
        imports_pb2.FieldMapping(field="email", column="email", trim=True)
    ]


def test_the_page_shows_every_step_and_its_examples_are_read():
    examples = re.findall(r"```(toml|json)\n(.*?)```", PAGE, re.DOTALL)
    mappings = [step for language, text in examples for step in parse_mapping(text, language)]

    used = {field.name for step in mappings for field, _ in step.ListFields()}
    assert used == {field.name for field in imports_pb2.FieldMapping.DESCRIPTOR.fields}
    assert {step.letter_case for step in mappings} >= {1, 2}
    assert any(not step.field for step in mappings), "nothing is left out"
    assert any(step.date_format.time_zone for step in mappings)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[fields.email]\ntirm = true", "fields.email.tirm: found an unknown key, expected trim?"),
        ("[field.email]\ntrim = true", "field: found an unknown key, expected fields?"),
        ('[fields.email]\ntrim = "yes"', "fields.email.trim: found text, expected true or false"),
        ("[fields.email]\ntrim = 1", "fields.email.trim: found a number, expected true or false"),
        ("[fields.code]\nconstant = 007", "no TOML: "),
        ("[fields.code]\nconstant = 7", "fields.code.constant: found a number, expected text in quotes"),
        ("[fields.at]\ndefault = 2026-01-01", "fields.at.default: found a date, expected text in quotes"),
        ("fields.email = 1", "fields.email: found a number, expected a column's name or a table of steps"),
        ('[fields.a]\ncolumn = "A"\nconstant = "1"', "fields.a: found column and constant, expected one of them"),
        ('[fields.a]\ncase = "title"', "fields.a.case: found 'title', expected upper or lower"),
        ("[fields.a]\nonly_listed_values = true", "fields.a.only_listed_values: found without values"),
        ('[fields.a]\ntime_zone = "UTC"', "fields.a.time_zone: found without date_format"),
        ("[fields.a.values]\nx = 1", "fields.a.values.x: found a number, expected text in quotes"),
        ('ignore = "x"', "ignore: found text, expected a list"),
        ('ignore = ["x", 1]', "ignore[1]: found a number, expected text in quotes"),
        ('ignore = ["x", "x"]', "ignore[1]: found the column 'x' twice"),
        ('[fields.""]\ntrim = true', "fields: found an empty name, expected a field's"),
        ('ignore = ["x"]\n[entities.users]\n', "entities: found beside fields or ignore"),
        ("[entities.users]\ntrim = true", "entities.users.trim: found an unknown key, expected one of fields, ignore"),
        ("[entities.users.fields.a]\nx = 1", "entities.users.fields.a.x: found an unknown key"),
        ("fields = [", "no TOML: "),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(text: str, complaint: str):
    with pytest.raises(MappingFileError) as caught:
        parse_mapping(text, "toml")

    assert str(caught.value).startswith(complaint)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "the file: found a list, expected a table"),
        ('{"fields": {"a": {}, "a": {}}}', "found the key 'a' twice in one object"),
        ('{"fields": null}', "fields: found null, expected a table"),
        ("{", "no JSON: "),
        ("[" * 100_000, "no mapping: nested too deeply"),
    ],
)
def test_json_that_is_no_mapping_is_refused(text: str, complaint: str):
    with pytest.raises(MappingFileError) as caught:
        parse_mapping(text, "json")

    assert str(caught.value).startswith(complaint)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("m.yaml", b"", "m.yaml: found the ending 'yaml', expected toml or json"),
        ("m.toml", b"\xff", "m.toml: found byte 0 that is not UTF-8"),
        ("m.toml", b"[fields.a]\nx = 1", "m.toml: fields.a.x: found an unknown key"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_by_its_name(tmp_path: Path, name: str, content: bytes, complaint: str):
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(MappingFileError) as caught:
        read_mapping(path)

    assert str(caught.value).startswith(complaint)
