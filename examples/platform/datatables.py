"""Two DataTables as administrators would define them, with versions, fields and rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from examples.platform.rows import Table, Value, digest, timestamp, uuid_text

_FIELDS: dict[str, list[dict[str, Any]]] = {
    "fuel_cards": [
        {"name": "card_number", "type": "TEXT", "required": "t", "is_unique": "t", "pattern": "^FC[0-9]{8}$"},
        {"name": "pin", "type": "TEXT", "secret": "t", "max_length": "8"},
        {"name": "monthly_limit", "type": "DECIMAL", "required": "t", "min_value": "0", "max_value": "10000"},
        {"name": "network", "type": "CHOICE", "choices": "{NORTH,SOUTH}", "default_value": '"NORTH"'},
        {"name": "issued_on", "type": "DATE"},
        {"name": "blocked", "type": "BOOLEAN", "default_value": "false"},
    ],
    "inspections": [
        {"name": "title", "type": "TEXT", "required": "t", "max_length": "120"},
        {"name": "score", "type": "INTEGER", "required": "t", "min_value": "0", "max_value": "100"},
        {"name": "passed", "type": "BOOLEAN", "required": "t"},
        {"name": "inspected_at", "type": "DATETIME"},
        {"name": "fuel_card", "type": "REFERENCE", "reference_table": "fuel_cards"},
        {"name": "findings", "type": "JSON"},
    ],
}
_FIELD_COLUMNS = ("name", "type", "required", "is_unique", "default_value", "min_value", "max_value", "max_length",
                  "pattern", "choices", "reference_table", "secret")  # fmt: skip
_FLAGS = ("required", "is_unique", "secret")


def table_id(seed: int, name: str) -> str:
    """The key of one of our DataTables."""
    return uuid_text(digest(seed, f"datatable:{name}", 0))


def tables(seed: int, rows: int) -> Iterator[Table]:
    """The app's own four tables; ``rows`` in each DataTable."""
    names = list(_FIELDS)
    yield Table(
        "dataschema.data_table",
        ("table_id", "name", "label"),
        ((table_id(seed, name), name, name.replace("_", " ").title()) for name in names),
    )
    yield Table("dataschema.schema_version", ("version_id", "table_id", "number", "status"), _versions(seed))
    yield Table("dataschema.data_field", ("field_id", "version_id", "position", *_FIELD_COLUMNS), _fields(seed))
    yield Table("dataschema.data_row", ("row_id", "table_id", "data"), _rows(seed, rows))


def _version_id(seed: int, name: str, number: int) -> str:
    return uuid_text(digest(seed, f"version:{name}", number))


def _versions(seed: int) -> Iterator[tuple[Value, ...]]:
    for name in _FIELDS:
        for number, status in ((1, "ARCHIVED"), (2, "ACTIVE"), (3, "DRAFT")):
            yield (_version_id(seed, name, number), table_id(seed, name), str(number), status)


def _fields(seed: int) -> Iterator[tuple[Value, ...]]:
    for name, fields in _FIELDS.items():
        for number in (1, 2, 3):
            # version 1 lacked the last field, which is what made version 2
            for position, field in enumerate(fields[: len(fields) - (number == 1)], 1):
                values = dict.fromkeys(_FLAGS, "f") | field
                if "reference_table" in values:
                    values["reference_table"] = table_id(seed, values["reference_table"])
                key = uuid_text(digest(seed, f"field:{name}:{number}", position))
                yield (
                    key,
                    _version_id(seed, name, number),
                    str(position),
                    *(values.get(column) for column in _FIELD_COLUMNS),
                )


def _rows(seed: int, count: int) -> Iterator[tuple[Value, ...]]:
    cards, inspections = table_id(seed, "fuel_cards"), table_id(seed, "inspections")
    for index in range(count):
        raw = digest(seed, "fuel_card", index)
        card = {
            "card_number": f"FC{index:08d}",
            "pin": f"{int.from_bytes(raw[:2], 'big') % 10000:04d}",
            "monthly_limit": raw[2] * 10,
            "network": ("NORTH", "SOUTH")[raw[3] & 1],
            "issued_on": timestamp(raw[4] * 86400)[:10],
            "blocked": raw[5] < 16,
        }
        yield (uuid_text(raw), cards, json.dumps(card))
    for index in range(count):
        raw = digest(seed, "inspection", index)
        inspection = {
            "title": f"Yard inspection {index}",
            "score": raw[0] % 101,
            "passed": raw[0] % 101 >= 50,
            "inspected_at": timestamp(raw[1] * 86400).replace(" ", "T"),
            "fuel_card": uuid_text(digest(seed, "fuel_card", index)),
            "findings": ["lights", "tyres"][: raw[2] % 3],
        }
        yield (uuid_text(raw), inspections, json.dumps(inspection))
