"""Refuses a filter that can find nothing: an entity that an import does not touch, a field that there is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from dataops_client.cli.options import listed

if TYPE_CHECKING:
    from dataops_client.client import DataOps


def refuse_unknown(client: DataOps, import_id: str, *, entity: str = "", field: str = "") -> None:
    """Compare what a list is narrowed to with the import's entities and the catalog; nothing is asked for nothing.

    Raises:
        typer.BadParameter: the import has no such entity, or none of its entities such a field.
        DataOpsError: there is no such import.
    """
    if not (entity or field):
        return
    found = client.get_import(import_id)
    known = sorted({*found.entity_types, *(planned.entity for planned in found.plan.entities)} - {""})
    if entity:
        refuse_unknown_entity("import", entity, known)
    if field:
        _refuse_field(client, [entity] if entity else known, field)


def refuse_unknown_entity(what: str, entity: str, known: Sequence[str]) -> None:
    """Compare it with those that are known; while none is, nothing is refused.

    Raises:
        typer.BadParameter: it is none of them.
    """
    if known and entity not in known:
        raise typer.BadParameter(f"--entity {entity}: the {what} has no such entity; expected {listed(known)}")


def _refuse_field(client: DataOps, entities: Sequence[str], field: str) -> None:
    from dataops_client.errors import NotFound, PermissionDenied

    names: set[str] = set()
    for entity in entities:
        try:
            names.update(known.name for known in client.entity(entity).fields)
        except (NotFound, PermissionDenied):  # gone since, or not ours to see: the server has the word
            return
        if field in names:
            return
    if names:
        of = entities[0] if len(entities) == 1 else "the import's entities"
        raise typer.BadParameter(f"--field {field}: no field of {of}; expected {listed(sorted(names))}")
