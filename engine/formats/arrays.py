"""Arrays, from JSON to PostgreSQL's own spelling."""

from __future__ import annotations

import json
import re

_RAW = re.compile(r"[A-Za-z0-9_.+-]+")
"""Elements that need no quotes, unless they are NULL."""


class _Number(str):
    """A JSON number as the file writes it: no float stands between it and the database."""


def array_literal(json_text: str) -> str:
    """The array literal of a JSON array; what is no JSON array comes back as it is.

    Nested arrays become further dimensions, objects become elements of JSON text, null becomes NULL.
    """
    try:
        value = json.loads(json_text, parse_int=_Number, parse_float=_Number, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return json_text
    return _array(value) if isinstance(value, list) else json_text


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _array(items: list[object]) -> str:
    return "{" + ",".join(_array(item) if isinstance(item, list) else _element(item) for item in items) + "}"


def _element(item: object) -> str:
    if item is None:
        return "NULL"
    if isinstance(item, bool):
        return "true" if item else "false"
    text = item if isinstance(item, str) else _json(item)
    if _RAW.fullmatch(text) and text.upper() != "NULL":
        return str(text)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _json(value: object) -> str:
    """JSON text again, numbers as they were."""
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
