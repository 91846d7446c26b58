"""Webhooks for a program: who is told when jobs end. Part of `DataOps`."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from dataops.v1 import jobs_pb2, webhooks_pb2, webhooks_pb2_grpc

from dataops_client.errors import typed_errors


class WebhookCalls:
    """The calls that are about webhooks."""

    webhooks: webhooks_pb2_grpc.WebhookServiceStub

    def create_webhook(
        self,
        url: str,
        *,
        kinds: Sequence[jobs_pb2.JobKind.ValueType] = (),
        states: Sequence[jobs_pb2.JobState.ValueType] = (),
        schedule_id: str = "",
        reason: str = "",
    ) -> tuple[webhooks_pb2.Webhook, bytes]:
        """Have a URL told of jobs that end: of these kinds, in these states, of this schedule, or of all.

        Returns the webhook and its signing key, which is not shown again.
        """
        request = webhooks_pb2.CreateWebhookRequest(
            request_id=str(uuid.uuid4()),
            url=url,
            job_kinds=kinds,
            job_states=states,
            schedule_id=schedule_id,
            reason=reason,
        )
        with typed_errors():
            made = self.webhooks.CreateWebhook(request)
        return made.webhook, made.signing_key

    def list_webhooks(self, *, limit: int = 50) -> list[webhooks_pb2.Webhook]:
        """The newest webhooks, at most `limit` and at most 1,000."""
        with typed_errors():
            return list(self.webhooks.ListWebhooks(webhooks_pb2.ListWebhooksRequest(page_size=limit)).webhooks)

    def delete_webhook(self, webhook_id: str, reason: str = "") -> None:
        """End a webhook; what was not delivered yet is dropped."""
        with typed_errors():
            self.webhooks.DeleteWebhook(webhooks_pb2.DeleteWebhookRequest(webhook_id=webhook_id, reason=reason))

    def list_deliveries(
        self,
        *,
        webhook_id: str = "",
        states: Sequence[webhooks_pb2.DeliveryState.ValueType] = (),
        limit: int = 50,
    ) -> list[webhooks_pb2.Delivery]:
        """The newest deliveries, at most `limit` and at most 1,000."""
        request = webhooks_pb2.ListDeliveriesRequest(webhook_id=webhook_id, states=states, page_size=limit)
        with typed_errors():
            return list(self.webhooks.ListDeliveries(request).deliveries)
