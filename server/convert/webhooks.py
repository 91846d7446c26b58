"""Webhooks, between the wire and the engine."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from dataops.v1 import jobs_pb2, webhooks_pb2

from engine.db.models import PrincipalRow, WebhookDeliveryRow, WebhookRow
from engine.ids import parse_id
from engine.webhooks.model import WebhookRequest
from server.convert.common import number_of, principal, timestamp, word_of


def webhook(row: WebhookRow, principals: Mapping[uuid.UUID, PrincipalRow]) -> webhooks_pb2.Webhook:
    return webhooks_pb2.Webhook(
        webhook_id=str(row.id),
        url=row.url,
        job_kinds=[number_of(jobs_pb2.JobKind, word) for word in row.job_kinds],
        job_states=[number_of(jobs_pb2.JobState, word) for word in row.job_states],
        schedule_id=str(row.schedule_id or ""),
        created_by=principal(row.principal_id, principals.get(row.principal_id)),
        created_at=timestamp(row.created_at),
    )


def delivery(row: WebhookDeliveryRow) -> webhooks_pb2.Delivery:
    return webhooks_pb2.Delivery(
        delivery_id=str(row.id),
        webhook_id=str(row.webhook_id),
        job_id=str(row.job_id),
        state=number_of(webhooks_pb2.DeliveryState, row.state),
        attempts=row.attempts,
        last_status=row.last_status,
        last_error=row.last_error,
        created_at=timestamp(row.created_at),
        next_attempt_at=timestamp(row.next_attempt_at),
    )


def request_of(request: webhooks_pb2.CreateWebhookRequest) -> WebhookRequest:
    return WebhookRequest(
        url=request.url,
        job_kinds=tuple(word_of(jobs_pb2.JobKind, number) for number in request.job_kinds),
        job_states=tuple(word_of(jobs_pb2.JobState, number) for number in request.job_states),
        schedule_id=parse_id(request.schedule_id, "schedule_id") if request.schedule_id else None,
    )
