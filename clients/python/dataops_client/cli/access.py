"""`dataops whoami`."""

from __future__ import annotations

import typer

from dataops_client.cli import output as out
from dataops_client.cli.options import JsonOption, Output, OutputOption, wants_json
from dataops_client.cli.plain import plain
from dataops_client.cli.settings import Settings


def whoami(context: typer.Context, output: OutputOption = Output.TEXT, json: JsonOption = False) -> None:
    """Show who the server takes you for and what you may do."""
    from dataops.v1 import access_pb2

    from dataops_client.errors import typed_errors

    settings: Settings = context.obj
    with settings.connect() as client, typed_errors():
        caller = client.access.GetCaller(access_pb2.GetCallerRequest())
    if wants_json(output, json):
        out.as_json(plain(caller))
        return
    out.facts(
        [
            ("subject", caller.principal.subject),
            ("issuer", caller.principal.issuer),
            ("principal", caller.principal.principal_id),
            ("roles", ", ".join(caller.roles) or "none"),
            ("may", ", ".join(sorted(p.operation for p in caller.permissions)) or "nothing"),
        ]
    )
