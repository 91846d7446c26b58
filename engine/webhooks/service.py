"""Webhooks as the server asks for them, and the forgetting of what is long over."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from engine.access import Caller, once
from engine.audit import record_change
from engine.db.models import ScheduleRow, WebhookDeliveryRow, WebhookRow
from engine.errors import InvalidRequest, NotFound, ResourceExhausted
from engine.ids import new_id
from engine.jobs.events import EVENT_RETENTION
from engine.jobs.model import FINISHED
from engine.paging import Page, Paging, newest_first
from engine.resources import Resources
from engine.webhooks.address import private_hosts_of, refuse_private, target_of
from engine.webhooks.model import DeliveryState, WebhookRequest
from engine.webhooks.signing import make_key

MOST_WEBHOOKS = 100
"""Every job's end writes a row for each that it concerns."""

S = DeliveryState


class Webhooks:
    """One object a process; every method is one call of one caller."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._private_hosts = private_hosts_of(resources.settings.webhook_private_hosts)

    def create(
        self, caller: Caller, request: WebhookRequest, request_id: str, body_sha256: bytes
    ) -> tuple[WebhookRow, bytes]:
        """Makes a webhook: it, and the key that its messages are signed with. A repetition of the request gives the
        same webhook and no key: who has lost the key deletes it and makes another.

        Raises:
            PermissionDenied; AlreadyExists: REQUEST_ID_REUSED; NotFound: SCHEDULE_UNKNOWN;
            InvalidRequest: WEBHOOK_URL_INVALID, OPTION_INVALID; ResourceExhausted: WEBHOOKS_TOO_MANY.
        """
        caller.require("webhooks.change", "*")
        target = target_of(request.url)
        refuse_private(target, self._private_hosts)
        if odd := [state for state in request.job_states if state not in FINISHED]:
            raise InvalidRequest(
                f"job_states: found {odd[0] or 'none'}, expected {', '.join(FINISHED)}", reason="OPTION_INVALID"
            )
        if not all(request.job_kinds):
            raise InvalidRequest("job_kinds: found none of its words, expected a kind of job", reason="OPTION_INVALID")
        now = self._resources.clock()
        key = b""
        with self._resources.db.transaction() as session:

            def make() -> uuid.UUID:
                nonlocal key
                webhook_id, key = self._create(session, caller, request, target.host, now)
                return webhook_id

            webhook_id, _ = once(session, caller, "CreateWebhook", request_id, body_sha256, make, now)
            row = _get(session, webhook_id)
        return row, key

    def list(self, caller: Caller, paging: Paging) -> Page[WebhookRow]:
        """Newest first; deleted ones are left out."""
        caller.require("webhooks.read", "*")
        query = select(WebhookRow).where(WebhookRow.deleted_at.is_(None))
        with self._resources.db.transaction() as session:
            return newest_first(session, query, paging, WebhookRow.created_at, WebhookRow.id)

    def delete(self, caller: Caller, webhook_id: uuid.UUID) -> None:
        """Ends it and what is owed to it, and forgets its key; one that is deleted already stays so.

        Raises:
            NotFound: WEBHOOK_UNKNOWN; PermissionDenied.
        """
        caller.require("webhooks.change", "*")
        now = self._resources.clock()
        with self._resources.db.transaction() as session:
            row = _get(session, webhook_id, lock=True)
            if row.deleted_at is not None:
                return
            record_change(session, caller, "webhooks.change", "webhooks", row.id, now)
            row.deleted_at, row.signing_key = now, b""
            owed = update(WebhookDeliveryRow).where(
                WebhookDeliveryRow.webhook_id == webhook_id, WebhookDeliveryRow.state == S.PENDING.value
            )
            session.execute(
                owed.values(
                    state=S.FAILED.value, last_error="WEBHOOK_DELETED", next_attempt_at=None, ended_at=now
                ).execution_options(synchronize_session=False)
            )

    def deliveries(
        self, caller: Caller, paging: Paging, webhook_id: uuid.UUID | None = None, states: Sequence[str] = ()
    ) -> Page[WebhookDeliveryRow]:
        """Newest first, those to deleted webhooks too."""
        caller.require("webhooks.read", "*")
        query = select(WebhookDeliveryRow)
        if webhook_id is not None:
            query = query.where(WebhookDeliveryRow.webhook_id == webhook_id)
        if states:
            query = query.where(WebhookDeliveryRow.state.in_(states))
        with self._resources.db.transaction() as session:
            return newest_first(session, query, paging, WebhookDeliveryRow.created_at, WebhookDeliveryRow.id)

    def forget(self, now: datetime) -> int:
        """Drops deliveries that ended before the events that are kept, and deleted webhooks that have none left; how
        many deliveries."""
        before = now - EVENT_RETENTION
        with self._resources.db.transaction() as session:
            old = delete(WebhookDeliveryRow).where(WebhookDeliveryRow.ended_at < before)
            gone = len(session.execute(old.returning(WebhookDeliveryRow.id)).all())
            left = select(WebhookDeliveryRow.id).where(WebhookDeliveryRow.webhook_id == WebhookRow.id).exists()
            session.execute(
                delete(WebhookRow)
                .where(WebhookRow.deleted_at < before, ~left)
                .execution_options(synchronize_session=False)
            )
        return gone

    def _create(
        self, session: Session, caller: Caller, request: WebhookRequest, host: str, now: datetime
    ) -> tuple[uuid.UUID, bytes]:
        if request.schedule_id is not None:
            schedule = session.get(ScheduleRow, request.schedule_id)
            if schedule is None or schedule.deleted_at is not None:
                raise NotFound("schedule_id: found no schedule with this id", reason="SCHEDULE_UNKNOWN")
        there = session.scalar(select(func.count()).select_from(WebhookRow).where(WebhookRow.deleted_at.is_(None)))
        if (there or 0) >= MOST_WEBHOOKS:
            raise ResourceExhausted(
                f"webhooks: found {there}, expected fewer than {MOST_WEBHOOKS}; delete one first",
                reason="WEBHOOKS_TOO_MANY",
            )
        webhook_id = new_id()
        key, wrapped = make_key(self._resources.keys, webhook_id)
        session.add(
            WebhookRow(
                id=webhook_id,
                url=request.url,
                job_kinds=sorted(set(request.job_kinds)),
                job_states=sorted(set(request.job_states)),
                schedule_id=request.schedule_id,
                key_id=wrapped.key_id,
                signing_key=wrapped.data,
                principal_id=caller.principal_id,
                created_at=now,
            )
        )
        # the host alone: a path or query may be a secret of the receiver's
        details = {"host": host, "schedule_id": str(request.schedule_id) if request.schedule_id else None}
        record_change(session, caller, "webhooks.change", "webhooks", webhook_id, now, details)
        return webhook_id, key


def _get(session: Session, webhook_id: uuid.UUID, *, lock: bool = False) -> WebhookRow:
    row = session.get(WebhookRow, webhook_id, with_for_update=lock, populate_existing=True)
    if row is None:
        raise NotFound(
            "webhook: found none with this id", reason="WEBHOOK_UNKNOWN", metadata={"webhook_id": str(webhook_id)}
        )
    return row
