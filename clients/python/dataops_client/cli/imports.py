"""`dataops imports`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from dataops_client.cli import exits
from dataops_client.cli import output as out
from dataops_client.cli.asking import require_yes
from dataops_client.cli.cancelling import tell_cancelled
from dataops_client.cli.course import on_course
from dataops_client.cli.import_options import DeletesOption, StrictOption, YesOption
from dataops_client.cli.importing import Manner, decide, exit_as, show_end
from dataops_client.cli.narrowing import refuse_unknown
from dataops_client.cli.options import (
    FileOption,
    JsonOnlyOption,
    JsonOption,
    LimitOption,
    Output,
    OutputOption,
    QuietOption,
    ReasonOption,
    RowsOption,
    StatusOption,
    chosen,
    page_of,
    wants_json,
)
from dataops_client.cli.plain import enum_word, plain
from dataops_client.cli.plan import show_changes, show_decision, show_plan
from dataops_client.cli.progress import telling
from dataops_client.cli.settings import Settings

if TYPE_CHECKING:
    from dataops.v1 import imports_pb2

    from dataops_client.client import DataOps

group = typer.Typer(no_args_is_help=True)

ImportArgument = Annotated[str, typer.Argument(help="The import's id.", metavar="IMPORT")]
OfEntityOption = Annotated[str, typer.Option("--entity", help="Only of this entity.")]


@group.command("list")
def list_imports(
    context: typer.Context,
    entity: OfEntityOption = "",
    status: StatusOption = None,
    limit: LimitOption = 20,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """List imports, newest first."""
    from dataops.v1 import imports_pb2

    settings: Settings = context.obj
    statuses = chosen(status or [], imports_pb2.ImportStatus.Value, "IMPORT_STATUS_", "status of an import")
    with settings.connect() as client:
        found = client.list_imports(entity=entity, statuses=statuses, limit=limit)
    if wants_json(output, json):
        out.messages_as_json(found)
        return
    out.table(
        ("import", "entity", "mode", "status", "rows", "taken", "not taken", "created"),
        (
            (
                i.import_id,
                i.entity_type or ",".join(i.entity_types),
                enum_word(i, "import_type"),
                enum_word(i, "status"),
                i.total_records,
                i.successful_records,
                i.failed_records,
                i.created_at.ToJsonString(),
            )
            for i in found
        ),
    )


@group.command()
def show(
    context: typer.Context, import_id: ImportArgument, output: OutputOption = Output.TEXT, json: JsonOption = False
) -> None:
    """Show one import: its report, or its plan."""
    settings: Settings = context.obj
    with settings.connect() as client:
        _print(client.get_import(import_id), as_json=wants_json(output, json))


@group.command()
def changes(
    context: typer.Context,
    import_id: ImportArgument,
    kind: Annotated[str, typer.Option(help="insert, update, unchanged, delete, skip or cascade.")] = "",
    entity: OfEntityOption = "",
    field: Annotated[str, typer.Option(help="Only updates that give this field another value.")] = "",
    limit: RowsOption = 100,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """List what the plan does to each row: old -> new."""
    from dataops.v1 import imports_pb2

    settings: Settings = context.obj
    kinds = chosen([kind] if kind else [], imports_pb2.ChangeKind.Value, "CHANGE_KIND_", "kind of change")
    with settings.connect() as client:
        refuse_unknown(client, import_id, entity=entity, field=field)
        found = client.import_changes(
            import_id,
            kind=kinds[0] if kinds else imports_pb2.CHANGE_KIND_UNSPECIFIED,
            entity=entity,
            field=field,
            page_size=page_of(limit),
        )
        shown = islice(found, limit or None)
        if wants_json(output, json):
            out.messages_as_json(shown)
        else:
            show_changes(shown)


@group.command()
def errors(
    context: typer.Context,
    import_id: ImportArgument,
    code: Annotated[str, typer.Option(help="Only with this code, for example REQUIRED.")] = "",
    severity: Annotated[str, typer.Option(help="failed (bad rows) or skipped (good ones that the mode leaves).")] = "",
    entity: OfEntityOption = "",
    limit: RowsOption = 0,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """List the rows that were not taken."""
    from dataops.v1 import imports_pb2

    settings: Settings = context.obj
    words = [severity] if severity else []
    severities = chosen(words, imports_pb2.RowErrorSeverity.Value, "ROW_ERROR_SEVERITY_", "severity")
    with settings.connect() as client:
        refuse_unknown(client, import_id, entity=entity)
        found = client.import_errors(
            import_id,
            severity=severities[0] if severities else imports_pb2.ROW_ERROR_SEVERITY_UNSPECIFIED,
            code=code.upper(),
            entity=entity,
            page_size=page_of(limit),
        )
        shown = islice(found, limit or None)
        if wants_json(output, json):
            out.messages_as_json(shown)
        else:
            out.show_row_errors(shown)


@group.command("apply")
def apply_import(
    context: typer.Context,
    import_id: ImportArgument,
    yes: YesOption = False,
    confirm_deletes: DeletesOption = None,
    strict: StrictOption = False,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show an import's plan and apply exactly that."""
    settings: Settings = context.obj
    manner = Manner(
        yes=yes,
        confirm_deletes=confirm_deletes,
        strict=strict,
        reason=reason,
        as_json=wants_json(output, json),
        quiet=quiet,
    )
    with settings.connect() as client, on_course("nothing was started") as course:
        done = decide(client, client.get_import(import_id), manner, course)
        show_end(client, done, manner, course)
        exit_as(done, manner)


@group.command()
def approve(
    context: typer.Context,
    import_id: ImportArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Approve without asking.")] = False,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Show the plan of another person's import and approve exactly that; who made it can apply it then."""
    settings: Settings = context.obj
    as_json = wants_json(output, json)
    with settings.connect() as client, on_course("nothing was approved"):
        planned = client.get_import(import_id)
        if not yes:
            _ask_for_approval(client, planned, as_json=as_json)
        approved = client.approve_import(planned, reason=reason)
    if as_json:
        out.as_json(plain(approved))
        return
    if yes:
        show_plan(approved)
    if enum_word(approved, "status") == "AWAITING_APPROVAL":
        print(f"\napproved, nothing is changed yet; anybody but you applies it: dataops imports apply {import_id}")
    else:
        print(f"\nit was approved before; the import is {enum_word(approved, 'status')}")


@group.command()
def cancel(
    context: typer.Context,
    import_id: ImportArgument,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Stop an import; one that is being applied is rolled back. Ends with 5 if it had ended already."""
    settings: Settings = context.obj
    with settings.connect() as client:
        before = client.get_import(import_id)
        after = client.cancel_import(import_id, reason)
        _print(after, as_json=wants_json(output, json))
    tell_cancelled(enum_word(before, "status"), enum_word(after, "status"), after.apply_job_id or after.plan_job_id)


@group.command()
def report(
    context: typer.Context,
    import_id: ImportArgument,
    output: FileOption,
    part: Annotated[str, typer.Option(help="report, rejects or changes.")] = "report",
    json: JsonOnlyOption = False,
    quiet: QuietOption = False,
) -> None:
    """Download an import's report, the rows not taken, or the changes, which are waited for while they are made."""
    from dataops.v1 import imports_pb2

    settings: Settings = context.obj
    (number,) = chosen([part], imports_pb2.ReportPart.Value, "REPORT_PART_", "part of a report")
    with settings.connect() as client:
        with telling(quiet=quiet) as narration:
            got = client.download_report(
                import_id, number, output, on_bytes=narration.downloaded, on_waiting=narration.waiting
            )
        out.show_downloaded(got, as_json=json)


def _ask_for_approval(client: DataOps, planned: imports_pb2.Import, *, as_json: bool) -> None:
    """Return when a person says yes.

    Raises:
        typer.Exit: REFUSED if there is nothing to approve, NOT_APPLIED without a yes.
    """
    from dataops.v1 import imports_pb2

    if planned.status != imports_pb2.IMPORT_STATUS_AWAITING_APPROVAL:
        out.complain(f"found the import {enum_word(planned, 'status')}, expected it AWAITING_APPROVAL")
        raise typer.Exit(exits.REFUSED)
    require_yes("approve", "imports", "Approve this plan?", lambda: show_decision(client, planned), as_json=as_json)


def _print(found: imports_pb2.Import, *, as_json: bool) -> None:
    if as_json:
        out.as_json(plain(found))
    elif found.HasField("report"):
        out.show_report(found)
    elif found.HasField("plan") and not found.HasField("error"):
        show_plan(found)
    else:
        out.show_import(found)
