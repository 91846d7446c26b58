"""`dataops export`: rows into a file, received while it is being written."""

from __future__ import annotations

import typer

from dataops_client.cli import export_options as options
from dataops_client.cli import output as out
from dataops_client.cli.course import on_course
from dataops_client.cli.options import FileOption, JsonOnlyOption, QuietOption, ReasonOption
from dataops_client.cli.plain import plain
from dataops_client.cli.progress import telling
from dataops_client.cli.settings import Settings


def export(
    context: typer.Context,
    output: FileOption,
    entities: options.EntitiesArgument = None,
    everything: options.AllOption = False,
    file_format: options.FormatOption = "",
    compression: options.CompressionOption = "",
    columns: options.ColumnsOption = "",
    where: options.WhereOption = None,
    created_from: options.FromOption = "",
    created_until: options.UntilOption = "",
    updated_from: options.FromOption = "",
    updated_until: options.UntilOption = "",
    status: options.StatusOption = None,
    order: options.OrderOption = "",
    limit: options.RowsOption = 0,
    delimiter: options.DelimiterOption = "",
    formula_guard: options.GuardOption = True,
    reason: ReasonOption = "",
    json: JsonOnlyOption = False,
    quiet: QuietOption = False,
) -> None:
    """Export entities into a file, which is received while it is being written.

    Ctrl-C stops nothing at the server: the command says how to fetch the file later.
    """
    from dataops.v1 import common_pb2

    request = options.request_of(output, context.params)  # the options above by their names
    settings: Settings = context.obj
    with settings.connect() as client, on_course("nothing was started") as course:
        started = client.create_export(request)
        course.words = (
            f"the export goes on: dataops exports download {started.export_id} -o {output} fetches its file, "
            f"dataops exports cancel {started.export_id} stops it"
        )
        with telling(quiet=quiet, job_of=client.get_job) as narration:
            done = client.receive_export(started, output, on_bytes=narration.downloaded, on_event=narration.happened)
    if formula_guard and request.format == common_pb2.FILE_FORMAT_CSV and not quiet:
        out.remark(
            "texts that a spreadsheet would run get a ' before them (--no-formula-guard leaves it out); "
            "import the file with --undo-formula-guard, unless it is unchanged"
        )
    if json:
        out.as_json(plain(done))
    else:
        print(f"{done.record_count:,} rows, {out.size(done.file_size_bytes)}, in {output}")
