"""Which entity comes before which."""

from __future__ import annotations

from collections.abc import Iterable

from engine.catalog.model import Entity


def reference_order(entities: Iterable[Entity]) -> list[Entity]:
    """Parents before the entities that refer to them, otherwise by name.

    Entities that refer to each other in a circle stand by name among themselves, after what the circle refers to.
    References to oneself, and to entities that are not among these, count for nothing.
    """
    found = {(e.schema, e.table): e for e in sorted(entities, key=lambda e: e.name)}
    parents = {
        entity.name: {
            target.name
            for key in entity.references
            if (target := found.get((key.target_schema, key.target_table))) is not None and target is not entity
        }
        for entity in found.values()
    }
    waiting, ordered = list(found.values()), []
    placed: set[str] = set()
    while waiting:
        ready = [e for e in waiting if parents[e.name] <= placed]
        # Nothing is ready: a circle. Who has the fewest entities above it stands in a circle nothing else precedes.
        following = ready[0] if ready else min(waiting, key=lambda e: len(_above(e.name, parents, placed)))
        waiting.remove(following)
        placed.add(following.name)
        ordered.append(following)
    return ordered


def _above(name: str, parents: dict[str, set[str]], placed: set[str]) -> set[str]:
    """`name`, and all that stands above it through any number of steps and is not placed yet."""
    seen = {name}
    to_see = [name]
    while to_see:
        for parent in parents[to_see.pop()] - placed - seen:
            seen.add(parent)
            to_see.append(parent)
    return seen
