"""Which key is needed by what, and the re-wrapping of all of it under the active one.

A rotation adds a key to the ring's file (`keyfile`), the processes are started again so that all of them know it, and
then what the older keys wrap is wrapped anew. No stored content is touched by that.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from sqlalchemy import func, select, tuple_, update

from engine.backups.repository import Repository
from engine.crypto.keyring import KeyRing, Wrapped
from engine.crypto.sealing import PartIdentity
from engine.db.database import Database
from engine.db.models import ArtifactPartRow, ArtifactRow, BackupRow, WebhookRow
from engine.errors import DataOpsError
from engine.webhooks.signing import key_context

BATCH = 500
"""Rows that are wrapped anew in one transaction: some 10 ms."""


@dataclass
class NeededKeys:
    """What each key wraps."""

    parts: dict[str, int] = field(default_factory=dict)
    """Rows of parts by key id."""
    backups: dict[str, list[str]] = field(default_factory=dict)
    """Backups by key id, as people call them."""
    webhooks: dict[str, int] = field(default_factory=dict)
    """Webhooks by the key id of their signing key."""
    unreadable: list[str] = field(default_factory=list)
    """Backups of whose keys nothing can be told."""

    @property
    def ids(self) -> set[str]:
        return {*self.parts, *self.backups, *self.webhooks}


def needed_keys(db: Database, repository: Repository) -> NeededKeys:
    """Looks at every row of a part, every webhook, and every backup's keys object."""
    found = NeededKeys()
    with db.transaction() as session:
        counted = session.execute(
            select(ArtifactPartRow.key_id, func.count().label("parts")).group_by(ArtifactPartRow.key_id)
        )
        found.parts = {row.key_id: row.parts for row in counted}
        living = select(WebhookRow.key_id, func.count()).where(WebhookRow.deleted_at.is_(None))
        found.webhooks = {row[0]: row[1] for row in session.execute(living.group_by(WebhookRow.key_id))}
    names = _names(db)
    for artifact_id in repository.artifact_ids():
        name = names.get(artifact_id, f"{artifact_id} (without a record)")
        key_ids = repository.key_ids(artifact_id)
        for key_id in key_ids:
            found.backups.setdefault(key_id, []).append(name)
        if not key_ids:
            found.unreadable.append(name)
    for named in (*found.backups.values(), found.unreadable):
        named.sort()
    return found


@dataclass
class Rewrapped:
    """What one re-wrapping did."""

    parts: int = 0
    webhooks: int = 0
    backups: int = 0
    keys_of_backups: int = 0
    failed: list[str] = field(default_factory=list)
    """What could not be wrapped anew, each with the reason."""


def rewrap(db: Database, repository: Repository, ring: KeyRing) -> Rewrapped:
    """Wraps everything under the ring's active key.

    It may be stopped anywhere and run again: it goes on with what is not under the active key.
    """
    done = Rewrapped()
    last: tuple[uuid.UUID, int] | None = None
    while (last := _batch(db, ring, last, done)) is not None:
        pass
    _webhooks(db, ring, done)
    names = _names(db)
    for artifact_id in list(repository.artifact_ids()):
        try:
            others = repository.rewrap(artifact_id)
        except DataOpsError as error:
            done.failed.append(f"backup {names.get(artifact_id, artifact_id)}: {error}")
            continue
        done.backups += bool(others)
        done.keys_of_backups += others
    return done


def _batch(
    db: Database, ring: KeyRing, last: tuple[uuid.UUID, int] | None, done: Rewrapped
) -> tuple[uuid.UUID, int] | None:
    """The next rows behind `last`; where it got to, None at the end."""
    place = tuple_(ArtifactPartRow.artifact_id, ArtifactPartRow.number)
    query = (
        select(ArtifactPartRow.artifact_id, ArtifactPartRow.number, ArtifactRow.kind, ArtifactPartRow.key_id)
        .add_columns(ArtifactPartRow.wrapped_key)
        .join(ArtifactRow, ArtifactRow.id == ArtifactPartRow.artifact_id)
        .where(ArtifactPartRow.key_id != ring.active_id)
        .order_by(ArtifactPartRow.artifact_id, ArtifactPartRow.number)
        .limit(BATCH)
        .with_for_update(of=ArtifactPartRow)
    )
    if last is not None:
        query = query.where(place > last)
    new = []
    with db.transaction() as session:
        rows = session.execute(query).all()
        for artifact_id, number, kind, key_id, wrapped_key in rows:
            context = PartIdentity(artifact_id, kind, number).context()
            try:
                wrapped = ring.wrap(ring.unwrap(Wrapped(key_id, wrapped_key), context), context)
            except DataOpsError as error:
                done.failed.append(f"part {number} of artifact {artifact_id}: {error}")
                continue
            new.append(
                {
                    "artifact_id": artifact_id,
                    "number": number,
                    "key_id": wrapped.key_id,
                    "wrapped_key": wrapped.data,
                }
            )
        if new:
            session.execute(update(ArtifactPartRow), new)
    done.parts += len(new)
    return (rows[-1][0], rows[-1][1]) if rows else None


def _webhooks(db: Database, ring: KeyRing, done: Rewrapped) -> None:
    """They are few: one transaction."""
    others = select(WebhookRow).where(WebhookRow.deleted_at.is_(None), WebhookRow.key_id != ring.active_id)
    with db.transaction() as session:
        for row in session.scalars(others.with_for_update(key_share=True)):  # else ends of jobs would wait for it
            context = key_context(row.id)
            try:
                wrapped = ring.wrap(ring.unwrap(Wrapped(row.key_id, row.signing_key), context), context)
            except DataOpsError as error:
                done.failed.append(f"signing key of webhook {row.id}: {error}")
                continue
            row.key_id, row.signing_key = wrapped.key_id, wrapped.data
            done.webhooks += 1


def _names(db: Database) -> dict[uuid.UUID, str]:
    """Of recorded backups, by artifact id."""
    with db.transaction() as session:
        rows = session.execute(select(BackupRow.artifact_id, BackupRow.id, BackupRow.name)).all()
    return {artifact_id: f"{backup_id} {name}" for artifact_id, backup_id, name in rows if artifact_id is not None}
