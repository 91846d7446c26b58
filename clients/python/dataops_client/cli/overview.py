"""`dataops overview`."""

from __future__ import annotations

from typing import Annotated

import typer

from dataops_client.cli import output as out
from dataops_client.cli.options import JsonOption, Output, OutputOption, wants_json
from dataops_client.cli.plain import plain
from dataops_client.cli.settings import Settings


def overview(
    context: typer.Context,
    recent: Annotated[int, typer.Option(min=1, max=50, help="At most so many exports and imports, newest first.")] = 5,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Show backups, schedules, exports, imports and jobs on one screen; what needs somebody is marked with a !."""
    from dataops_client.cli.overview_output import show_overview

    settings: Settings = context.obj
    with settings.connect() as client:
        found = client.get_overview(recent)
    if wants_json(output, json):
        out.as_json(plain(found))
    else:
        show_overview(found)
