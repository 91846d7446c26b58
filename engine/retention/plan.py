"""Which backups go: values in, decisions out. It reads no clock and no database, so that it can be tried with anything.

The rules, which docs/retention.md tells in words:

1. Only good backups are looked at. One that failed neither counts for anything nor is kept by anything.
2. What is held, needed by unfinished work, or not past its time stays.
3. Of each scope (the same entities) the newest `floor` stay, whatever their age, and so do the newest `floor` of those
   that no proof has found damaged. Safety backups neither count nor are kept by this.
4. The newest proven one of each scope stays: a backup that is known to be readable is worth more than newer ones.
5. Whatever stays keeps the chain that it is an increment to.
6. All else goes, increments before what they build on.
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from engine.retention.model import Code, Decision, by_time


@dataclass(frozen=True)
class Candidate:
    """A good backup, as far as it matters here."""

    backup_id: uuid.UUID
    entity_types: frozenset[str]
    taken_at: datetime
    expires_at: datetime | None
    """When it may go; None: never."""
    size: int = 0
    """Bytes of its own objects."""
    parent_id: uuid.UUID | None = None
    """What it is an increment to."""
    safety: bool = False
    held: bool = False
    in_use: str = ""
    """The work that needs it."""
    proven: bool = False
    """Whether every byte of it was read, or every row loaded, and nothing was found since."""
    damaged: bool = False
    """Whether its newest proof found it damaged."""


def decide(backups: Sequence[Candidate], floor: int, now: datetime) -> list[Decision]:
    """A decision for each: what stays in the order given, then the removals in the order in which they must be done."""
    known = {backup.backup_id: backup for backup in backups}
    kept = _by_themselves(backups, now)
    for backup_id, decision in _by_scope(known, floor).items():
        kept.setdefault(backup_id, decision)
    needed = Counter(parent.backup_id for backup_id in kept for parent in _ancestors(known, known[backup_id]))
    for backup_id, increments in needed.items():
        message = f"{increments} increment{'s' * (increments > 1)} to it stay{'s' * (increments == 1)}"
        kept.setdefault(backup_id, _decision(known[backup_id], Code.CHAIN_NEEDS_IT, message))
    going = [backup for backup in backups if backup.backup_id not in kept]
    going.sort(key=lambda backup: -sum(1 for _ in _ancestors(known, backup)))
    return [kept[b.backup_id] for b in backups if b.backup_id in kept] + [_by_time(b, now) for b in going]


def _by_themselves(backups: Sequence[Candidate], now: datetime) -> dict[uuid.UUID, Decision]:
    """What stays whatever else there is."""
    kept = {}
    for backup in backups:
        if backup.held:
            kept[backup.backup_id] = _decision(backup, Code.HELD, "it is held until somebody releases it")
        elif backup.in_use:
            kept[backup.backup_id] = _decision(backup, Code.IN_USE, backup.in_use)
        elif backup.expires_at is None:
            kept[backup.backup_id] = _decision(backup, Code.NOT_EXPIRED, "it has no time at which it may go")
        elif backup.expires_at > now:
            kept[backup.backup_id] = _by_time(backup, now)
    return kept


def _by_scope(known: Mapping[uuid.UUID, Candidate], floor: int) -> dict[uuid.UUID, Decision]:
    """The floor of each scope, and its newest proven one."""
    scopes: dict[frozenset[str], list[Candidate]] = defaultdict(list)
    for backup in sorted(known.values(), key=lambda b: (b.taken_at, b.backup_id), reverse=True):
        if not backup.safety:
            scopes[backup.entity_types].append(backup)
    kept = {}
    for scope in scopes.values():
        sound = [backup for backup in scope if _sound(known, backup)]
        for backup in (*scope[:floor], *sound[:floor]):
            message = f"it is one of the newest {floor} of its entities, which stay"
            kept[backup.backup_id] = _decision(backup, Code.FLOOR, message)
        proven = next((backup for backup in sound if backup.proven), None)
        if proven is not None and proven.backup_id not in kept:
            message = "it is the newest of its entities that was proven to be whole"
            kept[proven.backup_id] = _decision(proven, Code.NEWEST_PROVEN, message)
    return kept


def _sound(known: Mapping[uuid.UUID, Candidate], backup: Candidate) -> bool:
    """Whether nothing bad is known of it or of what it builds on, all of which is there."""
    chain = [backup, *_ancestors(known, backup)]
    return not any(link.damaged for link in chain) and chain[-1].parent_id is None


def _ancestors(known: Mapping[uuid.UUID, Candidate], backup: Candidate) -> Iterator[Candidate]:
    """What the increment builds on, nearest first; nothing of a full backup."""
    seen = {backup.backup_id}
    while backup.parent_id is not None and backup.parent_id in known and backup.parent_id not in seen:
        backup = known[backup.parent_id]
        seen.add(backup.backup_id)
        yield backup


def _by_time(backup: Candidate, now: datetime) -> Decision:
    assert backup.expires_at is not None, "what has no time stays"
    return by_time(
        "backups", backup.backup_id, backup.expires_at, backup.size, now, entity_types=sorted(backup.entity_types)
    )


def _decision(backup: Candidate, code: Code, message: str) -> Decision:
    return Decision("backups", backup.backup_id, code, message, 0, tuple(sorted(backup.entity_types)))
