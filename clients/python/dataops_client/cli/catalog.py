"""`dataops entities`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dataops_client.cli import output as out
from dataops_client.cli.options import JsonOption, Output, OutputOption, wants_json
from dataops_client.cli.plain import plain
from dataops_client.cli.settings import Settings

if TYPE_CHECKING:
    from dataops.v1 import catalog_pb2


def entities(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="One entity, to see its fields.", show_default=False)] = "",
    group: Annotated[str, typer.Option(help="Only entities of this group.")] = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """List what can be exported and imported, or the fields of one entity. Rows are the database's estimate."""
    settings: Settings = context.obj
    with settings.connect() as client:
        if name:
            _show(client.entity(name), as_json=wants_json(output, json))
            return
        found = list(client.entities(group))
    if wants_json(output, json):
        out.messages_as_json(found)
        return
    out.table(
        ("entity", "group", "rows", "size", "key"),
        ((e.name, e.group, e.estimated_rows, out.size(e.size_bytes), ",".join(e.key_fields)) for e in found),
    )


def _show(entity: catalog_pb2.Entity, *, as_json: bool) -> None:
    if as_json:
        out.as_json(plain(entity))
        return
    out.table(
        ("field", "type", "key", "required", "unique", "filterable", "secret", "generated", "reference"),
        (
            (
                field.name,
                field.type,
                "key" if field.name in entity.key_fields else "",
                "required" if field.required else "",
                "unique" if field.unique else "",
                "filterable" if field.filterable else "",
                "secret" if field.secret else "",
                "generated" if field.generated or field.identity else "",
                f"{field.reference.entity}.{field.reference.field}" if field.HasField("reference") else "",
            )
            for field in entity.fields
        ),
    )
