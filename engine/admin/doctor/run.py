"""All checks in order. A check that fails itself is a finding: the others are made all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import sqlalchemy.exc

from engine.admin.doctor import access, house, rights, server, tables
from engine.admin.doctor.finding import Finding, Severity
from engine.admin.doctor.look import Look
from engine.admin.doctor.reach import check_reach
from engine.admin.doctor.report import Report
from engine.catalog import Catalog, CatalogSource
from engine.config import Settings
from engine.db.platform import Connection, Platform
from engine.errors import DataOpsError, Unavailable

_ALL_TABLES = """
SELECT format('%%I.%%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%(schemas)s) AND c.relkind IN ('r', 'p', 'f', 'v', 'm') AND NOT c.relispartition
  AND has_schema_privilege(n.oid, 'USAGE') ORDER BY 1
"""

_FAILED = "the check failed itself"


def diagnose(settings: Settings) -> Report:
    """What works with these settings, as the role and user that run it. Raises nothing that a check can meet."""
    largest = 0
    schemas = tuple(name.strip() for name in settings.platform_schemas.split(",") if name.strip())
    reached = _guarded("reach", lambda: check_reach(settings.platform_dsn))
    report = Report.of(reached)
    if not report.failed:
        try:
            with Platform(settings.platform_dsn).connect("doctor", autocommit=True) as connection:
                catalog, said = _catalog(settings, connection)
                report = _platform([*reached, *said], Look(connection, schemas, catalog))
                largest = max((e.size_bytes for e in catalog.entities()), default=0) if catalog else 0
        except DataOpsError as error:
            failed = Finding("connection", Severity.ERROR, "platform database", str(error), "nothing can be done")
            report = Report.of([*reached, failed])
    findings = [*report.findings]
    findings += _guarded("control_schema", lambda: house.check_control(settings))
    findings += _guarded("keys", lambda: house.check_keys(settings))
    findings += _guarded("file_mode", lambda: house.check_files(settings))
    findings += _guarded("store", lambda: house.check_store(settings, largest))
    findings += _guarded("doorbell", lambda: house.check_doorbell(settings))
    return Report.of(findings, report.tables, report.database, report.role)


def _platform(findings: list[Finding], look: Look) -> Report:
    for check in (*server.CHECKS, *access.CHECKS, *rights.CHECKS, *tables.CHECKS):
        name = check.__name__.removeprefix("check_")
        findings += _guarded(name, lambda check=check: check(look))  # type: ignore[misc]
    if any(finding.found.startswith(_FAILED) for finding in findings):  # what it would have refused is not known
        return Report.of(findings, (), look.database, look.role)
    names = [row["name"] for row in look.rows(_ALL_TABLES)]
    report = Report.of(findings, names, look.database, look.role)
    findings += _guarded("table", lambda: tables.check_tables(look, report))
    return Report.of(findings, names, look.database, look.role)


def _catalog(settings: Settings, connection: Connection) -> tuple[Catalog | None, list[Finding]]:
    """The catalog as the service reads it; without the file where the file is wrong, so that the tables are judged."""
    platform, schemas = Platform(settings.platform_dsn), settings.platform_schemas
    try:
        try:
            return CatalogSource(platform, schemas, settings.catalog_file).read(connection), []
        except DataOpsError as error:
            found = CatalogSource(platform, schemas, None).read(connection)
            wrong = Finding("catalog", Severity.ERROR, "DATAOPS_CATALOG_FILE", str(error), "no entity can be had")
            return found, [wrong]
    except psycopg.Error as error:
        return None, [_unknown("catalog", error)]


def _guarded(name: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check())  # what it found before it failed stays
    except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError, Unavailable, OSError) as error:
        found.append(_unknown(name, error))
    return found


def _unknown(name: str, error: Exception) -> Finding:
    """The driver's text is not shown: it may hold addresses and values."""
    state = getattr(error, "sqlstate", None) or getattr(getattr(error, "orig", None), "sqlstate", None)
    found = f"{_FAILED} ({state or type(error).__name__})"
    return Finding(name, Severity.WARNING, name, found, "it is not known; run doctor again")
