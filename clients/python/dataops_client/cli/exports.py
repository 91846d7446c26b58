"""`dataops export` and `dataops exports`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dataops_client.cli import output as out
from dataops_client.cli.options import (
    FileOption,
    JsonOption,
    LimitOption,
    Output,
    OutputOption,
    QuietOption,
    ReasonOption,
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


def export(
    context: typer.Context,
    entities: Annotated[list[str], typer.Argument(help="What to export.", metavar="ENTITY...")],
    output: FileOption,
    file_format: Annotated[str, typer.Option("--format", help="csv, json …; else from the file's name.")] = "",
    columns: Annotated[str, typer.Option(help="Fields, with commas between; else all that are not secret.")] = "",
    delimiter: Annotated[str, typer.Option(help="Character between the cells of a CSV file.")] = "",
    formula_guard: Annotated[bool, typer.Option(help="Keep spreadsheets from running text as a formula.")] = True,
    reason: ReasonOption = "",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Export all rows of an entity into a file, received while it is being written."""
    from dataops.v1 import common_pb2, exports_pb2

    settings: Settings = context.obj
    chosen_format = file_format or output.suffix.lstrip(".") or "csv"
    (number,) = chosen([chosen_format], common_pb2.FileFormat.Value, "FILE_FORMAT_", "format; give --format")
    options = exports_pb2.ExportOptions(formula_guard=formula_guard)
    if delimiter:
        options.csv.delimiter = delimiter
    with settings.connect() as client, telling(quiet=quiet) as narration:
        done = client.export_to(
            output,
            entities,
            file_format=number,
            columns=[column.strip() for column in columns.split(",") if column.strip()],
            options=options,
            reason=reason,
            on_bytes=narration.downloaded,
        )
    if json:
        out.as_json(plain(done))
    else:
        print(f"{done.record_count:,} rows, {out.size(done.file_size_bytes)}, in {output}")


@group.command("list")
def list_exports(
    context: typer.Context,
    limit: LimitOption = 20,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """List exports, newest first."""
    settings: Settings = context.obj
    with settings.connect() as client:
        found = client.list_exports(limit=limit)
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
def download(context: typer.Context, export_id: ExportArgument, output: FileOption, quiet: QuietOption = False) -> None:
    """Download an export's file; one that is being written is followed to its end."""
    settings: Settings = context.obj
    with settings.connect() as client, telling(quiet=quiet) as narration:
        got = client.download_export(export_id, output, follow=True, on_bytes=narration.downloaded)
    print(f"{out.size(got.size)} in {output}, sha256 {got.sha256.hex()}")


@group.command()
def cancel(
    context: typer.Context,
    export_id: ExportArgument,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Stop an export that is not complete."""
    settings: Settings = context.obj
    with settings.connect() as client:
        _print(client.cancel_export(export_id, reason), as_json=wants_json(output, json))


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
            ("entities", ", ".join(export.entity_types)),
            ("rows", f"{export.record_count:,}"),
            ("size", out.size(export.file_size_bytes)),
            ("sha256", export.sha256.hex()),
            ("error", f"{export.error.reason}: {export.error.message}" if export.HasField("error") else ""),
        ]
    )
