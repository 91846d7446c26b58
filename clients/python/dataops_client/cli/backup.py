"""`dataops backup`."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dataops_client.cli import exits
from dataops_client.cli import output as out
from dataops_client.cli.asking import require_yes
from dataops_client.cli.backup_options import chosen_entities, keys_of
from dataops_client.cli.backup_output import show_backup, show_backups, show_differences, tell_cut
from dataops_client.cli.course import on_course
from dataops_client.cli.import_options import PlanOnlyOption, YesOption
from dataops_client.cli.importing import Manner, decide, exit_as, goes_on, show_end
from dataops_client.cli.options import (
    JsonOption,
    LimitOption,
    Output,
    OutputOption,
    QuietOption,
    ReasonOption,
    RowsOption,
    StatusOption,
    chosen,
    listed,
    page_of,
    wants_json,
)
from dataops_client.cli.plain import enum_word, plain
from dataops_client.cli.progress import telling
from dataops_client.cli.settings import Settings

if TYPE_CHECKING:
    from dataops.v1 import backups_pb2, imports_pb2

    from dataops_client.client import DataOps

group = typer.Typer(no_args_is_help=True)

BackupArgument = Annotated[str, typer.Argument(help="The backup's id.", metavar="BACKUP")]
_KINDS = ("insert", "delete", "update")

EntitiesArgument = Annotated[list[str] | None, typer.Argument(help="Entities or groups.", metavar="ENTITY")]


@group.command()
def create(
    context: typer.Context,
    entities: EntitiesArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="Every entity.")] = False,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Only what changed since the newest backup of the same entities.")
    ] = False,
    name: Annotated[str, typer.Option(help="A name for people; made from entities and time if not given.")] = "",
    hold: Annotated[bool, typer.Option("--hold", help="Keep it until it is released.")] = False,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a backup of entities, all at one moment, and wait until it is complete."""
    wanted = chosen_entities(entities, everything=everything)
    settings: Settings = context.obj
    with settings.connect() as client, on_course("nothing was started") as course:
        begun = client.create_backup(wanted, incremental=incremental, name=name, hold=hold, reason=reason, wait=False)
        course.words = (
            f"the backup goes on: dataops jobs watch {begun.job_id} follows it, "
            f"dataops jobs cancel {begun.job_id} stops it"
        )
        with telling(quiet=quiet, job_of=client.get_job) as narration:
            client.wait(begun.job_id, on_event=narration.happened)
        _print(client.get_backup(begun.backup_id), as_json=wants_json(output, json))


@group.command("list")
def list_backups(
    context: typer.Context,
    entity: Annotated[str, typer.Option("--entity", help="Only those that hold this entity.")] = "",
    status: StatusOption = None,
    trigger: Annotated[
        list[str] | None,
        typer.Option(help="Only made for this: manual, scheduled, pre-import, pre-restore; repeatable."),
    ] = None,
    limit: LimitOption = 20,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """List backups, newest first."""
    from dataops.v1 import backups_pb2

    settings: Settings = context.obj
    statuses = chosen(status or [], backups_pb2.BackupStatus.Value, "BACKUP_STATUS_", "status of a backup")
    triggers = chosen(trigger or [], backups_pb2.TriggerType.Value, "TRIGGER_TYPE_", "trigger of a backup")
    with settings.connect() as client:
        found = client.list_backups(entity=entity, statuses=statuses, triggers=triggers, limit=limit)
    if wants_json(output, json):
        out.messages_as_json(found)
    else:
        show_backups(found)


@group.command()
def show(
    context: typer.Context, backup_id: BackupArgument, output: OutputOption = Output.TEXT, json: JsonOption = False
) -> None:
    """Show one backup: what it holds, how far it is proven, what is not covered."""
    settings: Settings = context.obj
    with settings.connect() as client:
        _print(client.get_backup(backup_id), as_json=wants_json(output, json))


@group.command()
def verify(
    context: typer.Context,
    backup_id: BackupArgument,
    level: Annotated[
        str,
        typer.Option(
            help="present (every object is there), decoded (every byte is read), restored (every row loaded)."
        ),
    ] = "decoded",
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Prove a backup. Ends with 1 if it is not as it should be, and says what is wrong."""
    from dataops.v1 import backups_pb2

    settings: Settings = context.obj
    (number,) = chosen([level], backups_pb2.VerifyLevel.Value, "VERIFY_LEVEL_", "level of a proof")
    with settings.connect() as client, on_course("nothing was started") as course:
        job_id = client.begin_verification(backup_id, number, reason)
        course.words = (
            f"the proof goes on: dataops jobs watch {job_id} follows it, "
            f"dataops backup show {backup_id} shows what comes of it"
        )
        with telling(quiet=quiet, job_of=client.get_job) as narration:
            client.wait(job_id, on_event=narration.happened)
        found = client.newest_verification(backup_id, number)
    if wants_json(output, json):
        out.as_json(plain(found))
    else:
        out.facts(
            [
                ("backup", backup_id),
                ("level", enum_word(found, "level")),
                ("result", "good" if found.good else "not good"),
                ("error", f"{found.error.reason}: {found.error.message}" if found.HasField("error") else ""),
                ("verified", found.verified_at.ToJsonString() if found.HasField("verified_at") else ""),
            ]
        )
    if not found.good:
        raise typer.Exit(exits.FAILED)


@group.command()
def diff(
    context: typer.Context,
    backup_id: BackupArgument,
    entities: EntitiesArgument = None,
    kind: Annotated[
        str, typer.Option(help="insert (only in the backup), delete (only live) or update (in both, different).")
    ] = "",
    job: Annotated[str, typer.Option(metavar="JOB", help="Show what this comparison found, and make none.")] = "",
    limit: RowsOption = 20,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare a backup with the live rows: how many differ, and some of them; what going back would do to each."""
    settings: Settings = context.obj
    if kind and kind.lower() not in _KINDS:
        raise typer.BadParameter(f"{kind!r} is no kind of difference; expected {listed(_KINDS)}")
    if job and entities:
        raise typer.BadParameter("--job and ENTITY: found both, expected one of them")
    with settings.connect() as client, on_course("nothing was started") as course:
        if job:
            _require_comparison_of(client, job, backup_id)
        job = job or client.begin_diff(backup_id, entities or (), reason)
        course.words = f"the comparison goes on: dataops backup diff {backup_id} --job {job} shows it at its end"
        with telling(quiet=quiet, job_of=client.get_job) as narration:
            client.wait(job, on_event=narration.happened)
        counts = client.backup_difference_counts(job)
        found = client.backup_differences(job, kind=_kind_of(kind), page_size=page_of(limit))
        shown = islice(found, limit or None)
        if wants_json(output, json):
            out.as_json(
                {
                    "backup_id": backup_id,
                    "job_id": job,
                    "entities": [plain(c) for c in counts],
                    "differences": [plain(d) for d in shown],
                }
            )
        else:
            show_differences(backup_id, job, counts, shown)
            tell_cut(counts, kind.lower(), limit)


@group.command()
def extract(
    context: typer.Context,
    backup_id: BackupArgument,
    entity: Annotated[str, typer.Option("--entity", help="The entity.")],
    key: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE,…", help="The key of a row; repeatable.")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A CSV file of keys: a header with their fields, a row a line."),
    ] = None,
    mode: Annotated[
        str, typer.Option(help="upsert (rows that are there get the backup's values) or additive.")
    ] = "upsert",
    yes: YesOption = False,
    plan_only: PlanOnlyOption = False,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Take rows out of a backup: an import of them is planned, shown, and applied after a yes."""
    from dataops.v1 import imports_pb2

    settings: Settings = context.obj
    (number,) = chosen([mode], imports_pb2.ImportType.Value, "IMPORT_TYPE_", "mode", ("upsert", "additive"))
    rows = keys_of(key or (), keys)
    manner = Manner(yes=yes, plan_only=plan_only, reason=reason, as_json=wants_json(output, json), quiet=quiet)
    with settings.connect() as client, on_course("nothing was started") as course:
        recorded = client.extract_rows(backup_id, entity, rows, import_type=number, reason=reason, wait=False)
        course.words = goes_on(recorded.import_id, recorded.plan_job_id)
        with telling(quiet=quiet, job_of=client.get_job) as narration:
            planned = client.follow_import(recorded, on_event=narration.happened)
        done = planned if plan_only else decide(client, planned, manner, course)
        show_end(client, done, manner, course)
        exit_as(done, manner)


@group.command()
def hold(
    context: typer.Context,
    backup_id: BackupArgument,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Keep a backup from being removed, by its age or by hand, until it is released."""
    settings: Settings = context.obj
    with settings.connect() as client:
        _print(client.hold_backup(backup_id, reason), as_json=wants_json(output, json))


@group.command()
def release(
    context: typer.Context,
    backup_id: BackupArgument,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Take the hold off."""
    settings: Settings = context.obj
    with settings.connect() as client:
        _print(client.release_backup(backup_id, reason), as_json=wants_json(output, json))


@group.command()
def delete(
    context: typer.Context,
    backup_id: BackupArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Delete a backup's bytes after a yes; its record stays. Ends with 5 while a hold, a job or a restore needs it."""
    settings: Settings = context.obj
    as_json = wants_json(output, json)
    with settings.connect() as client, on_course("nothing is deleted"):
        if not yes:
            found = client.get_backup(backup_id)
            question = "Delete this backup? It cannot be had again."
            require_yes("delete", "backup", question, lambda: show_backup(found), as_json=as_json)
        _print(client.delete_backup(backup_id, reason), as_json=as_json)


def _require_comparison_of(client: DataOps, job_id: str, backup_id: str) -> None:
    """What another backup's comparison found must not be taken for this one's.

    Raises:
        typer.Exit: REFUSED for a job of anything else.
    """
    resource = client.get_job(job_id).resource
    if resource != f"backups/{backup_id.lower()}":
        out.complain(f"--job {job_id}: found a job of {resource or 'nothing'}, expected one of backups/{backup_id}")
        raise typer.Exit(exits.REFUSED)


def _kind_of(word: str) -> imports_pb2.ChangeKind.ValueType:
    from dataops.v1 import imports_pb2

    return imports_pb2.ChangeKind.Value(f"CHANGE_KIND_{word.upper() or 'UNSPECIFIED'}")


def _print(backup: backups_pb2.Backup, *, as_json: bool) -> None:
    if as_json:
        out.as_json(plain(backup))
    else:
        show_backup(backup)
