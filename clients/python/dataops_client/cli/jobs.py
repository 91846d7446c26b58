"""`dataops jobs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dataops_client.cli import exits
from dataops_client.cli import output as out
from dataops_client.cli.cancelling import tell_cancelled
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
    kind: Annotated[list[str] | None, typer.Option(help="Only of this kind, e.g. export; repeatable.")] = None,
    resource: Annotated[str, typer.Option(help="Only of this resource, for example imports/ID.")] = "",
    limit: LimitOption = 20,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """List jobs, newest first, and what those wait for that have not begun."""
    from dataops.v1 import jobs_pb2

    settings: Settings = context.obj
    states = chosen(state or [], jobs_pb2.JobState.Value, "JOB_STATE_", "state of a job")
    kinds = chosen(kind or [], jobs_pb2.JobKind.Value, "JOB_KIND_", "kind of job")
    with settings.connect() as client:
        found = client.list_jobs(states=states, kinds=kinds, resource=resource, limit=limit)
    if wants_json(output, json):
        out.messages_as_json(found)
        return
    out.table(
        ("job", "kind", "state", "stage", "resource", "created", "waits", "blocked by", "error"),
        (
            (
                job.job_id,
                enum_word(job, "kind"),
                enum_word(job, "state"),
                job.stage,
                job.resource,
                job.created_at.ToJsonString(),
                _waits(job),
                ",".join(job.blocked_by),
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
    """Follow a job to its end; ends with the code of its error. With --json, one line for each event."""
    from dataops.v1 import jobs_pb2

    from dataops_client.errors import JobFailed

    settings: Settings = context.obj
    as_json = wants_json(output, json)
    with settings.connect() as client, telling(quiet=quiet or as_json, job_of=client.get_job) as narration:
        for event in client.watch(job, after):
            if as_json:
                out.as_json_line(plain(event))
            narration.happened(event)
        ended = client.get_job(job)
    if not as_json:
        _show(ended)
    if ended.state != jobs_pb2.JOB_STATE_COMPLETED:
        raise typer.Exit(exits.code_of(JobFailed.of(ended)))


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
    """Ask a job to stop; a running one rolls back first. Ends with 5 if it had ended already."""
    settings: Settings = context.obj
    with settings.connect() as client:
        before = client.get_job(job)
        after = client.cancel_job(job, reason)
        _print(after, as_json=wants_json(output, json))
    tell_cancelled(enum_word(before, "state"), enum_word(after, "state"), job)


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


def _waits(job: jobs_pb2.Job) -> str:
    """What a job that has not begun waits for, in words."""
    from dataops.v1 import jobs_pb2

    if job.state != jobs_pb2.JOB_STATE_PENDING:
        return ""
    if job.blocked_by:
        return f"for {len(job.blocked_by)} before it"
    if job.HasField("run_at"):
        return f"until {job.run_at.ToJsonString()}"
    return "for a worker"


def _moment(job: jobs_pb2.Job, field: str) -> str:
    return str(getattr(job, field).ToJsonString()) if job.HasField(field) else ""  # type: ignore[arg-type]


def _show(job: jobs_pb2.Job) -> None:
    out.facts(
        [
            ("job", job.job_id),
            ("kind", enum_word(job, "kind")),
            ("state", enum_word(job, "state")),
            ("resource", job.resource),
            ("stage", job.stage),
            ("attempts", job.attempt),
            ("waits", _waits(job)),
            ("blocked by", ", ".join(job.blocked_by)),
            ("error", f"{job.error.reason}: {job.error.message}" if job.HasField("error") else ""),
            ("retryable", ("yes" if job.error.retryable else "no") if job.HasField("error") else ""),
            ("created", _moment(job, "created_at")),
            ("started", _moment(job, "started_at")),
            ("finished", _moment(job, "finished_at")),
        ]
    )
