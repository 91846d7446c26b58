"""The overview: every part as the list call of its noun would show it to this caller, each of them bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import sql

from engine.access import Caller
from engine.backups.covered import DEFINITIONS, LARGE_OBJECTS, has_large_objects, not_backed_up
from engine.backups.protection import Protection, read_failed_runs, read_protection
from engine.backups.service import Backups
from engine.catalog import Catalog
from engine.db.models import BackupRow, ExportRow, ImportRow, JobRow
from engine.errors import DataOpsError, Unavailable
from engine.exports.service import Exports
from engine.imports.service import Imports
from engine.jobs.calls import JobFacts, Jobs
from engine.jobs.model import ACTIVE, JobState
from engine.jobs.service import JobFilter
from engine.overview.schedules import ScheduleSummary, read_schedules, summary_of
from engine.paging import Paging
from engine.resources import Resources

RECENT = 5
MAX_JOBS = 50
MAX_UNCOVERED = 100
MAX_UNPROTECTED = 100

NOUNS = ("backups", "catalog", "exports", "imports", "jobs", "schedules")
"""Parts, each read by the permission `<noun>.read`."""


@dataclass(frozen=True)
class Uncovered:
    """Something that no backup holds: a stable word why, and the sentence."""

    name: str
    code: str
    why: str


@dataclass
class OverviewPage:
    """What there is to show. A part that stands in `withheld` is empty."""

    as_of: datetime
    withheld: tuple[str, ...]
    last_backup: BackupRow | None = None
    protection: Protection | None = None
    schedules: ScheduleSummary | None = None
    exports: Sequence[ExportRow] = ()
    imports: Sequence[ImportRow] = ()
    jobs: Sequence[JobRow] = ()
    job_facts: JobFacts = field(default_factory=lambda: JobFacts({}, {}))
    active_jobs: int = 0
    """Those that run or wait, shown or not."""
    uncovered: Sequence[Uncovered] = ()
    uncovered_count: int = 0
    notices: list[Mapping[str, Any]] = field(default_factory=list)


class Overview:
    """One object a process; every call is one caller's."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._backups, self._exports, self._imports = Backups(resources), Exports(resources), Imports(resources)
        self._jobs = Jobs(resources.db, resources.bell, resources.clock)

    def get(self, caller: Caller, recent: int = 0) -> OverviewPage:
        """The newest `recent` exports and imports (5 for 0), and all else that the caller may see. While the platform
        is away what hangs on its catalog is left out and said so, but to callers whose permissions name entities.

        Raises:
            Unavailable: PLATFORM_UNREACHABLE, LOCK_TIMEOUT, to those callers.
        """
        page = OverviewPage(
            as_of=self._resources.clock(),
            withheld=tuple(noun for noun in NOUNS if not caller.may(f"{noun}.read")),
        )
        catalog = self._catalog(caller, page)
        paging = Paging(recent or RECENT)
        if "backups" not in page.withheld:
            self._add_backups(caller, page, catalog)
        if "schedules" not in page.withheld:
            self._add_schedules(caller, page, catalog)
        if "exports" not in page.withheld:
            page.exports = self._exports.list(caller, paging).items
        if "imports" not in page.withheld:
            page.imports = self._imports.list(caller, paging).items
        if "jobs" not in page.withheld:
            self._add_jobs(caller, page)
        if "catalog" not in page.withheld and catalog is not None:
            self._add_uncovered(page, catalog)
        return page

    def _catalog(self, caller: Caller, page: OverviewPage) -> Catalog | None:
        try:
            return self._resources.catalogs.load()
        except DataOpsError as error:
            if any(noun not in page.withheld and not caller.may(f"{noun}.read", "*") for noun in NOUNS):
                raise
            page.notices.append(_not_told(error))
            return None

    def _add_backups(self, caller: Caller, page: OverviewPage, catalog: Catalog | None) -> None:
        page.last_backup = next(iter(self._backups.list(caller, Paging(1)).items), None)
        names, readable = None, None
        if catalog is not None:
            mine = [entity for entity in catalog.entities() if caller.may("backups.read", entity.name)]
            names = [entity.name for entity in mine if not not_backed_up(entity)]
            readable = None if caller.may("backups.read", "*") else [entity.name for entity in mine]
        with self._resources.db.transaction() as session:
            page.protection = read_protection(session, names, readable)

    def _add_schedules(self, caller: Caller, page: OverviewPage, catalog: Catalog | None) -> None:
        with self._resources.db.transaction() as session:
            rows = read_schedules(session, caller, catalog)
            page.schedules = summary_of(rows, read_failed_runs(session), page.as_of)

    def _add_jobs(self, caller: Caller, page: OverviewPage) -> None:
        """What runs stands before what waits, or a long queue would hide it."""
        running, facts = self._jobs.list(caller, JobFilter(states=ACTIVE), Paging(MAX_JOBS))
        page.jobs, page.job_facts = running.items, facts
        if left := MAX_JOBS - len(running.items):
            waiting, more = self._jobs.list(caller, JobFilter(states=(JobState.PENDING,)), Paging(left))
            page.jobs = [*running.items, *waiting.items]
            page.job_facts = JobFacts(facts.blocked_by | more.blocked_by, facts.principals | more.principals)
        page.active_jobs = self._jobs.count(caller, JobFilter(states=(*ACTIVE, JobState.PENDING)))

    def _add_uncovered(self, page: OverviewPage, catalog: Catalog) -> None:
        found = list(_uncovered(catalog))
        try:
            with self._resources.platform.connect("overview", autocommit=True) as connection:
                large = has_large_objects(connection)
        except Unavailable as error:
            page.notices.append(_not_told(error))
            large = False
        if large:
            found.append(Uncovered(LARGE_OBJECTS["name"], "ROWS_ONLY", LARGE_OBJECTS["why"]))
        page.uncovered, page.uncovered_count = found[:MAX_UNCOVERED], len(found)


def _uncovered(catalog: Catalog) -> Iterator[Uncovered]:
    """Relations that are no entities, entities that cannot be backed up, and what is no row."""
    yield Uncovered(DEFINITIONS["name"], "ROWS_ONLY", DEFINITIONS["why"])
    for entity in catalog.entities():
        if why := not_backed_up(entity):
            relation = sql.Identifier(entity.schema, entity.table).as_string(None)
            yield Uncovered(relation, "NOT_BACKED_UP", why)
    for other in catalog.not_covered:
        yield Uncovered(other.name, "NOT_AN_ENTITY", other.why)


def _not_told(error: DataOpsError) -> Mapping[str, Any]:
    return {
        "code": error.reason,
        "message": f"{error.message}; what hangs on the platform's tables is left out here",
        "severity": "WARNING",
        "metadata": {},
    }
