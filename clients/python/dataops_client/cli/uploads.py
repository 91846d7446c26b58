"""`dataops uploads`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dataops_client.cli import exits
from dataops_client.cli import output as out
from dataops_client.cli.options import JsonOption, LimitOption, Output, OutputOption, ReasonOption, chosen, wants_json
from dataops_client.cli.plain import enum_word, plain
from dataops_client.cli.settings import Settings

if TYPE_CHECKING:
    from dataops.v1 import uploads_pb2

group = typer.Typer(no_args_is_help=True)

UploadArgument = Annotated[str, typer.Argument(help="The upload's id.", metavar="UPLOAD")]
StateOption = Annotated[list[str] | None, typer.Option(help="Only in this state, e.g. open; repeatable.")]


@group.command("list")
def list_uploads(
    context: typer.Context,
    state: StateOption = None,
    limit: LimitOption = 20,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """List uploads, newest first: one's own, or everyone's for who may manage them."""
    from dataops.v1 import uploads_pb2

    settings: Settings = context.obj
    states = chosen(state or [], uploads_pb2.UploadState.Value, "UPLOAD_STATE_", "state of an upload")
    with settings.connect() as client:
        found = client.list_uploads(states=states, limit=limit)
    if wants_json(output, json):
        out.messages_as_json(found)
        return
    out.table(
        ("upload", "file", "state", "arrived", "of", "owner", "created"),
        (
            (
                u.upload_id,
                u.file_name,
                enum_word(u, "state"),
                out.size(u.committed_size),
                out.size(u.declared_size) if u.HasField("declared_size") else "",
                u.owner.subject,
                u.created_at.ToJsonString(),
            )
            for u in found
        ),
    )


@group.command()
def abort(
    context: typer.Context,
    upload: UploadArgument,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """End an upload and delete its bytes. Ends with 5 if there was nothing to end."""
    from dataops.v1 import uploads_pb2

    settings: Settings = context.obj
    with settings.connect() as client:
        before = client.get_upload(upload)
        usable = before.state in (uploads_pb2.UPLOAD_STATE_OPEN, uploads_pb2.UPLOAD_STATE_FINISHED)
        after = client.abort_upload(upload, reason) if usable else before
    _print(after, as_json=wants_json(output, json))
    if not usable:
        out.complain(f"already {enum_word(before, 'state')}, nothing was aborted")
        raise typer.Exit(exits.REFUSED)


def _print(upload: uploads_pb2.Upload, *, as_json: bool) -> None:
    if as_json:
        out.as_json(plain(upload))
        return
    out.facts(
        [
            ("upload", upload.upload_id),
            ("file", upload.file_name),
            ("state", enum_word(upload, "state")),
            ("arrived", out.size(upload.committed_size)),
        ]
    )
