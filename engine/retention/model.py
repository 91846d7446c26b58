"""The words of retention: plain values, without database or wire."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class Code(StrEnum):
    """Why something goes, or what keeps it."""

    EXPIRED = "EXPIRED"
    NOT_EXPIRED = "NOT_EXPIRED"
    HELD = "HELD"
    IN_USE = "IN_USE"
    FLOOR = "FLOOR"
    NEWEST_PROVEN = "NEWEST_PROVEN"
    CHAIN_NEEDS_IT = "CHAIN_NEEDS_IT"
    CLOCK_NOT_STEADY = "CLOCK_NOT_STEADY"


@dataclass(frozen=True)
class Decision:
    """What becomes of one thing. `size` is what removing it frees, in bytes of storage: 0 for what stays."""

    resource_type: str
    resource_id: uuid.UUID
    code: Code
    message: str
    size: int = 0
    entity_types: tuple[str, ...] = ()
    """The entities whose rows it holds; empty where it is nobody's but its owner's."""
    principal_id: uuid.UUID | None = None
    """Whose it is, of an upload."""

    @property
    def remove(self) -> bool:
        return self.code is Code.EXPIRED

    @property
    def resource(self) -> str:
        return f"{self.resource_type}/{self.resource_id}"


def by_time(
    resource_type: str,
    resource_id: uuid.UUID,
    until: datetime,
    size: int,
    now: datetime,
    *,
    in_use: str = "",
    entity_types: Sequence[str] = (),
    principal_id: uuid.UUID | None = None,
) -> Decision:
    """The decision over what goes at its time unless it is in use. `until` is the first moment at which it may go."""
    if until > now:
        code, message, size = Code.NOT_EXPIRED, f"it is kept until {written(until)}", 0
    elif in_use:
        code, message, size = Code.IN_USE, in_use, 0
    else:
        code, message = Code.EXPIRED, f"its time ended {written(until)}"
    return Decision(resource_type, resource_id, code, message, size, tuple(entity_types), principal_id)


def put_off(decision: Decision, why: str) -> Decision:
    """The decision while nothing is removed."""
    if not decision.remove:
        return decision
    return replace(decision, code=Code.CLOCK_NOT_STEADY, message=f"{decision.message}; {why}", size=0)


def written(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
