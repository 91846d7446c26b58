"""`dataops import` and `dataops imports`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dataops_client.cli import exits
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
    file_to_write,
    wants_json,
)
from dataops_client.cli.plain import enum_word, plain
from dataops_client.cli.progress import Narration, telling
from dataops_client.cli.settings import Settings

if TYPE_CHECKING:
    from dataops.v1 import imports_pb2

    from dataops_client.client import DataOps

group = typer.Typer(no_args_is_help=True)

_SAMPLE = 10
"""Rows not taken that are shown beside a plan; `dataops imports errors` has all."""

ImportArgument = Annotated[str, typer.Argument(help="The import's id.", metavar="IMPORT")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Apply the plan without asking.")]
DeletesOption = Annotated[
    int | None, typer.Option(min=0, help="Repeat the number of deletes, where the plan asks for it.")
]


def import_file(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="The file.")],
    entity: Annotated[str, typer.Option(help="The entity to import into.")],
    mode: Annotated[str, typer.Option(help="additive, upsert or replace.")] = "additive",
    file_format: Annotated[str, typer.Option("--format", help="csv, json …; else from the file's name.")] = "",
    yes: YesOption = False,
    plan_only: Annotated[bool, typer.Option("--plan-only", help="Show what would happen, and stop.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 8 if any row of the file failed.")] = False,
    column: Annotated[
        list[str] | None, typer.Option("--map", help="FIELD=COLUMN, where they differ; repeatable.")
    ] = None,
    error_budget: Annotated[int | None, typer.Option(min=0, help="Bear at most so many bad rows.")] = None,
    delimiter: Annotated[str, typer.Option(help="Character between the cells of a CSV file.")] = "",
    null_text: Annotated[str | None, typer.Option("--null", help="Unquoted text that stands for NULL.")] = None,
    encoding: Annotated[str, typer.Option(help="Encoding of a CSV file; utf-8 if not said.")] = "",
    undo_formula_guard: Annotated[bool, typer.Option(help="The file was exported with the formula guard.")] = False,
    on_drift: Annotated[str, typer.Option(help="If rows moved since the plan: abort or skip-moved.")] = "abort",
    on_refused: Annotated[str, typer.Option(help="If the database refuses a row: abort or skip.")] = "",
    max_deletes: Annotated[int | None, typer.Option(min=0, help="Deletes that need no repeated number.")] = None,
    confirm_deletes: DeletesOption = None,
    rejects: Annotated[
        Path | None, typer.Option(dir_okay=False, callback=file_to_write, help="Write the rows not taken here.")
    ] = None,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Upload a file, show what its import would do, and apply exactly that."""
    from dataops.v1 import common_pb2, imports_pb2

    settings: Settings = context.obj
    options = imports_pb2.ImportOptions(
        undo_formula_guard=undo_formula_guard, error_budget=error_budget, max_deletes=max_deletes
    )
    (options.on_drift,) = chosen([on_drift], imports_pb2.OnDrift.Value, "ON_DRIFT_", "way to meet drift")
    if on_refused:
        (options.on_refused,) = chosen([on_refused], imports_pb2.OnRefused.Value, "ON_REFUSED_", "way")
    _set_csv(options, delimiter, null_text, encoding)
    request = imports_pb2.CreateImportRequest(
        entity_type=entity, name=file.name, mapping=_mapping(column or []), options=options, reason=reason
    )
    (request.import_type,) = chosen([mode], imports_pb2.ImportType.Value, "IMPORT_TYPE_", "mode")
    if file_format:
        (request.format,) = chosen([file_format], common_pb2.FileFormat.Value, "FILE_FORMAT_", "format")
    as_json = wants_json(output, json)
    with settings.connect() as client:
        with telling(quiet=quiet) as narration:
            planned = _plan(client, file, request, narration)
        done = planned if plan_only else _decide(client, planned, yes, confirm_deletes, reason, as_json, quiet)
        if rejects is not None and done.failed_records:
            client.download_report(done.import_id, imports_pb2.REPORT_PART_REJECTS, rejects)
        _finish(client, done, plan_only=plan_only, strict=strict, as_json=as_json)


def _plan(
    client: DataOps, file: Path, request: imports_pb2.CreateImportRequest, narration: Narration
) -> imports_pb2.Import:
    request.upload_id = client.upload(file, reason=request.reason, on_bytes=narration.uploaded).upload_id
    recorded = client.create_import(request)
    client.wait(recorded.plan_job_id, on_event=narration.happened)
    return client.get_import(recorded.import_id)


def _decide(
    client: DataOps,
    planned: imports_pb2.Import,
    yes: bool,
    confirm_deletes: int | None,
    reason: str,
    as_json: bool,
    quiet: bool,
) -> imports_pb2.Import:
    """Apply the plan if that was said or a person says so now; else give the plan back as it is."""
    from dataops.v1 import imports_pb2

    if not yes:
        if planned.status != imports_pb2.IMPORT_STATUS_AWAITING_APPROVAL:
            return planned
        if as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return planned
        _show_planned(client, planned)
        if not typer.confirm("Apply this plan?", err=True):
            return planned
    with telling(quiet=quiet) as narration:
        return client.apply_import(
            planned, confirmed_deletes=confirm_deletes, reason=reason, on_event=narration.happened
        )


def _finish(client: DataOps, done: imports_pb2.Import, *, plan_only: bool, strict: bool, as_json: bool) -> None:
    """Print where the import stands; the exit code says what a script must know."""
    from dataops.v1 import imports_pb2

    applied = done.status == imports_pb2.IMPORT_STATUS_COMPLETED
    if as_json:
        out.as_json(plain(done))
    elif applied:
        out.show_report(done)
    elif done.status != imports_pb2.IMPORT_STATUS_AWAITING_APPROVAL:
        _print(done, as_json=False)
        print(f"\nnothing was done: it is {enum_word(done, 'status')}; only AWAITING_APPROVAL can be applied")
    else:
        _show_planned(client, done)
        print(f"\nnothing is changed; to apply it: dataops imports apply {done.import_id}")
    if not applied and not plan_only:
        waits = done.status == imports_pb2.IMPORT_STATUS_AWAITING_APPROVAL
        raise typer.Exit(exits.NOT_APPLIED if waits else exits.REFUSED)
    failed = done.report.failed if applied else done.plan.counts.failed
    if strict and failed:
        raise typer.Exit(exits.ROWS_REFUSED)


def _show_planned(client: DataOps, planned: imports_pb2.Import) -> None:
    out.show_plan(planned)
    if planned.failed_records:
        sample = client.import_errors(planned.import_id, page_size=_SAMPLE)
        print(f"\nrows not taken: {planned.failed_records:,}, the first of them:")
        out.show_row_errors(error for error, _ in zip(sample, range(_SAMPLE), strict=False))


@group.command("list")
def list_imports(
    context: typer.Context,
    limit: LimitOption = 20,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """List imports, newest first."""
    settings: Settings = context.obj
    with settings.connect() as client:
        found = client.list_imports(limit=limit)
    if wants_json(output, json):
        out.messages_as_json(found)
        return
    out.table(
        ("import", "entity", "mode", "status", "rows", "taken", "not taken", "created"),
        (
            (
                i.import_id,
                i.entity_type,
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
def errors(
    context: typer.Context, import_id: ImportArgument, output: OutputOption = Output.TEXT, json: JsonOption = False
) -> None:
    """List the rows that were not taken."""
    settings: Settings = context.obj
    with settings.connect() as client:
        found = client.import_errors(import_id)
        if wants_json(output, json):
            out.messages_as_json(found)
        else:
            out.show_row_errors(found)


@group.command("apply")
def apply_import(
    context: typer.Context,
    import_id: ImportArgument,
    yes: YesOption = False,
    confirm_deletes: DeletesOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 8 if any row of the file failed.")] = False,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show an import's plan and apply exactly that."""
    settings: Settings = context.obj
    as_json = wants_json(output, json)
    with settings.connect() as client:
        planned = client.get_import(import_id)
        done = _decide(client, planned, yes, confirm_deletes, reason, as_json, quiet)
        _finish(client, done, plan_only=False, strict=strict, as_json=as_json)


@group.command()
def cancel(
    context: typer.Context,
    import_id: ImportArgument,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Stop an import; one that is being applied is rolled back."""
    settings: Settings = context.obj
    with settings.connect() as client:
        _print(client.cancel_import(import_id, reason), as_json=wants_json(output, json))


@group.command()
def report(
    context: typer.Context,
    import_id: ImportArgument,
    output: FileOption,
    part: Annotated[str, typer.Option(help="report, rejects or changes.")] = "report",
    quiet: QuietOption = False,
) -> None:
    """Download an import's report, the rows not taken, or the changes."""
    from dataops.v1 import imports_pb2

    settings: Settings = context.obj
    (number,) = chosen([part], imports_pb2.ReportPart.Value, "REPORT_PART_", "part of a report")
    with settings.connect() as client, telling(quiet=quiet) as narration:
        got = client.download_report(import_id, number, output, on_bytes=narration.downloaded)
    print(f"{out.size(got.size)} in {output}")


def _print(found: imports_pb2.Import, *, as_json: bool) -> None:
    if as_json:
        out.as_json(plain(found))
    elif found.HasField("report"):
        out.show_report(found)
    elif found.HasField("plan"):
        out.show_plan(found)
    else:
        error = f"{found.error.reason}: {found.error.message}" if found.HasField("error") else ""
        out.facts([("import", found.import_id), ("status", enum_word(found, "status")), ("error", error)])


def _set_csv(options: imports_pb2.ImportOptions, delimiter: str, null_text: str | None, encoding: str) -> None:
    if delimiter:
        options.csv.delimiter = "\t" if delimiter in ("\\t", "tab") else delimiter
    if null_text is not None:
        options.csv.null_text = null_text
    if encoding:
        options.csv.encoding = encoding


def _mapping(pairs: list[str]) -> list[imports_pb2.FieldMapping]:
    from dataops.v1 import imports_pb2

    mapping = []
    for pair in pairs:
        field, equals, column = pair.partition("=")
        if not (field and equals and column):
            raise typer.BadParameter(f"--map {pair}: expected FIELD=COLUMN")
        mapping.append(imports_pb2.FieldMapping(field=field, column=column))
    return mapping
