"""docs/configuration.md, made from the settings themselves, so that it cannot tell of others."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from engine.config import PREFIX, Settings

HEAD = """\
# Configuration

Made from `engine/config.py` by `dataops-admin config docs`; a test fails when they differ.

Each setting is a variable, or a line of the TOML file that `DATAOPS_CONFIG` names (there in lower case and without the
prefix); a variable wins over the file. A text setting can also be read from a file: `DATAOPS_CONTROL_DSN_FILE` names
the file that holds what `DATAOPS_CONTROL_DSN` would. Durations are seconds, sizes bytes. Unknown names are refused.
Settings marked *secret* are never shown nor logged.

| variable | default | what it decides |
| --- | --- | --- |
"""


def document() -> str:
    """The whole page."""
    return HEAD + "".join(_line(name, field) for name, field in Settings.model_fields.items())


def _line(name: str, field: FieldInfo) -> str:
    about = (field.description or "").replace("|", "\\|")
    secret = "" if field.repr else " *Secret.*"
    return f"| `{PREFIX}{name.upper()}` | {_default(field)} | {about}{_limits(field)}{secret} |\n"


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "*required*"
    if field.default is None or field.default == "":
        return "empty"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{field.default}`"


def _limits(field: FieldInfo) -> str:
    words = {Ge: "at least", Gt: "more than", Le: "at most"}
    found = [f"{words[type(m)]} {_bound(m)}" for m in field.metadata if type(m) in words]
    if _is_path(field.annotation):
        found.append("a path")
    return f" ({', '.join(found)})" if found else ""


def _bound(limit: Any) -> Any:
    return next(value for value in (getattr(limit, side, None) for side in ("ge", "gt", "le")) if value is not None)


def _is_path(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return Path in get_args(annotation)
    return annotation is Path
