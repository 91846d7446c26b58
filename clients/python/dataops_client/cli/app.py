"""The command's root: global options, the groups, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dataops_client import cli
from dataops_client.cli import (
    access,
    backup,
    catalog,
    exits,
    exporting,
    exports,
    importing,
    imports,
    jobs,
    overview,
    restore,
    retention,
    schedule,
    uploads,
    webhook,
)
from dataops_client.cli import output as out
from dataops_client.cli.failures import lines_of
from dataops_client.cli.settings import Settings, SettingsError


class _Reporting(TyperGroup):
    """Every failure of a command is a line on standard error, of a job some more, and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            out.complain("interrupted; what was started at the server goes on: dataops jobs list")
            raise typer.Exit(exits.INTERRUPTED) from None
        except (SettingsError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            out.complain(_of_file(error) if isinstance(error, OSError) else str(error))
            raise typer.Exit(exits.USAGE) from None
        except Exception as error:
            from dataops_client.errors import DataOpsError

            if not isinstance(error, DataOpsError):
                raise
            first, *more = lines_of(error)
            out.complain(first)
            for line in more:
                out.remark(line)
            raise typer.Exit(exits.code_of(error)) from None


def _epilog(text: str) -> str:
    """The package's docstring after its title; in help, only an empty line ends a line."""
    _, output, codes = text.split("\n\n", 2)
    codes = codes.replace("\n         ", " ")  # a line that goes on
    return output.replace("\n", " ") + "\n\n" + codes.replace("\n    ", "\n\n")


app = typer.Typer(
    cls=_Reporting,
    no_args_is_help=True,
    help="Governed export, import, backup and restore of a platform's data.",
    epilog=_epilog(cli.__doc__ or ""),
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("overview")(overview.overview)
app.command("entities")(catalog.entities)
app.command("import")(importing.import_file)
app.add_typer(imports.group, name="imports", help="Look at imports, apply or cancel them.")
app.add_typer(uploads.group, name="uploads", help="Look at uploads, end them.")
app.command("export")(exporting.export)
app.add_typer(exports.group, name="exports", help="Look at exports, download, cancel or delete them.")
app.add_typer(backup.group, name="backup", help="Make backups, look at them, prove them, take rows out of them.")
app.add_typer(restore.group, name="restore", help="Go back to a backup: plan it, confirm it, follow it.")
app.add_typer(retention.group, name="retention", help="Look at what retention would remove.")
app.add_typer(schedule.group, name="schedule", help="Backups that happen by themselves: when, of what, how long kept.")
app.add_typer(jobs.group, name="jobs", help="Look at jobs, follow, cancel or retry them.")
app.add_typer(webhook.group, name="webhook", help="Have other systems told when jobs end.")
app.command("whoami")(access.whoami)


def _show_version(wanted: bool) -> None:
    if wanted:
        from dataops_client.version import VERSION

        print(f"dataops {VERSION}")
        raise typer.Exit


@app.callback()
def configure(
    context: typer.Context,
    address: Annotated[
        str, typer.Option(envvar="DATAOPS_ADDRESS", help="Server, as host:port.", show_default=False)
    ] = "",
    ca_file: Annotated[
        Path | None, typer.Option(envvar="DATAOPS_CA_FILE", help="Authorities to trust (PEM); else the system's.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(envvar="DATAOPS_TOKEN_FILE", help="File with the token. There is no --token: others see it."),
    ] = None,
    stack: Annotated[
        Path | None, typer.Option(envvar="DATAOPS_STACK", help="build/stack.json of `make up`, for all of these.")
    ] = None,
    role: Annotated[str, typer.Option(envvar="DATAOPS_ROLE", help="Which token of --stack to use.")] = "admin",
    server_name: Annotated[str, typer.Option(help="Name expected in the certificate, if not the address.")] = "",
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Take the global options; a token may also stand in DATAOPS_TOKEN."""
    said = {name for name in context.params if _stands_on_the_command_line(context, name)}
    context.obj = Settings(
        address=address,
        ca_file=ca_file,
        token=os.environ.get("DATAOPS_TOKEN", "").strip(),
        token_file=token_file,
        stack=stack,
        role=role,
        server_name=server_name,
    ).ranked(said)


def _stands_on_the_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def run(arguments: Sequence[str] | None) -> int:
    """Run the command; the exit code."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="dataops")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else exits.FAILED
    return 0


def _of_file(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
