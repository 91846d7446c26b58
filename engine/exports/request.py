"""From what is asked for to what will be written: which entities, and whether everything fits together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from engine.access import Caller
from engine.catalog import Catalog, Entity
from engine.errors import FailedPrecondition, InvalidRequest
from engine.exports.model import Compression, ExportFormat, ExportRequest, ExportType
from engine.exports.query import exported_fields
from engine.exports.selection import Value, check_selection
from engine.formats.bundle import MAX_MEMBERS
from engine.jobs.model import Severity

Notice = dict[str, Any]
"""`{code, message, severity, metadata}`, as a job's event keeps it."""


@dataclass(frozen=True)
class Resolved:
    """A request that can be done. `values` are still to be looked at by PostgreSQL."""

    request: ExportRequest
    """With the names of entities instead of groups."""
    entities: tuple[Entity, ...]
    values: tuple[Value, ...]
    notices: tuple[Notice, ...]


def resolve(catalog: Catalog, caller: Caller, request: ExportRequest) -> Resolved:
    """What the request comes to in this catalog, for this caller.

    Raises:
        NotFound: ENTITY_UNKNOWN.
        PermissionDenied: PERMISSION_MISSING, naming the first entity the caller may not export.
        FailedPrecondition: ENTITY_NOT_EXPORTABLE.
        InvalidRequest: OPTION_INVALID, FILTER_NEEDS_PARTIAL, and what `exported_fields` and `check_selection` refuse.
    """
    _check_options(request)
    if request.export_type is ExportType.FULL:
        entities, notices = _all(catalog)
    else:
        permit = partial(caller.require, "exports.create")
        entities, notices = catalog.named(request.entity_types, permit), []
    for entity in entities:
        caller.require("exports.create", entity.name)
        if why := not_exportable(entity):
            raise FailedPrecondition(f"{entity.name}: {why}", reason="ENTITY_NOT_EXPORTABLE")
    _check_number(request, len(entities))
    values: list[Value] = []
    for entity in entities:
        exported_fields(entity, request.options)
        values += check_selection(entity, request.selection, alone=len(entities) == 1)
    request = replace(request, entity_types=tuple(entity.name for entity in entities))
    return Resolved(request, tuple(entities), tuple(values), tuple(notices))


def not_exportable(entity: Entity) -> str:
    """Why nothing of the entity can be exported; empty when something can."""
    return entity.refused or ("" if any(not f.secret for f in entity.fields) else "it has no field that is not secret")


def not_covered(catalog: Catalog, taken: Sequence[str]) -> list[Notice]:
    """A notice for everything of the catalog that an export of `taken` leaves out."""
    found = [(other.name, other.why) for other in catalog.not_covered]
    for entity in catalog.entities():
        if entity.name not in taken:
            found.append((entity.name, not_exportable(entity) or "it came after the export was asked for"))
    return [
        {
            "code": "NOT_COVERED",
            "message": f"{name} is not in the file: {why}",
            "severity": Severity.WARNING.value,
            "metadata": {"entity": name, "why": why},
        }
        for name, why in found
    ]


def _check_options(request: ExportRequest) -> None:
    options, selection = request.options, request.selection
    delimiter = options.delimiter
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\\\0' or delimiter.isalnum():
        raise _invalid(f"delimiter: expected one ASCII mark, found {delimiter!r}")
    if request.format is ExportFormat.BUNDLE and options.compression is not Compression.NONE:
        raise _invalid(f"compression: a bundle compresses by itself, found {options.compression}")
    if selection.limit < 0:
        raise _invalid(f"limit: expected 0 or more rows, found {selection.limit}")
    if request.export_type is not ExportType.PARTIAL:
        if selection.filters:
            raise InvalidRequest(f"filter: needs PARTIAL, found {request.export_type}", reason="FILTER_NEEDS_PARTIAL")
        if selection.order_by or selection.limit:
            raise _invalid(f"order_by and limit: need PARTIAL, found {request.export_type}")
    if request.export_type is ExportType.FULL:
        if request.entity_types:
            raise _invalid(f"entity_types: FULL takes all, found {len(request.entity_types)} names")
        if request.format is not ExportFormat.BUNDLE:
            raise _invalid(f"format: expected BUNDLE for FULL, found {request.format}")
        if options.columns:
            raise _invalid("columns: need one entity, found FULL")
    elif not request.entity_types:
        raise _invalid(f"entity_types: expected names of entities or groups for {request.export_type}, found none")


def _check_number(request: ExportRequest, count: int) -> None:
    """What only one entity can have."""
    if count == 1:
        return
    if count > MAX_MEMBERS:
        raise _invalid(f"entity_types: a bundle holds at most {MAX_MEMBERS:,} entities, found {count:,}")
    if request.format is not ExportFormat.BUNDLE:
        raise _invalid(f"format: expected BUNDLE for {count} entities, found {request.format}")
    if request.options.columns:
        raise _invalid(f"columns: need one entity, found {count}")
    if request.selection.order_by:
        raise _invalid(f"order_by: needs one entity, found {count}")


def _all(catalog: Catalog) -> tuple[list[Entity], list[Notice]]:
    entities = [entity for entity in catalog.entities() if not not_exportable(entity)]
    if not entities:
        raise FailedPrecondition("found no entity that can be exported", reason="ENTITY_NOT_EXPORTABLE")
    return entities, not_covered(catalog, [entity.name for entity in entities])


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, reason="OPTION_INVALID")
