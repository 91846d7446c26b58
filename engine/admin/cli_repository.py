"""`dataops-admin repository` and `rescue`: what the storage holds, with and without a control schema."""

from __future__ import annotations

import json
import shlex
import uuid
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from engine.admin import adopt as adopting
from engine.admin import rescue as rescuing
from engine.admin import rescue_restore as restoring
from engine.admin.asking import ask, can_ask
from engine.admin.session import admin_settings, control_database
from engine.backups.model import VerifyLevel
from engine.backups.repository import Repository
from engine.backups.verify import condemns, verify
from engine.clock import utc_now
from engine.crypto.keyring import KeyRing
from engine.errors import DataOpsError, InvalidRequest
from engine.ids import parse_id
from engine.storage import storage_from

repository = typer.Typer(no_args_is_help=True, help="The backups that the storage holds.")
rescue = typer.Typer(
    no_args_is_help=True,
    help="Backups by their folder and the key ring alone: no control schema and no settings are needed.",
)

Artifacts = Annotated[str, typer.Option("--artifacts", help="The folder of the artifacts, or a copy of it.")]
KeyFile = Annotated[Path, typer.Option("--key-file", help="The key ring's file.")]
Dsn = Annotated[
    str, typer.Option("--dsn", help="The platform database; its password is better left to PGPASSWORD or ~/.pgpass.")
]
Backup = Annotated[str, typer.Argument(metavar="[BACKUP]", help="Its id, or how it begins; all of them if not given.")]
BackupOption = Annotated[str, typer.Option("--backup", help="The same as BACKUP.")]


class Output(StrEnum):
    """How a list is shown."""

    TEXT = "text"
    JSON = "json"


Shown = Annotated[Output, typer.Option("-o", "--output", help="For people, or for programs.")]


class Level(StrEnum):
    """How far a proof goes: the words of `VerifyLevel`, as a command line has them."""

    PRESENT = "present"
    DECODED = "decoded"
    RESTORED = "restored"


@repository.callback()
def _repository() -> None:
    """Keeps `adopt` a command of its own while it is the only one."""


@repository.command("adopt")
def adopt(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    settings_of: Annotated[
        str,
        typer.Option(
            "--settings",
            metavar="BACKUP_ID",
            help="Also put back the roles, principals, grants and holds of this backup where they are missing.",
        ),
    ] = "",
) -> None:
    """Make records of backups that the storage has and the control schema lacks, as after its loss."""
    settings = admin_settings()
    backup_id: uuid.UUID | None = parse_id(settings_of, "settings") if settings_of else None
    backups = Repository(storage_from(settings.artifacts), KeyRing.from_settings(settings))
    left = 0
    with control_database(settings) as db:
        for told in adopting.adopt(db, backups, settings, utc_now(), dry_run=dry_run):
            left += told.outcome == "left"
            outcome = "would be adopted" if dry_run and told.outcome == "adopted" else told.outcome
            name = f"{told.backup_id} {told.name}" if told.backup_id else f"artifact {told.artifact_id}"
            typer.echo(f"{outcome}: {name}" + (f" ({told.why})" if told.why else ""))
        if backup_id is not None:
            archive = adopting.archive_of(backups, backup_id)
            if dry_run:
                typer.echo(f"would be put back where missing: {archive.manifest.settings['rows']} rows of settings")
            else:
                for line in adopting.put_back(db, archive, utc_now()):
                    typer.echo(f"put back: {line}")
    if left:
        raise typer.Exit(1)


@rescue.command("list")
def rescue_list(artifacts: Artifacts, key_file: KeyFile, output: Shown = Output.TEXT) -> None:
    """List the backups, newest first, and what is damaged or needs another key, with the reason. Exit code 1 when
    something is, or when there is none."""
    found = rescuing.find_all(rescuing.open_repository(artifacts, key_file))
    if output is Output.JSON:
        typer.echo(json.dumps([rescuing.record_of(one) for one in found], indent=2, ensure_ascii=False))
    elif found:
        for line in rescuing.lines_of(found):
            typer.echo(line)
    if not found:
        typer.echo(f"found no backup in {artifacts}", err=True)
    if not found or any(one.error for one in found):
        raise typer.Exit(1)


@rescue.command("verify")
def rescue_verify(
    artifacts: Artifacts,
    key_file: KeyFile,
    backup: Backup = "",
    option: BackupOption = "",
    level: Annotated[
        Level,
        typer.Option(
            help="present: every object is there; decoded: every byte is opened, hashed and counted;"
            " restored: every row is loaded into temporary tables of the --dsn and compared."
        ),
    ] = Level.DECODED,
    dsn: Dsn = "",
    output: Shown = Output.TEXT,
) -> None:
    """Prove one backup or all of them. Exit code 1 when one does not pass, or when there is none."""
    if backup and option:
        raise typer.BadParameter("BACKUP and --backup: found both, expected one of them")
    backup = backup or option
    backups = rescuing.open_repository(artifacts, key_file)
    if level is Level.RESTORED and not dsn:
        raise InvalidRequest(
            "dsn: found none, expected the platform database's for this level", reason="CONFIG_INVALID"
        )
    work, told = rescuing.Terminal(dsn), []
    found = rescuing.find_all(backups)
    if backup:
        archive = rescuing.pick(backups, backup)
        found = [one for one in found if one.artifact_id == archive.manifest.artifact_id]
    for one in found:
        told.append(proof := _proof(work, one, level))
        if output is Output.TEXT:
            typer.echo(_words_of(proof))
    if output is Output.JSON:
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
    if not found:
        typer.echo(f"found no backup in {artifacts}", err=True)
    if not found or not all(proof["result"] == "good" for proof in told):
        raise typer.Exit(1)


def _proof(work: rescuing.Terminal, found: rescuing.Found, level: Level) -> dict[str, str]:
    """What came of it, for programs."""
    backup_id = str(found.archive.manifest.backup_id) if found.archive else ""
    proof = {"backup_id": backup_id, "artifact_id": str(found.artifact_id), "level": level.value}
    try:
        if found.archive is None:
            assert found.error is not None
            raise found.error
        verify(work, found.archive, VerifyLevel(level.value.upper()))
    except DataOpsError as error:
        result = "damaged" if condemns(error) else "key_unknown" if error.reason == "KEY_UNKNOWN" else "not_proven"
        return proof | {"result": result, "error": str(error)}
    return proof | {"result": "good", "error": ""}


def _words_of(proof: dict[str, str]) -> str:
    """The same for people."""
    name = proof["backup_id"] or f"artifact {proof['artifact_id']}"
    match proof["result"]:
        case "good":
            return f"{name}: good, {proof['level']}"
        case "key_unknown":
            return f"{name}: cannot be opened by this ring ({proof['error']})"
        case result:
            return f"{name}: {result.replace('_', ' ').upper()}: {proof['error']}"


@rescue.command("show")
def rescue_show(
    backup: Annotated[str, typer.Argument(help="The backup's id, or how it begins.")],
    artifacts: Artifacts,
    key_file: KeyFile,
    output: Shown = Output.TEXT,
) -> None:
    """Show what a backup says of itself: entities, columns, rows, what is not in it."""
    archive = rescuing.pick(rescuing.open_repository(artifacts, key_file), backup)
    if output is Output.JSON:
        typer.echo(archive.manifest.encoded().decode())
        return
    for line in rescuing.describe(archive):
        typer.echo(line)


@rescue.command("restore")
def rescue_restore(
    backup: Annotated[str, typer.Argument(help="The backup's id, or how it begins.")],
    artifacts: Artifacts,
    key_file: KeyFile,
    dsn: Annotated[str, typer.Option("--dsn", help="The database to restore into, as the owner of its tables.")],
    entity: Annotated[list[str] | None, typer.Option(help="Only this entity; may be repeated.")] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(help="entity.old=new: a column that is called otherwise now; entity.old= if it is none any more."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only show what it would do.")] = False,
    phrase: Annotated[
        str, typer.Option(help="What has to be typed, where nobody can be asked; its last word may be left out.")
    ] = "",
) -> None:
    """Go back to a backup: planned and shown, confirmed by a typed phrase, backed up first, in one transaction, proven
    before it commits. Stop the service first: it cannot see this."""
    backups = rescuing.open_repository(artifacts, key_file)
    archive = rescuing.pick(backups, backup)
    names = restoring.chosen(archive, entity or [])
    renames = [restoring.rename_of(text) for text in rename or []]
    work = restoring.Rescue(backups, archive, restoring.RestoringTerminal(dsn), names, renames)
    planned = work.plan()
    for line in restoring.lines_of_plan(planned):
        typer.echo(line)
    beginning = restoring.beginning_of(planned)
    confirming = f"--phrase {shlex.quote(beginning)}"
    if plan:
        typer.echo(f"nothing is touched; to restore: the same with {confirming} in the place of --plan")
        return
    if not phrase and not can_ask():
        typer.echo(f"nothing was touched: nobody can be asked; {confirming} confirms this plan", err=True)
        raise typer.Exit(1)
    if phrase and not restoring.says(phrase, beginning):
        typer.echo(f"another phrase; nothing was touched; expected: {beginning}", err=True)
        raise typer.Exit(1)
    if not phrase and not restoring.typed(planned, ask):
        typer.echo("another phrase; nothing was touched; expected the one above, with its last word", err=True)
        raise typer.Exit(1)
    facts = work.restore(planned)
    for done in facts["entities"]:
        typer.echo(f"restored: {done['entity']}, {done['rows_after']:,} rows, equal to the backup")
    typer.echo(f"what was there before is backup {facts['backup_id']}, in the same folder")
