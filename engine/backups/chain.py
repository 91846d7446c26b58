"""Which backup the next increment is one of: `docs/archive-format.md`, section 6."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select, true
from sqlalchemy.orm import Session

from engine.backups.increment import NoIncrement
from engine.backups.model import SAFETY
from engine.backups.states import GOOD, found_damaged
from engine.db.models import BackupRow

MOST_LINKS = 7
"""Increments behind one full backup: a restore reads all of them."""

CONTENT_EVERY = 4
"""Of a chain's links, each fourth is compared by content: what candidates cannot know is found there."""

LARGE = 0.5
"""Of the full backup's bytes: increments of a chain that are together as large are followed by a full one."""


@dataclass(frozen=True)
class Link:
    """The place of a new increment: its parent's record, and its number behind the full backup, from 1."""

    parent_id: uuid.UUID
    artifact_id: uuid.UUID
    manifest_sha256: bytes
    chain_id: uuid.UUID
    number: int

    def by_content(self, method: str) -> bool:
        """Whether this link is compared by content; `method` is the installation's."""
        return method == "content" or self.number % CONTENT_EVERY == 0


def next_link(session: Session, entities: Sequence[str]) -> Link:
    """The newest good backup of these entities, locked until the transaction ends, so that nobody deletes it before the
    increment's record names it.

    Raises:
        NoIncrement: there is none, or its chain is long or large enough.
    """
    found = _newest(session, BackupRow.entity_types.contained_by(list(entities)), entities)
    full, links = found[-1], found[:-1]
    if len(links) >= MOST_LINKS:
        raise NoIncrement(f"its chain has {MOST_LINKS} increments")
    if links and sum(row.file_size_bytes for row in links) >= full.file_size_bytes * LARGE:
        raise NoIncrement(f"the increments of its chain have {LARGE:.0%} of the size of its full backup")
    return _behind(found)


def leaf_link(session: Session, entities: Sequence[str], chain_id: uuid.UUID | None = None) -> Link:
    """The same for a backup that will be nobody's parent: of one that holds these entities and perhaps more; with
    `chain_id` of that chain alone.

    Raises:
        NoIncrement: there is none.
    """
    return _behind(_newest(session, true() if chain_id is None else BackupRow.chain_id == chain_id, entities))


def _newest(session: Session, condition: ColumnElement[bool], entities: Sequence[str]) -> list[BackupRow]:
    """The newest good backup that may be a parent, and what it needs, back to the full one."""
    query = select(BackupRow).where(
        BackupRow.status.in_(GOOD),
        BackupRow.trigger_type.not_in(SAFETY),
        BackupRow.entity_types.contains(list(entities)),
        condition,
    )
    newest = query.order_by(BackupRow.snapshot_at.desc(), BackupRow.id.desc()).limit(1).with_for_update()
    parent = session.scalars(newest).one_or_none()
    if parent is None:
        raise NoIncrement("there is no good backup of the same entities")
    chain = ancestors(session, parent)
    if any(found_damaged(row.verifications) for row in chain):
        raise NoIncrement("the newest backup of the same entities, or one that it needs, was found damaged")
    if chain[-1].parent_id is not None:
        raise NoIncrement("the chain of the newest backup lacks its beginning")
    return chain


def _behind(chain: Sequence[BackupRow]) -> Link:
    parent = chain[0]
    assert parent.artifact_id is not None and parent.manifest_sha256 is not None, "a good backup is whole"
    return Link(parent.id, parent.artifact_id, parent.manifest_sha256, chain[-1].id, len(chain))


def ancestors(session: Session, row: BackupRow) -> list[BackupRow]:
    """The backup and those that it needs, back to the full one."""
    chain = [row]
    while chain[-1].parent_id is not None and len(chain) <= MOST_LINKS + 1:
        before = session.get(BackupRow, chain[-1].parent_id)
        if before is None or before.status not in GOOD:
            break
        chain.append(before)
    return chain
