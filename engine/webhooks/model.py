"""The words of webhooks."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum


class DeliveryState(StrEnum):
    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class WebhookRequest:
    """A receiver, and the jobs it is told of; an empty part does not restrict."""

    url: str
    job_kinds: tuple[str, ...] = ()
    job_states: tuple[str, ...] = ()
    schedule_id: uuid.UUID | None = None
