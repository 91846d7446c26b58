"""`dataops restore`: the way back to a backup, one step a command."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from dataops_client.cli import exits
from dataops_client.cli import output as out
from dataops_client.cli.asking import ask, can_ask, require_yes
from dataops_client.cli.backup_options import renames_of
from dataops_client.cli.cancelling import tell_cancelled
from dataops_client.cli.course import Course, on_course
from dataops_client.cli.narrowing import refuse_unknown_entity
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
    page_of,
    wants_json,
)
from dataops_client.cli.plain import enum_word, plain
from dataops_client.cli.progress import telling
from dataops_client.cli.restore_output import show_losses, show_restore, show_restores
from dataops_client.cli.settings import Settings

if TYPE_CHECKING:
    from dataops.v1 import restores_pb2

    from dataops_client.client import DataOps

group = typer.Typer(no_args_is_help=True)

RestoreArgument = Annotated[str, typer.Argument(help="The restore's id.", metavar="RESTORE")]


@group.command()
def plan(
    context: typer.Context,
    backup_id: Annotated[str, typer.Argument(help="The backup's id.", metavar="BACKUP")],
    entities: Annotated[
        list[str] | None, typer.Argument(help="Entities or groups; all that it holds if none.", metavar="ENTITY")
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ENTITY.OLD=NEW", help="A column that is called otherwise now (`ENTITY.OLD=`: gone); repeatable."
        ),
    ] = None,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Plan the way back to a backup, and show what would be lost. Nothing is touched."""
    renames = renames_of(rename or ())
    settings: Settings = context.obj
    with settings.connect() as client, on_course("nothing was started") as course:
        begun = client.create_restore(backup_id, entities or (), renames=renames, reason=reason, wait=False)
        planned = _followed(client, begun, course, quiet=quiet)
    _print(planned, as_json=wants_json(output, json))


@group.command()
def confirm(
    context: typer.Context,
    restore_id: RestoreArgument,
    phrase: Annotated[
        str, typer.Option(metavar="TEXT", help="The phrase that the plan shows; else it is asked for.")
    ] = "",
    max_losses: Annotated[
        int | None,
        typer.Option(min=0, help="Bear that so many rows are lost or changed; else as many as the plan says."),
    ] = None,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Confirm a plan by its phrase, and follow the restore to its end."""
    settings: Settings = context.obj
    as_json = wants_json(output, json)
    with settings.connect() as client, on_course(f"nothing is touched; {_steps(restore_id)}") as course:
        planned = client.get_restore(restore_id)
        typed = phrase or _typed(planned, as_json=as_json)
        begun = client.confirm_restore(planned, typed, max_losses=max_losses, reason=reason, wait=False)
        done = _followed(client, begun, course, quiet=quiet)
    _print(done, as_json=as_json)
    _exit_as(done)


@group.command()
def approve(
    context: typer.Context,
    restore_id: RestoreArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Approve without asking.")] = False,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Approve what another person has confirmed, and follow the restore to its end."""
    from dataops.v1 import restores_pb2

    settings: Settings = context.obj
    as_json = wants_json(output, json)
    with settings.connect() as client, on_course(f"nothing is touched; {_steps(restore_id)}") as course:
        planned = client.get_restore(restore_id)
        if not yes:
            _require(planned, restores_pb2.RESTORE_STATUS_AWAITING_APPROVAL)
            require_yes("approve", "restore", "Approve this restore?", lambda: show_restore(planned), as_json=as_json)
        begun = client.approve_restore(planned, reason=reason, wait=False)
        done = _followed(client, begun, course, quiet=quiet)
    _print(done, as_json=as_json)
    _exit_as(done)


@group.command()
def watch(
    context: typer.Context,
    restore_id: RestoreArgument,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Follow a restore, or its plan, to the end of what runs now; ends with the code of its error."""
    from dataops.v1 import restores_pb2

    settings: Settings = context.obj
    with settings.connect() as client, on_course("nothing was started") as course:
        found = _followed(client, client.get_restore(restore_id), course, quiet=quiet)
    _print(found, as_json=wants_json(output, json))
    if found.status in (restores_pb2.RESTORE_STATUS_CANCELLED, restores_pb2.RESTORE_STATUS_EXPIRED):
        raise typer.Exit(exits.FAILED)


@group.command("list")
def list_restores(
    context: typer.Context,
    backup: Annotated[str, typer.Option("--backup", metavar="BACKUP", help="Only to this backup.")] = "",
    status: StatusOption = None,
    limit: LimitOption = 20,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """List restores, newest first."""
    from dataops.v1 import restores_pb2

    settings: Settings = context.obj
    statuses = chosen(status or [], restores_pb2.RestoreStatus.Value, "RESTORE_STATUS_", "status of a restore")
    with settings.connect() as client:
        found = client.list_restores(statuses=statuses, backup_id=backup, limit=limit)
    if wants_json(output, json):
        out.messages_as_json(found)
    else:
        show_restores(found)


@group.command()
def show(
    context: typer.Context, restore_id: RestoreArgument, output: OutputOption = Output.TEXT, json: JsonOption = False
) -> None:
    """Show one restore: its report, or its plan."""
    settings: Settings = context.obj
    with settings.connect() as client:
        _print(client.get_restore(restore_id), as_json=wants_json(output, json))


@group.command()
def losses(
    context: typer.Context,
    restore_id: RestoreArgument,
    entity: Annotated[str, typer.Option("--entity", help="Only of this entity.")] = "",
    limit: RowsOption = 100,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """List the rows that a restore deletes or changes."""
    settings: Settings = context.obj
    with settings.connect() as client:
        if entity:
            planned = client.get_restore(restore_id).plan.entities
            refuse_unknown_entity("restore", entity, sorted(e.entity for e in planned))
        found = client.restore_losses(restore_id, entity=entity, page_size=page_of(limit))
        shown = islice(found, limit or None)
        if wants_json(output, json):
            out.messages_as_json(shown)
        else:
            show_losses(shown)


@group.command()
def cancel(
    context: typer.Context,
    restore_id: RestoreArgument,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Stop a restore; one that runs is rolled back whole. Ends with 5 if it had ended already."""
    settings: Settings = context.obj
    with settings.connect() as client:
        before = client.get_restore(restore_id)
        after = client.cancel_restore(restore_id, reason)
        _print(after, as_json=wants_json(output, json))
    job_id = after.restore_job_id or after.plan_job_id
    tell_cancelled(enum_word(before, "status"), enum_word(after, "status"), job_id)


def _followed(client: DataOps, begun: restores_pb2.Restore, course: Course, *, quiet: bool) -> restores_pb2.Restore:
    """The restore at the end of what runs now."""
    goes_on = "the restore goes on" if begun.restore_job_id else "its plan will wait and change nothing"
    course.words = (
        f"{goes_on}: dataops restore watch {begun.restore_id} follows it, "
        f"dataops restore cancel {begun.restore_id} stops it"
    )
    with telling(quiet=quiet, job_of=client.get_job) as narration:
        return client.follow_restore(begun, on_event=narration.happened)


def _steps(restore_id: str) -> str:
    return f"dataops restore show {restore_id} shows where it stands"


def _typed(planned: restores_pb2.Restore, *, as_json: bool) -> str:
    """The phrase, as a person types it now.

    Raises:
        typer.Exit: REFUSED if there is nothing to confirm or another phrase was typed twice, NOT_APPLIED if nobody can
            be asked or nothing was typed.
    """
    from dataops.v1 import restores_pb2

    _require(planned, restores_pb2.RESTORE_STATUS_AWAITING_CONFIRMATION)
    if as_json or not can_ask():
        out.complain("not confirmed: nobody can be asked; --phrase TEXT gives the phrase that the plan shows")
        raise typer.Exit(exits.NOT_APPLIED)
    show_restore(planned)
    phrase = planned.plan.confirmation_phrase
    for left in (1, 0):
        typed = ask("To restore, type the phrase:")
        if not typed:
            out.complain("not confirmed, nothing is touched")
            raise typer.Exit(exits.NOT_APPLIED)
        if typed == phrase or not phrase:  # without one, it has expired: the server has the word
            return typed
        out.complain("that is not the phrase" + ("; once more" if left else ""))
    out.complain("not confirmed, nothing is touched")
    raise typer.Exit(exits.REFUSED)


def _require(found: restores_pb2.Restore, expected: restores_pb2.RestoreStatus.ValueType) -> None:
    from dataops.v1 import restores_pb2

    if found.status != expected:
        word = restores_pb2.RestoreStatus.Name(expected).removeprefix("RESTORE_STATUS_")
        out.complain(f"found the restore {enum_word(found, 'status')}, expected it {word}; nothing was done")
        raise typer.Exit(exits.REFUSED)


def _exit_as(done: restores_pb2.Restore) -> None:
    """End the command with the exit code that says what a script must know."""
    from dataops.v1 import restores_pb2

    if done.status == restores_pb2.RESTORE_STATUS_AWAITING_APPROVAL:
        raise typer.Exit(exits.NOT_APPLIED)
    if done.status != restores_pb2.RESTORE_STATUS_COMPLETED:
        raise typer.Exit(exits.REFUSED)


def _print(found: restores_pb2.Restore, *, as_json: bool) -> None:
    if as_json:
        out.as_json(plain(found))
    else:
        show_restore(found)
