"""Sends what is owed: claim, send, record. At least once, never lost; a receiver tells a repeat by its delivery id.

A claim is a short transaction that puts the next attempt off by CLAIM_SECONDS: no second sender takes it meanwhile, and
if this process dies before it has recorded what came of it, another one sends the same bytes again after that time.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from engine.crypto.keyring import Wrapped
from engine.db.models import WebhookDeliveryRow, WebhookRow
from engine.errors import DataOpsError
from engine.faults import fault
from engine.resources import Resources
from engine.webhooks.address import private_hosts_of, target_of
from engine.webhooks.failures import NotDelivered
from engine.webhooks.model import DeliveryState
from engine.webhooks.post import post, trusted
from engine.webhooks.signing import key_context, signature

BACKOFF = (30.0, 120.0, 600.0, 3_600.0, 21_600.0, 86_400.0)
"""Seconds between attempts; after the last of them it is given up, some 31 hours after the first."""

ATTEMPT_SECONDS = 10.0
CLAIM_SECONDS = 120.0
"""More than an attempt can take, a slow resolver included."""

SLOW_SECONDS = 2.0
REST_SECONDS = 30.0
"""A receiver that gave no answer, or took longer than SLOW_SECONDS with it, is left alone so long by this process: else
it would take 10 s for each of its deliveries while those to others wait."""

USER_AGENT = "DataOps-Webhooks/1"
GONE = 410

log = structlog.get_logger(__name__)

S = DeliveryState


@dataclass(frozen=True)
class Claimed:
    """A delivery that is ours for a while."""

    delivery_id: uuid.UUID
    webhook_id: uuid.UUID
    attempt: int
    body: bytes
    url: str
    key: Wrapped
    deleted: bool


class Sender:
    """One a process, used by one thread at a time."""

    def __init__(self, resources: Resources) -> None:
        """Raises:
        InvalidRequest: CONFIG_INVALID for the setting `webhook_ca_file`.
        """
        self._resources = resources
        self._context = trusted(resources.settings.webhook_ca_file)
        self._private_hosts = private_hosts_of(resources.settings.webhook_private_hosts)
        self._resting: dict[uuid.UUID, float] = {}

    def send_next(self) -> bool:
        """Make one attempt at what is due; False when nothing is."""
        with self._resources.db.transaction() as session:
            claimed = self._claim(session)
        if claimed is None:
            return False
        status, failure = self._attempt(claimed)
        fault("webhooks.sent")
        with self._resources.db.transaction() as session:
            state = self._record(session, claimed, status, failure)
        told = log.info if failure is None else log.warning
        ids = {"delivery_id": str(claimed.delivery_id), "webhook_id": str(claimed.webhook_id)}
        word = failure.word if failure else ""
        told("webhook_attempt", **ids, attempt=claimed.attempt, state=state, status=status, error=word)
        return True

    def _claim(self, session: Session) -> Claimed | None:
        now, present = self._resources.clock(), time.monotonic()
        self._resting = {webhook_id: until for webhook_id, until in self._resting.items() if until > present}
        due = select(WebhookDeliveryRow).where(
            WebhookDeliveryRow.state == S.PENDING.value,
            WebhookDeliveryRow.next_attempt_at <= now,
            WebhookDeliveryRow.webhook_id.not_in(list(self._resting)),
        )
        due = due.order_by(WebhookDeliveryRow.next_attempt_at).limit(1).with_for_update(skip_locked=True)
        row = session.scalars(due).first()
        if row is None:
            return None
        row.attempts += 1
        row.next_attempt_at = now + timedelta(seconds=CLAIM_SECONDS)
        webhook = session.get_one(WebhookRow, row.webhook_id)
        return Claimed(
            row.id,
            row.webhook_id,
            row.attempts,
            bytes(row.body),
            webhook.url,
            Wrapped(webhook.key_id, bytes(webhook.signing_key)),
            deleted=webhook.deleted_at is not None,
        )

    def _attempt(self, claimed: Claimed) -> tuple[int, NotDelivered | None]:
        """The receiver's status, 0 without one, and why it was not delivered."""
        began = time.monotonic()
        try:
            status = self._send(claimed)
        except NotDelivered as error:
            if not error.final:
                self._resting[claimed.webhook_id] = time.monotonic() + REST_SECONDS
            return 0, error
        except DataOpsError as error:  # its key cannot be opened: KEY_UNKNOWN, KEY_WRONG
            return 0, NotDelivered(error.reason)
        if (ended := time.monotonic()) - began > SLOW_SECONDS:
            self._resting[claimed.webhook_id] = ended + REST_SECONDS
        if 200 <= status < 300:
            return status, None
        return status, NotDelivered("REDIRECT" if 300 <= status < 400 else "STATUS", final=status == GONE)

    def _send(self, claimed: Claimed) -> int:
        if claimed.deleted:  # deleted while its job was ending
            raise NotDelivered("WEBHOOK_DELETED", final=True)
        key = self._resources.keys.unwrap(claimed.key, key_context(claimed.webhook_id))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "DataOps-Delivery": str(claimed.delivery_id),
            "DataOps-Event": str(json.loads(claimed.body)["event"]),
            "DataOps-Signature": signature(key, claimed.body, int(time.time())),
        }
        target = target_of(claimed.url)
        return post(target, claimed.body, headers, self._context, self._private_hosts, ATTEMPT_SECONDS)

    def _record(self, session: Session, claimed: Claimed, status: int, failure: NotDelivered | None) -> str:
        """What came of the attempt, unless another one has begun since or the webhook was deleted."""
        now, again = self._resources.clock(), None
        if failure is None:
            state = S.DELIVERED
        elif failure.final or claimed.attempt > len(BACKOFF):
            state = S.FAILED
        else:
            state, again = S.PENDING, now + timedelta(seconds=BACKOFF[claimed.attempt - 1])
        session.execute(
            update(WebhookDeliveryRow)
            .where(
                WebhookDeliveryRow.id == claimed.delivery_id,
                WebhookDeliveryRow.state == S.PENDING.value,
                WebhookDeliveryRow.attempts == claimed.attempt,
            )
            .values(
                state=state.value,
                last_status=status,
                last_error=failure.word if failure else "",
                next_attempt_at=again,
                ended_at=None if again else now,
            )
            .execution_options(synchronize_session=False)
        )
        return state
