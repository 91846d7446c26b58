"""`dataops exports`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dataops_client.cli import output as out
from dataops_client.cli.cancelling import tell_cancelled
from dataops_client.cli.course import on_course
from dataops_client.cli.options import (
    FileOption,
    JsonOnlyOption,
    JsonOption,
    LimitOption,
    Output,
    OutputOption,
    QuietOption,
    ReasonOption,
    StatusOption,
    chosen,
    wants_json,
)
from dataops_client.cli.plain import enum_word, plain
from dataops_client.cli.progress import telling
from dataops_client.cli.settings import Settings

if TYPE_CHECKING:
    from dataops.v1 import exports_pb2

group = typer.Typer(no_args_is_help=True)

ExportArgument = Annotated[str, typer.Argument(help="The export's id.", metavar="EXPORT")]


@group.command("list")
def list_exports(
    context: typer.Context,
    entity: Annotated[str, typer.Option("--entity", help="Only of this entity.")] = "",
    status: StatusOption = None,
    limit: LimitOption = 20,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """List exports, newest first."""
    from dataops.v1 import exports_pb2

    settings: Settings = context.obj
    statuses = chosen(status or [], exports_pb2.ExportStatus.Value, "EXPORT_STATUS_", "status of an export")
    with settings.connect() as client:
        found = client.list_exports(entity=entity, statuses=statuses, limit=limit)
    if wants_json(output, json):
        out.messages_as_json(found)
        return
    out.table(
        ("export", "entities", "format", "status", "rows", "size", "created"),
        (
            (
                e.export_id,
                ",".join(e.entity_types),
                enum_word(e, "format"),
                enum_word(e, "status"),
                e.record_count,
                out.size(e.file_size_bytes),
                e.created_at.ToJsonString(),
            )
            for e in found
        ),
    )


@group.command()
def show(
    context: typer.Context, export_id: ExportArgument, output: OutputOption = Output.TEXT, json: JsonOption = False
) -> None:
    """Show one export."""
    settings: Settings = context.obj
    with settings.connect() as client:
        _print(client.get_export(export_id), as_json=wants_json(output, json))


@group.command()
def download(
    context: typer.Context,
    export_id: ExportArgument,
    output: FileOption,
    json: JsonOnlyOption = False,
    quiet: QuietOption = False,
) -> None:
    """Download an export's file; one that is being written is followed to its end.

    What an earlier attempt left beside the file is taken up: nothing is sent twice.
    """
    settings: Settings = context.obj
    with settings.connect() as client, on_course("the same command again goes on with the download"):
        with telling(quiet=quiet) as narration:
            got = client.download_export(export_id, output, follow=True, on_bytes=narration.downloaded)
        out.show_downloaded(got, as_json=json)


@group.command()
def cancel(
    context: typer.Context,
    export_id: ExportArgument,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Stop an export that is not complete. Ends with 5 if it had ended already."""
    settings: Settings = context.obj
    with settings.connect() as client:
        before = client.get_export(export_id)
        after = client.cancel_export(export_id, reason)
        _print(after, as_json=wants_json(output, json))
    tell_cancelled(enum_word(before, "status"), enum_word(after, "status"), after.job_id)


@group.command()
def delete(
    context: typer.Context,
    export_id: ExportArgument,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Delete an export's file; its record stays."""
    settings: Settings = context.obj
    with settings.connect() as client:
        _print(client.delete_export(export_id, reason), as_json=wants_json(output, json))


def _print(export: exports_pb2.Export, *, as_json: bool) -> None:
    if as_json:
        out.as_json(plain(export))
        return
    out.facts(
        [
            ("export", export.export_id),
            ("status", enum_word(export, "status")),
            ("type", enum_word(export, "export_type")),
            ("format", enum_word(export, "format")),
            ("entities", ", ".join(export.entity_types)),
            ("rows", f"{export.record_count:,}"),
            ("size", out.size(export.file_size_bytes)),
            ("sha256", export.sha256.hex()),
            ("expires", export.expires_at.ToJsonString() if export.HasField("expires_at") else ""),
            ("error", f"{export.error.reason}: {export.error.message}" if export.HasField("error") else ""),
            *((notice.code, notice.message) for notice in export.notices),
        ]
    )
    if len(export.entities) > 1:
        print()
        out.table(("entity", "rows", "file"), ((e.entity, f"{e.record_count:,}", e.file_name) for e in export.entities))
