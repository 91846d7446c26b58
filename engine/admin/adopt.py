"""`dataops-admin repository adopt`: records for backups that the storage has and the control schema does not know.

That is the way back after the control schema was lost: a new, empty one, the same storage and key ring.
"""

from __future__ import annotations

import getpass
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from engine.access.caller import SYSTEM_CONTEXT, Caller
from engine.access.roles import seed_roles
from engine.access.service import find_principal
from engine.admin.rescue import find_all
from engine.audit import record_change
from engine.backups.archive import Archive
from engine.backups.record import describe, kept_until
from engine.backups.repository import Repository
from engine.backups.states import GOOD, BackupStatus
from engine.config import Settings
from engine.db.database import Database
from engine.db.models import BackupRow, GrantRow, PrincipalRow, RoleRow, ScheduleRow
from engine.errors import NotFound
from engine.ids import new_id
from engine.schedules.model import ScheduleSpec

ADOPT_LOCK = 0x64744F_61646F
"""Of two adoptions at once each makes the records that the other has not made."""


@dataclass(frozen=True)
class Told:
    """What became, or would become, of one backup: `adopted`, `known`, or `left` with the reason."""

    artifact_id: uuid.UUID
    backup_id: uuid.UUID | None
    name: str
    outcome: str
    why: str = ""


def adopt(
    db: Database, repository: Repository, settings: Settings, now: datetime, *, dry_run: bool = False
) -> Iterator[Told]:
    """Makes a COMPLETED record of every whole backup without one, oldest first. It may be run again.

    An adopted backup's time begins anew: one from before an old import is not removed the moment it is known again.
    """
    for found in reversed(find_all(repository)):
        if found.error is not None:
            yield Told(found.artifact_id, None, "", "left", str(found.error))
        elif found.archive is not None:
            yield _adopt_one(db, found.archive, settings, now, dry_run=dry_run)


def _adopt_one(db: Database, archive: Archive, settings: Settings, now: datetime, *, dry_run: bool) -> Told:
    manifest = archive.manifest

    def told(outcome: str, why: str = "") -> Told:
        return Told(manifest.artifact_id, manifest.backup_id, manifest.name, outcome, why)

    with db.transaction() as session:
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADOPT_LOCK})
        there = session.get(BackupRow, manifest.backup_id)
        if there is not None:
            if there.artifact_id == manifest.artifact_id:
                return told("known", there.status)
            return told("left", f"the backup of this id is recorded as {there.status}, with another artifact or none")
        if dry_run:
            return told("adopted")
        row = BackupRow(
            id=manifest.backup_id,
            backup_type=manifest.backup_type,
            trigger_type=manifest.trigger_type,
            status=BackupStatus.COMPLETED.value,
            name=manifest.name,
            principal_id=uuid.UUID(manifest.requested_by["principal_id"]),
            context={},
            verifications={},
            created_at=manifest.created_at,
            updated_at=now,
            completed_at=manifest.snapshot_at,
        )
        describe(row, archive)
        row.expires_at = kept_until(row, settings, now)
        session.add(row)
        _audit(session, "backups.create", "backups", row.id, {"entity_types": row.entity_types, "name": row.name}, now)
    return told("adopted")


# --- settings


def put_back(db: Database, archive: Archive, now: datetime) -> Iterator[str]:
    """Puts back what is missing of the roles, principals, grants, schedules and holds that this backup carries; what it
    did.

    What is there stays as it is: a role with other permissions, a grant with another end. Grants that have ended, and
    those of roles that nobody has any more, are left out. All or nothing.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for line in b"".join(archive.settings()).splitlines():
        record = json.loads(line)
        rows.setdefault(record["table"], []).append(record["row"])
    done: list[str] = []
    with db.transaction() as session:
        seed_roles(session, now)
        for row in rows.get("roles", ()):
            done += _role(session, row, now)
        ids = {str(row["id"]): _principal(session, row, done) for row in rows.get("principals", ())}
        for row in rows.get("grants", ()):
            done += _grant(session, row, ids, now)
        for row in rows.get("schedules", ()):
            done += _schedule(session, row, ids, now)
        for row in rows.get("holds", ()):
            done += _hold(session, uuid.UUID(row["backup_id"]), now)
    yield from done


def archive_of(repository: Repository, backup_id: uuid.UUID) -> Archive:
    """The backup in storage that bears this id: the newest whole one, else one of which something is missing.

    Raises:
        NotFound: BACKUP_UNKNOWN.
    """
    for found in find_all(repository):  # the whole ones first; of one with damaged rows the settings may be good
        if found.archive is not None and found.archive.manifest.backup_id == backup_id:
            return found.archive
    raise NotFound("backup: found none with this id that can be opened", reason="BACKUP_UNKNOWN")


def _role(session: Session, row: dict[str, Any], now: datetime) -> list[str]:
    if row.get("built_in"):
        return []  # this release's own are written at every start
    values = {"name": row["name"], "description": row["description"], "permissions": row["permissions"]}
    made = session.execute(
        insert(RoleRow)
        .values(**values, built_in=False, updated_at=now)
        .on_conflict_do_nothing()
        .returning(RoleRow.name)
    ).scalar_one_or_none()
    if made is None:
        return []
    _audit(session, "access.write", "roles", made, {"permissions": row["permissions"]}, now)
    return [f"role {made}"]


def _principal(session: Session, row: dict[str, Any], done: list[str]) -> uuid.UUID:
    """The principal's id here: one that called before us may have another."""
    values = {name: row[name] for name in ("issuer", "subject", "kind", "display_name")}
    made = session.execute(
        insert(PrincipalRow)
        .values(id=uuid.UUID(row["id"]), created_at=_time(row["created_at"]), **values)
        .on_conflict_do_nothing()
        .returning(PrincipalRow.id)
    ).scalar_one_or_none()
    if made is not None:
        done.append(f"principal {row['issuer']} {row['subject']}")
        return made
    there = find_principal(session, row["issuer"], row["subject"])
    return there.id if there is not None else uuid.UUID(row["id"])


def _grant(session: Session, row: dict[str, Any], ids: dict[str, uuid.UUID], now: datetime) -> list[str]:
    ends = _time(row["expires_at"]) if row.get("expires_at") else None
    holder = ids.get(str(row["principal_id"]))
    if holder is None or (ends is not None and ends <= now) or session.get(RoleRow, row["role"]) is None:
        return []
    by = ids.get(str(row["granted_by"])) if row.get("granted_by") else None
    made = session.execute(
        insert(GrantRow)
        .values(id=new_id(), principal_id=holder, role=row["role"], granted_by=by, granted_at=now, expires_at=ends)
        .on_conflict_do_nothing(index_elements=["principal_id", "role"])
        .returning(GrantRow.id)
    ).scalar_one_or_none()
    if made is None:
        return []
    principal = session.get(PrincipalRow, holder)
    name = f"{principal.issuer} {principal.subject}" if principal is not None else str(holder)
    _audit(session, "access.write", "grants", made, {"role": row["role"], "granted_to": name}, now)
    return [f"grant of {row['role']} to {name}"]


def _schedule(session: Session, row: dict[str, Any], ids: dict[str, uuid.UUID], now: datetime) -> list[str]:
    """Paused: nothing begins by itself in an installation that is being put together again."""
    owner = ids.get(str(row["principal_id"]))
    if owner is None:
        return []
    spec = {column: row[column] for column in ScheduleSpec("", "").as_columns()}
    made = session.execute(
        insert(ScheduleRow)
        .values(
            id=uuid.UUID(row["id"]),
            **spec,
            revision=row["revision"] + 1,
            paused=True,
            principal_id=owner,
            context={},
            created_at=_time(row["created_at"]),
            updated_at=now,
        )
        .on_conflict_do_nothing(index_elements=["id"])
        .returning(ScheduleRow.id)
    ).scalar_one_or_none()
    if made is None:
        return []
    details = {"change": "create", "name": row["name"], "cron": row["cron"], "entity_types": row["entity_types"]}
    _audit(session, "schedules.change", "schedules", made, details, now)
    return [f"schedule {row['name']}, paused"]


def _hold(session: Session, backup_id: uuid.UUID, now: datetime) -> list[str]:
    row = session.scalars(select(BackupRow).filter_by(id=backup_id).with_for_update()).one_or_none()
    if row is None or row.held or row.status not in GOOD:
        return []
    row.held, row.updated_at = True, now
    _audit(session, "backups.hold", "backups", row.id, {}, now)
    return [f"hold on backup {row.id}"]


def _audit(
    session: Session, operation: str, kind: str, resource_id: uuid.UUID | str, details: dict[str, Any], now: datetime
) -> None:
    """By whoever is logged in on this host: the command asks for no token."""
    caller = Caller(uuid.UUID(int=0), "dataops-admin", _login(), "USER", (), (), SYSTEM_CONTEXT)
    record_change(session, caller, operation, kind, resource_id, now, details | {"by": "repository adopt"})


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _time(written: str) -> datetime:
    return datetime.fromisoformat(written)
