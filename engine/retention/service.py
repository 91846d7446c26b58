"""Retention: the sweep that removes what is past its time, and the same decisions shown to a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog

from engine.access import Caller
from engine.exports.service import Exports
from engine.imports.service import Imports
from engine.paging import Page, Paging, by_name
from engine.resources import Resources
from engine.retention import backups, clock, files
from engine.retention.model import Decision, put_off
from engine.uploads.service import MANAGE, Uploads

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep removed; `waits` says why it removed nothing."""

    backups: int = 0
    exports: int = 0
    imports: int = 0
    """Whose plan nobody applied."""
    uploads: int = 0
    files: int = 0
    """Imports, restores and comparisons of which files went."""
    waits: str = field(default="", compare=False)


class Retention:
    """One object a process. A sweep may run twice at once and be killed anywhere: what a thing becomes is one
    transaction, with its audit row; the bytes of what cannot be had any more go by the sweeps of those that keep them.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        settings = resources.settings
        self._settle = timedelta(seconds=settings.retention_settle_seconds)
        self._applied_plan = timedelta(seconds=settings.applied_plan_seconds)
        self._floor = settings.retention_floor
        self._uploads, self._exports, self._imports = Uploads(resources), Exports(resources), Imports(resources)

    def sweep(self, now: datetime) -> Swept:
        """Removes what `decisions` says.

        Raises: what failed first; the rest was done all the same.
        """
        with self._resources.db.transaction() as session:
            found = clock.note(session, now, self._settle)
        if not found.steady:
            if found.since == now:  # once: it goes on for a day
                log.warning("retention_waits", until=str(found.until))
            return Swept(waits=found.why)
        # Uploads before the imports that want them, files before plans end: each as it was when the sweep began.
        steps: dict[str, Callable[[datetime], int]] = {
            "backups": self._expire_backups,
            "uploads": self._expire_uploads,
            "files": self._let_files_go,
            "exports": self._exports.expire,
            "imports": self._imports.expire,
        }
        done: dict[str, Any] = {}
        failure = None
        for name, step in steps.items():
            try:
                done[name] = step(now)
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure
        swept = Swept(**done)
        if swept != Swept():
            log.info("retention_removed", **done)
        return swept

    def decisions(self, now: datetime) -> list[Decision]:
        """What becomes of everything that is kept for a time. Nothing is written."""
        with self._resources.db.transaction() as session:
            found = clock.look(session, now, self._settle)
            every = [
                *backups.decisions(session, self._floor, now),
                *files.exports(session, now),
                *files.files(session, self._applied_plan, now),
                *files.uploads(session, now),
            ]
        return every if found.steady else [put_off(decision, found.why) for decision in every]

    def preview(self, caller: Caller, paging: Paging, *, removals_only: bool = False) -> tuple[Page[Decision], int]:
        """One page of the decisions over what the caller may know of, by resource, and the bytes that all removals
        among them would free.

        Raises:
            PermissionDenied; InvalidRequest: PAGE_TOKEN_INVALID, PAGE_SIZE_INVALID.
        """
        caller.require("schedules.read")
        known = [decision for decision in self.decisions(self._resources.clock()) if _may_know(caller, decision)]
        shown = [decision for decision in known if decision.remove or not removals_only]
        return by_name(shown, paging, lambda decision: decision.resource), sum(decision.size for decision in known)

    def _expire_backups(self, now: datetime) -> int:
        with self._resources.db.transaction() as session:
            return len(backups.expire(session, self._floor, now))

    def _expire_uploads(self, now: datetime) -> int:
        swept = self._uploads.sweep(now)
        return swept.idle + swept.unused

    def _let_files_go(self, now: datetime) -> int:
        with self._resources.db.transaction() as session:
            over = [d for d in files.files(session, self._applied_plan, now) if d.remove]
        gone = 0
        for decision in over:
            with self._resources.db.transaction() as session:
                gone += files.let_go(session, self._resources.artifacts, decision, self._applied_plan, now)
        return gone


def _may_know(caller: Caller, decision: Decision) -> bool:
    """What the caller could not list is not shown here either."""
    kind = decision.resource_type
    if kind == "uploads":
        return decision.principal_id == caller.principal_id or caller.may(MANAGE)
    if kind == "restores":
        return caller.may("restores.read", "*")
    operation = "backups.read" if kind == "backup_diffs" else f"{kind}.read"
    return all(caller.may(operation, entity) for entity in decision.entity_types or ("*",))
