"""What the tests of webhooks share: a world whose jobs end, a webhook, its deliveries, in a line each."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from sqlalchemy import select, text

from engine.db.models import WebhookDeliveryRow, WebhookRow
from engine.webhooks.model import WebhookRequest
from engine.webhooks.sender import Sender
from engine.webhooks.service import Webhooks
from tests.world import World

URL = "https://hooks.example.org/x"


def hook(world: World, url: str = URL, **parts: Any) -> tuple[WebhookRow, bytes]:
    """A new webhook and its key."""
    return Webhooks(world.resources).create(world.caller, WebhookRequest(url, **parts), *world.request())


def owed(world: World, webhook: WebhookRow | None = None) -> list[WebhookDeliveryRow]:
    """All deliveries, or those to this one, oldest first."""
    query = select(WebhookDeliveryRow).order_by(WebhookDeliveryRow.created_at, WebhookDeliveryRow.id)
    if webhook is not None:
        query = query.where(WebhookDeliveryRow.webhook_id == webhook.id)
    with world.resources.db.transaction() as session:
        return list(session.scalars(query))


def only(world: World) -> WebhookDeliveryRow:
    (delivery,) = owed(world)
    return delivery


def ended_job(world: World) -> uuid.UUID:
    """A job that has come to its end: an export of `t`."""
    job_id = world.begin_export("t").job_id
    world.work()
    assert job_id is not None
    return job_id


def send(world: World) -> int:
    """Attempts made at what is due, by a sender of its own."""
    sender, made = Sender(world.resources), 0
    while sender.send_next():
        made += 1
    return made


def comes_due(world: World, seconds: float) -> None:
    """As if so much time had passed."""
    with world.resources.db.transaction() as session:
        for row in session.scalars(select(WebhookDeliveryRow).where(WebhookDeliveryRow.next_attempt_at.is_not(None))):
            assert row.next_attempt_at is not None
            row.next_attempt_at -= timedelta(seconds=seconds)


def forget_all(world: World) -> None:
    with world.resources.db.transaction() as session:
        session.execute(text("TRUNCATE dataops.webhooks, dataops.webhook_deliveries"))
