"""How apply knows what is stored: the cheapest way that the table's own triggers allow."""

from __future__ import annotations

from enum import Enum

from engine.catalog import Entity, Trigger
from engine.errors import FailedPrecondition


class Proof(Enum):
    """What stands in for looking at each row."""

    COUNT = "count"
    """Nothing can change a row on its way: the number of inserted rows proves them all."""
    RETURNING = "returning"
    """A BEFORE trigger or the server itself decides values: RETURNING gives what is stored."""
    READ_AGAIN = "read again"
    """An AFTER trigger may update the row once more (seen: RETURNING gave `x`, the trigger stored `x!`)."""


def choose_proof(entity: Entity, event: str, *, assigned: bool) -> Proof:
    """Args:
        event: INSERT or UPDATE.
        assigned: whether the server gives new rows values that the plan cannot hold.

    Raises:
        FailedPrecondition: ENTITY_NOT_IMPORTABLE for AFTER triggers on a table without a key to read by.
    """
    found = firing(entity, event)
    if any(t.timing == "AFTER" for t in found):
        if not entity.key:
            raise FailedPrecondition(
                f"{entity.name}: found AFTER triggers and no key, so what is stored cannot be proven",
                reason="ENTITY_NOT_IMPORTABLE",
            )
        return Proof.READ_AGAIN
    return Proof.RETURNING if found or assigned else Proof.COUNT


def firing(entity: Entity, event: str) -> list[Trigger]:
    """The triggers that may change a row: a statement's AFTER trigger may update the rows too, a BEFORE one has none to
    change."""
    return [t for t in entity.triggers if t.fires and event in t.events and (t.row or t.timing == "AFTER")]
