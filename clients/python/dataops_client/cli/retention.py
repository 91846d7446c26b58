"""`dataops retention`."""

from __future__ import annotations

from typing import Annotated

import typer

from dataops_client.cli import output as out
from dataops_client.cli.options import JsonOption, Output, OutputOption, wants_json
from dataops_client.cli.plain import plain
from dataops_client.cli.settings import Settings

group = typer.Typer(no_args_is_help=True)


@group.callback()
def _group() -> None:
    """With one command only, typer would leave its name out."""


@group.command()
def preview(
    context: typer.Context,
    removals_only: Annotated[bool, typer.Option("--removals-only", help="Only what would be removed.")] = False,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Show what retention would remove now, and what keeps the rest. Removes nothing."""
    settings: Settings = context.obj
    with settings.connect() as client:
        decisions, freeable = client.preview_retention(removals_only=removals_only)
    if wants_json(output, json):
        out.as_json({"decisions": [plain(d) for d in decisions], "freeable_size_bytes": freeable})
        return
    out.table(
        ("resource", "goes", "code", "frees", "why"),
        (
            (
                d.resource,
                "goes" if d.remove else "",
                d.code,
                out.size(d.freeable_size_bytes) if d.remove else "",
                d.message,
            )
            for d in decisions
        ),
    )
    going = sum(d.remove for d in decisions)
    print(f"\n{going:,} would be removed, which frees {out.size(freeable)}; nothing was removed now")
