"""`dataops-admin keys`: the key ring, from its making to its rotation, and the sheet that outlives the installation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.admin import keyfile
from engine.admin import keys as keeping
from engine.admin.asking import ask, can_ask
from engine.admin.session import admin_settings, control_database
from engine.backups.repository import Repository
from engine.clock import utc_now
from engine.config import Settings
from engine.crypto.keyring import KeyRing, parse_keys, read_key_file
from engine.errors import FailedPrecondition
from engine.storage import storage_from

keys = typer.Typer(no_args_is_help=True, help="The key ring that artifacts are sealed by.")

File = Annotated[Path | None, typer.Option("--file", help="The ring's file; else the settings' own.")]


@keys.command("create")
def create(file: Annotated[Path, typer.Option("--file", help="The file to make; there must be none.")]) -> None:
    """Make a key ring with one key, and show the recovery sheet to be printed. It needs no settings."""
    text = keyfile.create(file, utc_now())
    typer.echo(f"made {file}: set DATAOPS_KEY_FILE to it. The sheet below is to be printed and kept offline.", err=True)
    typer.echo(keyfile.sheet(text, utc_now(), file=file), nl=False)


@keys.command("rotate")
def rotate(file: File = None) -> None:
    """Add a new key, which seals from now on, and show the new recovery sheet."""
    settings = None if file else admin_settings()
    path, text = keyfile.rotate(settings, file, utc_now())
    typer.echo(
        f"added {next(iter(parse_keys(text)))} to {path}. Next: start every server and worker again, so that all"
        " know it; then `dataops-admin keys rewrap`. The sheet below is to be printed and kept offline.",
        err=True,
    )
    artifacts = settings.artifacts if settings else ""
    typer.echo(keyfile.sheet(text, utc_now(), artifacts=artifacts, file=path), nl=False)


@keys.command("sheet")
def sheet() -> None:
    """Show the recovery sheet: keys, where artifacts are, and how backups are read with nothing else. Print it."""
    settings = admin_settings()
    text = keyfile.ring_text(settings)
    shown = keyfile.sheet(
        text, utc_now(), active=settings.active_key, artifacts=settings.artifacts, file=settings.key_file
    )
    typer.echo(shown, nl=False)


@keys.command("list")
def list_keys(
    file: Annotated[Path | None, typer.Option("--file", help="Only the check values of this file's keys.")] = None,
    key: Annotated[str, typer.Option("--key", help="Name the backups that need this key.")] = "",
) -> None:
    """Show the keys by id, which one seals, and how much needs each. No key is shown."""
    if file is not None:
        for key_id, data in parse_keys(read_key_file(file)).items():
            typer.echo(f"{key_id:<32}  {keyfile.check_value(data)}")
        return
    settings = admin_settings()
    ring, repository = _opened(settings)
    held = parse_keys(keyfile.ring_text(settings))
    with control_database(settings) as db:
        needed = keeping.needed_keys(db, repository)
    if key:
        known = {*held, *needed.ids}
        if key not in known:
            raise FailedPrecondition(
                f"key: found none called {key[:80]!r}, expected one of {', '.join(sorted(known))}", reason="KEY_UNKNOWN"
            )
        for name in needed.backups.get(key, ()):
            typer.echo(name)
        return
    typer.echo(f"{'key':<32}  {'check':<8}  {'':<7}  {'parts':>9}  {'backups':>9}  {'webhooks':>9}")
    for key_id in [*held, *sorted(needed.ids - set(held))]:
        check = keyfile.check_value(held[key_id]) if key_id in held else "MISSING"
        active = "seals" if key_id == ring.active_id else "opens" if key_id in held else ""
        counts = needed.parts.get(key_id, 0), len(needed.backups.get(key_id, ())), needed.webhooks.get(key_id, 0)
        typer.echo(f"{key_id:<32}  {check:<8}  {active:<7}  {counts[0]:>9,}  {counts[1]:>9,}  {counts[2]:>9,}")
    for name in needed.unreadable:
        typer.echo(f"its keys cannot be read: {name}", err=True)


@keys.command("rewrap")
def rewrap(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="All have been started again: do not ask.")] = False,
) -> None:
    """Wrap the keys of every part, backup and webhook under the key that seals; stored content is not touched."""
    settings = admin_settings()
    ring, repository = _opened(settings)
    typer.echo(
        f"Everything will be wrapped under {ring.active_id}. First every server and worker must have been started again"
        " with a ring that has this key: one that lacks it can open nothing any more (KEY_UNKNOWN).",
        err=True,
    )
    if not yes and not can_ask():
        typer.echo("nothing was changed: nobody can be asked; --yes says that all have been started again", err=True)
        raise typer.Exit(1)
    if not yes and ask("Have all of them been started again? [y/N]").lower() not in ("y", "yes"):
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(1)
    with control_database(settings) as db:
        done = keeping.rewrap(db, repository, ring)
    of_backups = f"{done.keys_of_backups:,} keys of {done.backups:,} backups"
    typer.echo(f"wrapped anew under {ring.active_id}: {done.parts:,} parts, {of_backups}, {done.webhooks:,} webhooks")
    for failure in done.failed:
        typer.echo(f"left as it was: {failure}", err=True)
    if done.failed:
        raise typer.Exit(1)


def _opened(settings: Settings) -> tuple[KeyRing, Repository]:
    ring = KeyRing.from_settings(settings)
    return ring, Repository(storage_from(settings.artifacts), ring)
