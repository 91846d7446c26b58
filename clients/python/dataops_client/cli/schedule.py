"""`dataops schedule`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dataops_client.cli import output as out
from dataops_client.cli.asking import require_yes
from dataops_client.cli.backup import EntitiesArgument
from dataops_client.cli.backup_options import chosen_entities
from dataops_client.cli.backup_output import show_backup
from dataops_client.cli.course import on_course
from dataops_client.cli.options import (
    JsonOption,
    LimitOption,
    Output,
    OutputOption,
    QuietOption,
    ReasonOption,
    wants_json,
)
from dataops_client.cli.plain import plain
from dataops_client.cli.progress import telling
from dataops_client.cli.schedule_options import (
    CatchUpOption,
    CronOption,
    KeepOption,
    OverlapOption,
    Said,
    TypeOption,
    VerifyOption,
    ZoneOption,
)
from dataops_client.cli.schedule_output import show_schedule, show_schedules
from dataops_client.cli.settings import Settings

if TYPE_CHECKING:
    from dataops.v1 import schedules_pb2

group = typer.Typer(no_args_is_help=True)

ScheduleArgument = Annotated[str, typer.Argument(help="The schedule's id.", metavar="SCHEDULE")]


@group.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="A name for people; its backups are called by it.")],
    entities: EntitiesArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="All entities there are when it fires.")] = False,
    cron: CronOption = "@daily",
    time_zone: ZoneOption = "",
    backup_type: TypeOption = "",
    keep: KeepOption = "",
    verify: VerifyOption = "",
    overlap: OverlapOption = "",
    catch_up: CatchUpOption = "",
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Make a schedule of backups: @daily if nothing else is said."""
    from dataops.v1 import schedules_pb2

    wanted = chosen_entities(entities, everything=everything)
    spec, settings = schedules_pb2.ScheduleSpec(), _settings(context)
    Said(name, cron, time_zone, backup_type, keep, verify, overlap, catch_up).put_into(spec, wanted)
    with settings.connect() as client:
        _print(client.create_schedule(spec, reason=reason), as_json=wants_json(output, json))


@group.command("list")
def list_schedules(
    context: typer.Context,
    limit: LimitOption = 20,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """List schedules, newest first."""
    with _settings(context).connect() as client:
        found = client.list_schedules(limit=limit)
    if wants_json(output, json):
        out.messages_as_json(found)
    else:
        show_schedules(found)


@group.command()
def show(
    context: typer.Context, schedule_id: ScheduleArgument, output: OutputOption = Output.TEXT, json: JsonOption = False
) -> None:
    """Show one schedule: its next times, and what became of the last ones."""
    with _settings(context).connect() as client:
        _print(client.get_schedule(schedule_id), as_json=wants_json(output, json))


@group.command()
def update(
    context: typer.Context,
    schedule_id: ScheduleArgument,
    entities: EntitiesArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="All entities there are when it fires.")] = False,
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
    cron: CronOption = "",
    time_zone: ZoneOption = "",
    backup_type: TypeOption = "",
    keep: KeepOption = "",
    verify: VerifyOption = "",
    overlap: OverlapOption = "",
    catch_up: CatchUpOption = "",
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Change what is said of a schedule; the rest stays. From here on its backups are made as you."""
    said = Said(name, cron, time_zone, backup_type, keep, verify, overlap, catch_up)
    wanted = chosen_entities(entities, everything=everything) if entities or everything else None
    if said == Said() and wanted is None:
        raise typer.BadParameter("found nothing to change, expected an ENTITY or an option")
    with _settings(context).connect() as client:
        seen = client.get_schedule(schedule_id)
        said.put_into(seen.spec, wanted)
        _print(client.update_schedule(seen, seen.spec, reason=reason), as_json=wants_json(output, json))


@group.command()
def pause(
    context: typer.Context,
    schedule_id: ScheduleArgument,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Keep a schedule from firing until it is resumed; a backup that is being made goes on."""
    with _settings(context).connect() as client:
        _print(client.pause_schedule(schedule_id, reason), as_json=wants_json(output, json))


@group.command()
def resume(
    context: typer.Context,
    schedule_id: ScheduleArgument,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Let a schedule fire again, from its next time on; times of the pause are not caught up."""
    with _settings(context).connect() as client:
        _print(client.resume_schedule(schedule_id, reason), as_json=wants_json(output, json))


@group.command()
def trigger(
    context: typer.Context,
    schedule_id: ScheduleArgument,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fire a schedule now, as you, and wait until its backup is complete; its next time stays."""
    with _settings(context).connect() as client, on_course("nothing was started") as course:
        begun = client.trigger_schedule(schedule_id, reason)
        course.words = (
            f"the backup goes on: dataops jobs watch {begun.job_id} follows it, "
            f"dataops jobs cancel {begun.job_id} stops it"
        )
        with telling(quiet=quiet, job_of=client.get_job) as narration:
            client.wait(begun.job_id, on_event=narration.happened)
        backup = client.get_backup(begun.backup_id)
    if wants_json(output, json):
        out.as_json(plain(backup))
    else:
        show_backup(backup)


@group.command()
def delete(
    context: typer.Context,
    schedule_id: ScheduleArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    reason: ReasonOption = "",
) -> None:
    """Delete a schedule after a yes; its backups stay."""
    with _settings(context).connect() as client, on_course("nothing is deleted"):
        if not yes:
            found = client.get_schedule(schedule_id)
            require_yes("delete", "schedule", "Delete this schedule? Its backups stay.", lambda: show_schedule(found))
        client.delete_schedule(schedule_id, reason)
    print(f"deleted {schedule_id}")


def _settings(context: typer.Context) -> Settings:
    settings: Settings = context.obj
    return settings


def _print(schedule: schedules_pb2.Schedule, *, as_json: bool) -> None:
    if as_json:
        out.as_json(plain(schedule))
    else:
        show_schedule(schedule)
