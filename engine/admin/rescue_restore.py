"""`dataops-admin rescue restore`: the way back with storage, key ring and DSN alone. The same plan, phrase, backup,
transaction and proof as a job's; what it lacks is a control schema that others could watch it in."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from engine.admin.rescue import Terminal
from engine.backups.archive import Archive
from engine.backups.manifest import Manifest, not_held
from engine.backups.model import Asked, Requester, Trigger
from engine.backups.record import name_of
from engine.backups.repository import Repository
from engine.backups.take import take_held
from engine.catalog import Catalog
from engine.catalog.introspect import read_tables
from engine.clock import utc_now
from engine.db.platform import Connection
from engine.errors import InvalidRequest, Unavailable
from engine.ids import new_id
from engine.jobs.model import Severity
from engine.restores.model import Rename
from engine.restores.plan import RestorePlanner, phrase_of
from engine.restores.transaction import Nowhere, RestoreTransaction, confirmed_of

NOBODY = Requester(uuid.UUID(int=0), "", "dataops-admin rescue")
"""Who asked for the backup before the restore: there is no record of principals here."""


class RestoringTerminal(Terminal):
    """A terminal whose work changes rows. No fence: nobody takes this work over, and what dies with its session is
    rolled back."""

    def hold(self, connection: Connection) -> None:
        """No job, no fence."""

    def notice(self, code: str, message: str, *, severity: Severity = Severity.INFO, **metadata: str) -> None:
        del severity, metadata
        self.say(f"{code}: {message}")


@dataclass(frozen=True)
class Rescue:
    """One restore at a terminal: what is restored, from where, and how it is told."""

    repository: Repository
    archive: Archive
    terminal: RestoringTerminal
    names: Sequence[str]
    renames: Sequence[Rename]

    def plan(self) -> dict[str, Any]:
        """What it would do; nothing is touched. It fails as a restore's plan does."""
        planner = RestorePlanner(self.terminal, self.read_catalog, self.archive, self.names, self.renames)
        return planner.plan(Nowhere())

    def restore(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Does what was planned, confirmed by the caller; its facts, committed.

        Raises:
            Unavailable: OUTCOME_UNKNOWN when the connection broke during COMMIT; what `RestoreTransaction` raises, and
                then everything is as before.
        """
        most = sum(e["rows_lost"] + e["rows_changed"] for e in plan["entities"])
        restore = RestoreTransaction(
            self.terminal, self.read_catalog, self.archive, self.names, self.renames, confirmed_of(plan, most)
        )
        restore.gate()
        with self.terminal.platform("rescue", idle_in_transaction_session_timeout="0") as connection:
            facts = restore.apply(connection, self.back_up)
            try:
                connection.commit()
            except psycopg.OperationalError:
                raise Unavailable(
                    "restore: the connection broke while it was committed; compare the tables with the backup before"
                    " anything else",
                    reason="OUTCOME_UNKNOWN",
                ) from None
        return facts

    def back_up(
        self, connection: Connection, catalog: Catalog, entities: Sequence[str], seed: int
    ) -> tuple[uuid.UUID, Manifest]:
        """What is there now, into the same storage."""
        now = utc_now()
        asked = Asked(
            backup_id=new_id(),
            artifact_id=uuid.uuid4(),
            trigger=Trigger.PRE_RESTORE,
            name=name_of(entities, Trigger.PRE_RESTORE, now),
            created_at=now,
            requested_by=NOBODY,
            entities=tuple(entities),
        )
        archive = take_held(self.terminal, connection, self.repository, catalog, asked, (), utc_now, seed)
        return asked.backup_id, archive.manifest

    def read_catalog(self, connection: Connection) -> Catalog:
        """The tables of the backup's schemas, called as the backup calls them: there is no catalog.toml here. What the
        backup holds as secret is secret."""
        backed = {(e.schema, e.table): e for e in self.archive.manifest.entities}
        found, other = read_tables(connection, sorted({schema for schema, _ in backed}))
        entities = []
        for entity in found:
            held = backed.get((entity.schema, entity.table))
            if held is None:
                entities.append(replace(entity, name=f"{entity.schema}.{entity.table}"))
                continue
            secret = {column.name for column in held.columns if column.secret}
            fields = tuple(replace(f, secret=f.column in secret) for f in entity.fields)
            entities.append(replace(entity, name=held.entity, fields=fields))
        return Catalog(entities, other)


def chosen(archive: Archive, names: Sequence[str]) -> list[str]:
    """The entities that are meant; all where none is named.

    Raises:
        NotFound: ENTITY_UNKNOWN.
    """
    held = [entity.entity for entity in archive.manifest.entities]
    for name in names:
        if name not in held:
            raise not_held(name)
    return [name for name in held if not names or name in names]


def rename_of(text: str) -> Rename:
    """`entity.old=new`; an empty new name says that the column is none any more.

    Raises:
        InvalidRequest: OPTION_INVALID.
    """
    left, equals, new = text.partition("=")
    entity, dot, old = left.rpartition(".")
    if not equals or not dot or not entity or not old:
        raise InvalidRequest(f"rename: expected entity.old=new, found {text[:80]!r}", reason="OPTION_INVALID")
    return Rename(entity, old, new)


def beginning_of(plan: dict[str, Any]) -> str:
    """The phrase without the letters that are drawn anew each time: it says how much is lost all the same."""
    return phrase_of(plan).rpartition(" ")[0]


def says(given: str, beginning: str) -> bool:
    """Whether a phrase that was given beforehand says what is planned now; it may have the letters of another time."""
    return re.fullmatch(re.escape(beginning) + r"(?: [A-Z]{5})?", given.strip()) is not None


def typed(plan: dict[str, Any], ask: Callable[[str], str]) -> bool:
    """Whether the phrase is typed as it is shown now, to its last letter."""
    phrase = phrase_of(plan)
    return secrets.compare_digest(ask(f"to restore, type: {phrase}\n>").encode(), phrase.encode())


def lines_of_plan(plan: dict[str, Any]) -> list[str]:
    """A plan for people."""
    lines = [f"{'entity':<32}  {'now':>13}  {'backup':>13}  {'lost':>11}  {'changed':>11}"]
    for entity in plan["entities"]:
        lines.append(
            f"{entity['entity']:<32}  {entity['rows_now']:>13,}  {entity['rows_in_backup']:>13,}"
            f"  {entity['rows_lost']:>11,}  {entity['rows_changed']:>11,}"
        )
        lines += [f"    {notice['code']}: {notice['message']}" for notice in entity["schema_differences"]]
    lines += [f"{notice['code']}: {notice['message']}" for notice in plan["notices"]]
    lines.append(f"readers will wait about {plan['outage_seconds']:,.0f} s; disk about {plan['disk_bytes']:,} bytes")
    return lines
