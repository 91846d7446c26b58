"""Webhooks of the fake server."""

from __future__ import annotations

import grpc
from dataops.v1 import webhooks_pb2, webhooks_pb2_grpc

from tests.clients.fake_world import DIGEST, JOB_ID, World, refuse

WEBHOOK_ID = "0197a000-0000-7000-8000-0000000000c1"
DELIVERY_ID = "0197a000-0000-7000-8000-0000000000d1"


class Webhooks(webhooks_pb2_grpc.WebhookServiceServicer):
    """One webhook that was never created is there already, with one delivery on its way."""

    def __init__(self, world: World) -> None:
        self.world = world

    def CreateWebhook(self, request, context):
        self.world.started.append(request)
        webhook = webhooks_pb2.Webhook(
            webhook_id=WEBHOOK_ID,
            url=request.url,
            job_kinds=request.job_kinds,
            job_states=request.job_states,
            schedule_id=request.schedule_id,
        )
        return webhooks_pb2.CreateWebhookResponse(webhook=webhook, signing_key=DIGEST)

    def ListWebhooks(self, request, context):
        self.world.asked.append(request)
        webhook = webhooks_pb2.Webhook(webhook_id=WEBHOOK_ID, url="https://hooks.example.org/x")
        webhook.created_by.subject = "anne"
        return webhooks_pb2.ListWebhooksResponse(webhooks=[webhook])

    def DeleteWebhook(self, request, context):
        if request.webhook_id != WEBHOOK_ID:
            refuse(context, grpc.StatusCode.NOT_FOUND, "WEBHOOK_UNKNOWN", "no such webhook")
        self.world.started.append(request)
        return webhooks_pb2.DeleteWebhookResponse()

    def ListDeliveries(self, request, context):
        self.world.asked.append(request)
        delivery = webhooks_pb2.Delivery(
            delivery_id=DELIVERY_ID,
            webhook_id=WEBHOOK_ID,
            job_id=JOB_ID,
            state=webhooks_pb2.DELIVERY_STATE_PENDING,
            attempts=2,
            last_status=500,
            last_error="STATUS",
        )
        delivery.next_attempt_at.FromJsonString("2026-11-26T12:02:00Z")
        return webhooks_pb2.ListDeliveriesResponse(deliveries=[delivery])
