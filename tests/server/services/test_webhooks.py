"""WebhookService: made with a key that is shown once, listed, deleted; deliveries listed; and by whom."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import grpc
import pytest
from dataops.v1 import jobs_pb2, webhooks_pb2, webhooks_pb2_grpc
from sqlalchemy import select

from engine.crypto.keyring import Wrapped
from engine.db.models import AuditEventRow, WebhookDeliveryRow, WebhookRow
from engine.ids import new_id
from engine.webhooks.service import Webhooks
from engine.webhooks.signing import key_context
from server.principals import Principals
from server.services.webhooks import WebhookService
from tests.server.services.kit import by, refusal

URL = "https://hooks.example.org/secret-path?token=x"
UNKNOWN = str(uuid.UUID(int=7))
pb = webhooks_pb2


@pytest.fixture
async def stub(edge):
    service = WebhookService(Webhooks(edge.resources), Principals(edge.db, edge.offload), edge.offload)
    serving = edge.serving((webhooks_pb2_grpc.add_WebhookServiceServicer_to_server, service))
    async with serving as address, grpc.aio.insecure_channel(address) as channel:
        yield webhooks_pb2_grpc.WebhookServiceStub(channel)


def creation(url=URL, **fields):
    return pb.CreateWebhookRequest(**{"request_id": str(uuid.uuid4()), "url": url} | fields)


async def test_a_webhook_is_made_with_a_key_that_is_shown_once_and_kept_sealed(stub, edge):
    request = creation(
        job_kinds=[jobs_pb2.JOB_KIND_RESTORE, jobs_pb2.JOB_KIND_BACKUP],
        job_states=[jobs_pb2.JOB_STATE_FAILED],
        reason="alarms",
    )
    made = await stub.CreateWebhook(request)
    again = await stub.CreateWebhook(request)

    assert (len(made.signing_key), again.signing_key) == (32, b"")
    assert again.webhook == made.webhook
    assert (made.webhook.url, list(made.webhook.job_kinds)) == (URL, sorted(request.job_kinds))
    assert list(made.webhook.job_states) == [jobs_pb2.JOB_STATE_FAILED]
    assert made.webhook.created_by.subject == "admin"
    with edge.db.transaction() as session:
        row = session.get_one(WebhookRow, uuid.UUID(made.webhook.webhook_id))
        written = session.scalars(select(AuditEventRow).where(AuditEventRow.operation == "webhooks.change")).all()
    assert made.signing_key not in row.signing_key
    assert edge.resources.keys.unwrap(Wrapped(row.key_id, row.signing_key), key_context(row.id)) == made.signing_key
    assert [(event.kind, event.resource_id) for event in written] == [
        ("INTENT", made.webhook.webhook_id),
        ("OUTCOME", made.webhook.webhook_id),
    ]
    assert written[0].details["host"] == "hooks.example.org"
    assert not any("secret-path" in str(vars(event)) for event in written)


async def test_what_cannot_be_is_refused_at_the_call(stub):
    invalid, states = grpc.StatusCode.INVALID_ARGUMENT, [jobs_pb2.JOB_STATE_RUNNING]
    for fields, code, reason in (
        ({"url": "http://hooks.example.org/"}, invalid, "WEBHOOK_URL_INVALID"),
        ({"url": "https://a:b@hooks.example.org/"}, invalid, "WEBHOOK_URL_INVALID"),
        ({"url": "https://127.0.0.1/"}, invalid, "WEBHOOK_URL_INVALID"),
        ({"job_states": states}, invalid, "OPTION_INVALID"),
        ({"job_states": [0]}, invalid, "OPTION_INVALID"),
        ({"job_kinds": [0]}, invalid, "OPTION_INVALID"),
        ({"schedule_id": UNKNOWN}, grpc.StatusCode.NOT_FOUND, "SCHEDULE_UNKNOWN"),
        ({"schedule_id": "none"}, invalid, "INVALID_REQUEST"),
    ):
        assert await refusal(stub.CreateWebhook(creation(**fields))) == (code, reason), fields


async def test_webhooks_are_listed_by_pages_until_they_are_deleted(stub, monkeypatch):
    ids = [(await stub.CreateWebhook(creation())).webhook.webhook_id for _ in range(3)]
    monkeypatch.setattr("engine.webhooks.service.MOST_WEBHOOKS", 3)
    full = await refusal(stub.CreateWebhook(creation()))
    assert full == (grpc.StatusCode.RESOURCE_EXHAUSTED, "WEBHOOKS_TOO_MANY")

    page = await stub.ListWebhooks(pb.ListWebhooksRequest(page_size=2))
    rest = await stub.ListWebhooks(pb.ListWebhooksRequest(page_size=2, page_token=page.next_page_token))
    assert [w.webhook_id for w in (*page.webhooks, *rest.webhooks)] == ids[::-1]

    for _ in range(2):
        await stub.DeleteWebhook(pb.DeleteWebhookRequest(webhook_id=ids[1]))
    left = await stub.ListWebhooks(pb.ListWebhooksRequest())
    assert [w.webhook_id for w in left.webhooks] == [ids[2], ids[0]]
    assert (await refusal(stub.DeleteWebhook(pb.DeleteWebhookRequest(webhook_id=UNKNOWN))))[1] == "WEBHOOK_UNKNOWN"


async def test_deliveries_are_listed_newest_first_by_webhook_and_state(stub, edge):
    first, second = [(await stub.CreateWebhook(creation())).webhook.webhook_id for _ in range(2)]
    at, job = datetime(2026, 11, 26, 12, tzinfo=UTC), new_id()
    states = [(first, "PENDING"), (second, "DELIVERED"), (first, "FAILED")]
    ids = [uuid.UUID(int=n + 1) for n in range(3)]
    with edge.db.transaction() as session:
        for delivery_id, (webhook_id, state) in zip(ids, states, strict=True):
            session.add(
                WebhookDeliveryRow(
                    id=delivery_id, webhook_id=uuid.UUID(webhook_id), job_id=job, body=b"{}", state=state, attempts=3,
                    last_status=500, last_error="STATUS", created_at=at, next_attempt_at=at,
                )
            )  # fmt: skip

    async def listed(**fields):
        answer = await stub.ListDeliveries(pb.ListDeliveriesRequest(**fields))
        return [d.delivery_id for d in answer.deliveries], answer

    newest = [str(i) for i in ids[::-1]]
    found, answer = await listed()
    assert found == newest
    one = answer.deliveries[0]
    assert (one.job_id, one.attempts, one.last_status, one.last_error) == (str(job), 3, 500, "STATUS")
    assert one.next_attempt_at == one.created_at
    assert (await listed(webhook_id=first))[0] == [newest[0], newest[2]]
    assert (await listed(states=[pb.DELIVERY_STATE_DELIVERED]))[0] == [newest[1]]
    token = (await listed(page_size=1))[1].next_page_token
    assert (await listed(page_size=1, page_token=token))[0] == [newest[1]]


async def test_webhooks_are_in_the_hands_of_those_who_may_have_them_on_everything(stub, edge):
    """They tell of jobs of every entity."""
    edge.grant("uma", "webhooks.*:users", "jobs.*")
    edge.grant("rita", "webhooks.read")
    made = (await stub.CreateWebhook(creation())).webhook
    changes = (
        lambda who: stub.CreateWebhook(creation(), metadata=by(who)),
        lambda who: stub.DeleteWebhook(pb.DeleteWebhookRequest(webhook_id=made.webhook_id), metadata=by(who)),
    )
    reads = (
        lambda who: stub.ListWebhooks(pb.ListWebhooksRequest(), metadata=by(who)),
        lambda who: stub.ListDeliveries(pb.ListDeliveriesRequest(), metadata=by(who)),
    )
    for call in changes:
        for who in ("uma", "rita"):
            assert (await refusal(call(who)))[0] == grpc.StatusCode.PERMISSION_DENIED
    for call in reads:
        assert (await refusal(call("uma")))[0] == grpc.StatusCode.PERMISSION_DENIED
        await call("rita")
