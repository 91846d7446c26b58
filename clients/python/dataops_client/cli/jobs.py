"""`dataops jobs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dataops_client.cli import exits
from dataops_client.cli import output as out
from dataops_client.cli.options import (
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
    from dataops.v1 import jobs_pb2

group = typer.Typer(no_args_is_help=True)

JobArgument = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]


@group.command("list")
def list_jobs(
    context: typer.Context,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state, e.g. running; repeatable.")] = None,
    limit: LimitOption = 20,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    from dataops.v1 import jobs_pb2

    settings: Settings = context.obj
    states = chosen(state or [], jobs_pb2.JobState.Value, "JOB_STATE_", "state of a job")
    with settings.connect() as client:
        found = client.list_jobs(states=states, limit=limit)
    if wants_json(output, json):
        out.messages_as_json(found)
        return
    out.table(
        ("job", "kind", "state", "stage", "resource", "created", "error"),
        (
            (
                job.job_id,
                enum_word(job, "kind"),
                enum_word(job, "state"),
                job.stage,
                job.resource,
                job.created_at.ToJsonString(),
                job.error.reason,
            )
            for job in found
        ),
    )


@group.command()
def watch(
    context: typer.Context,
    job: JobArgument,
    after: Annotated[int, typer.Option(min=0, help="Only events after this sequence.")] = 0,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Follow a job to its end; fails if the job did. With --json, one line for each event."""
    from dataops.v1 import jobs_pb2

    settings: Settings = context.obj
    as_json = wants_json(output, json)
    with settings.connect() as client, telling(quiet=quiet or as_json) as narration:
        for event in client.watch(job, after):
            if as_json:
                out.as_json_line(plain(event))
            narration.happened(event)
        ended = client.get_job(job)
    if not as_json:
        _show(ended)
    if ended.state != jobs_pb2.JOB_STATE_COMPLETED:
        raise typer.Exit(exits.FAILED)


@group.command()
def show(
    context: typer.Context, job: JobArgument, output: OutputOption = Output.TEXT, json: JsonOption = False
) -> None:
    """Show one job."""
    settings: Settings = context.obj
    with settings.connect() as client:
        _print(client.get_job(job), as_json=wants_json(output, json))


@group.command()
def cancel(
    context: typer.Context,
    job: JobArgument,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Ask a job to stop; a running one rolls back first."""
    settings: Settings = context.obj
    with settings.connect() as client:
        _print(client.cancel_job(job, reason), as_json=wants_json(output, json))


@group.command()
def retry(
    context: typer.Context,
    job: JobArgument,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Run a failed job again."""
    settings: Settings = context.obj
    with settings.connect() as client:
        _print(client.retry_job(job, reason), as_json=wants_json(output, json))


def _print(job: jobs_pb2.Job, *, as_json: bool) -> None:
    if as_json:
        out.as_json(plain(job))
    else:
        _show(job)


def _show(job: jobs_pb2.Job) -> None:
    out.facts(
        [
            ("job", job.job_id),
            ("kind", enum_word(job, "kind")),
            ("state", enum_word(job, "state")),
            ("resource", job.resource),
            ("stage", job.stage),
            ("attempt", job.attempt),
            ("blocked by", ", ".join(job.blocked_by)),
            ("error", f"{job.error.reason}: {job.error.message}" if job.HasField("error") else ""),
        ]
    )
