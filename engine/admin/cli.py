"""The `dataops-admin` command. It works on the control database directly: no server needs to run."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import psycopg
import structlog
import typer
from sqlalchemy.exc import DBAPIError

from engine.access.grants import list_grants
from engine.access.service import bootstrap, find_principal, principals
from engine.admin import prepare as preparing
from engine.admin.cli_keys import keys
from engine.admin.cli_repository import repository, rescue
from engine.admin.configuration import document
from engine.admin.doctor import diagnose
from engine.admin.doctor.text import as_text
from engine.admin.session import admin_settings, control_database
from engine.clock import utc_now
from engine.db import migrate
from engine.db.revision import require_revision
from engine.errors import DataOpsError, NotFound, PlatformNotPrepared
from engine.jobs.retry import is_connection_loss
from engine.paging import MAX_SIZE, Paging

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Operate a DataOps installation.")
config = typer.Typer(no_args_is_help=True, help="The settings.")
grants = typer.Typer(no_args_is_help=True, help="Roles in principals' hands.")
app.add_typer(config, name="config")
app.add_typer(grants, name="grants")
app.add_typer(keys, name="keys")
app.add_typer(repository, name="repository")
app.add_typer(rescue, name="rescue")

_LOCKS = ("40", "55P03", "57014")
"""SQLSTATEs, by their beginning, of what waited for another session in vain."""

log = structlog.get_logger(__name__)


class Output(StrEnum):
    """How `doctor` says it."""

    TEXT = "text"
    JSON = "json"


def main() -> None:
    """Entry point: domain errors become one line with one for each violation, a database's one, and exit code 1."""
    try:
        app()
    except DataOpsError as error:
        _fail(str(error), *(f"{violation.subject}: {violation.description}" for violation in error.violations))
    except (psycopg.Error, DBAPIError) as error:
        _fail(_told(error))


def _fail(message: str, *more: str) -> None:
    sys.stderr.write(f"dataops-admin: {message}\n")
    for line in more:
        sys.stderr.write(f"  {' '.join(line.split())}\n")
    sys.exit(1)


def _told(error: psycopg.Error | DBAPIError) -> str:
    """A database's error in one line. Its own text is shown of locks and connections only: of a row that is refused it
    holds values, and of a DSN that cannot be read its password."""
    driver = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(driver, psycopg.Error):
        return f"the database: {type(error).__name__}"
    state = driver.sqlstate or ""
    code = f"SQLSTATE {state}" if state else type(driver).__name__
    if not state.startswith(_LOCKS) and not is_connection_loss(driver):
        return f"the database: found an error ({code})"
    message = driver.diag.message_primary or next(iter(str(driver).splitlines()), "")
    return f"the database: {message} ({code})"


@app.command()
def upgrade(revision: Annotated[str, typer.Option(help="The revision to reach.")] = "head") -> None:
    """Bring the control schema to this release's revision; a one-shot step of each deployment."""
    settings = admin_settings()
    migrate.upgrade(settings.control_dsn, revision)
    with control_database(settings) as db:
        typer.echo(f"control schema: at revision {require_revision(db.engine)}")


@app.command()
def prepare(
    role: Annotated[str, typer.Option(help="The service's role; else the login of DATAOPS_PLATFORM_DSN.")] = "",
    dsn: Annotated[
        str,
        typer.Option(help="Another login that may do more; its password is better left to PGPASSWORD or ~/.pgpass."),
    ] = "",
    sql: Annotated[bool, typer.Option("--sql", help="Only show the SQL, for the database's owner to run.")] = False,
) -> None:
    """Make in the platform database what the service needs there; where that is not allowed, show the SQL for it."""
    if not (role and (dsn or sql)):  # else no setting is asked: who owns the database need not have ours
        settings = admin_settings()
        role = role or preparing.service_role(settings)
        dsn = dsn or settings.platform_dsn
    if sql:
        typer.echo(preparing.sql_for_owner(role), nl=False)
        return
    try:
        made = preparing.prepare(dsn, role)
    except PlatformNotPrepared as error:
        typer.echo(f"dataops-admin: {error}", err=True)
        typer.echo(error.metadata["sql"], nl=False)
        raise typer.Exit(1) from None
    for line in made or [f"nothing to do: {role} has all it needs"]:
        typer.echo(line)


@app.command()
def doctor(
    output: Annotated[Output, typer.Option("-o", "--output", help="For people, or for programs.")] = Output.TEXT,
    everything: Annotated[bool, typer.Option("--all", help="Also show what is OK, table by table.")] = False,
) -> None:
    """Say what works here, what is refused and why, and the SQL that mends it. Exit code 1 when there is an ERROR."""
    report = diagnose(admin_settings())
    if output is Output.JSON:
        typer.echo(json.dumps(report.as_document(), indent=2, ensure_ascii=False))
    else:
        typer.echo(as_text(report, everything=everything), nl=False)
    if report.failed:
        raise typer.Exit(1)


@config.command("docs")
def config_docs(
    output: Annotated[Path | None, typer.Option(help="File to write; standard output when not given.")] = None,
    check: Annotated[bool, typer.Option(help="Fail when the file differs instead of writing it.")] = False,
) -> None:
    """Make docs/configuration.md from the settings of the code."""
    made = document()
    if output is None:
        typer.echo(made, nl=False)
    elif not check:
        output.write_text(made, encoding="utf-8")
    elif not output.exists() or output.read_text(encoding="utf-8") != made:
        typer.echo(f"{output}: differs from the code, make it with `dataops-admin config docs --output {output}`")
        raise typer.Exit(1)


@config.command("check")
def config_check() -> None:
    """Read the settings of this environment and say whether they hold; values are not shown."""
    settings = admin_settings()
    typer.echo(f"settings: {len(settings.model_fields_set)} given, all of them valid")


@grants.command("list")
def grants_list(
    subject: Annotated[str, typer.Option(help="Only this subject of the configured issuer.")] = "",
) -> None:
    """Show who holds which role, newest first."""
    settings = admin_settings()
    with control_database(settings) as db, db.transaction() as session:
        of = None
        if subject:
            found = find_principal(session, settings.jwt_issuer, subject)
            if found is None:
                raise NotFound(f"subject: found none called {subject!r}", reason="PRINCIPAL_UNKNOWN")
            of = found.id
        token, first = "", True
        while first or token:
            first = False
            page = list_grants(session, Paging(MAX_SIZE, token), principal_id=of)
            known = principals(session, [row.principal_id for row in page.items])
            for row in page.items:
                until = f" until {row.expires_at.isoformat()}" if row.expires_at else ""
                holder = known[row.principal_id]
                typer.echo(f"{row.id}  {row.role}  {holder.issuer}  {holder.subject}{until}")
            token = page.next_token


@grants.command("bootstrap")
def grants_bootstrap(subject: Annotated[str, typer.Argument(help="Subject of the configured issuer.")]) -> None:
    """Make a subject super_admin: the way back in when nobody is any more. Written to the audit log."""
    settings = admin_settings()
    with control_database(settings) as db, db.transaction() as session:
        made = bootstrap(session, settings.jwt_issuer, [subject], utc_now())
    typer.echo(f"{subject}: {'is super_admin now' if made else 'was super_admin already'}")


if __name__ == "__main__":
    main()
