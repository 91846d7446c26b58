"""WebhookService: who is told when jobs end, and what came of telling."""

from __future__ import annotations

from typing import Any

from dataops.v1 import webhooks_pb2, webhooks_pb2_grpc

from engine.ids import parse_id
from engine.webhooks.service import Webhooks
from server.caller import current_caller
from server.convert import webhooks as convert
from server.convert.common import body_sha256, page_of, paging_of, word_of
from server.offload import Offload
from server.principals import Principals


class WebhookService(webhooks_pb2_grpc.WebhookServiceServicer):
    """One per server."""

    def __init__(self, webhooks: Webhooks, principals: Principals, offload: Offload) -> None:
        self._webhooks, self._principals, self._offload = webhooks, principals, offload

    async def CreateWebhook(
        self, request: webhooks_pb2.CreateWebhookRequest, context: Any
    ) -> webhooks_pb2.CreateWebhookResponse:
        caller, wanted = current_caller(context), convert.request_of(request)
        row, key = await self._offload.call(
            lambda: self._webhooks.create(caller, wanted, request.request_id, body_sha256(request))
        )
        principals = await self._principals.of([row.principal_id])
        return webhooks_pb2.CreateWebhookResponse(webhook=convert.webhook(row, principals), signing_key=key)

    async def ListWebhooks(
        self, request: webhooks_pb2.ListWebhooksRequest, context: Any
    ) -> webhooks_pb2.ListWebhooksResponse:
        caller = current_caller(context)
        page = await self._offload.call(self._webhooks.list, caller, paging_of(request, caller))
        principals = await self._principals.of(row.principal_id for row in page.items)
        webhooks, token = page_of(page, lambda row: convert.webhook(row, principals))
        return webhooks_pb2.ListWebhooksResponse(webhooks=webhooks, next_page_token=token)

    async def DeleteWebhook(
        self, request: webhooks_pb2.DeleteWebhookRequest, context: Any
    ) -> webhooks_pb2.DeleteWebhookResponse:
        webhook_id = parse_id(request.webhook_id, "webhook_id")
        await self._offload.call(self._webhooks.delete, current_caller(context), webhook_id)
        return webhooks_pb2.DeleteWebhookResponse()

    async def ListDeliveries(
        self, request: webhooks_pb2.ListDeliveriesRequest, context: Any
    ) -> webhooks_pb2.ListDeliveriesResponse:
        caller = current_caller(context)
        webhook_id = parse_id(request.webhook_id, "webhook_id") if request.webhook_id else None
        states = [word_of(webhooks_pb2.DeliveryState, number) for number in request.states]
        paging = paging_of(request, caller)
        page = await self._offload.call(self._webhooks.deliveries, caller, paging, webhook_id, states)
        deliveries, token = page_of(page, convert.delivery)
        return webhooks_pb2.ListDeliveriesResponse(deliveries=deliveries, next_page_token=token)
