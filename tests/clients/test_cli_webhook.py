"""`dataops webhook`: made with a key that is shown once, listed, deleted; and what was sent."""

from __future__ import annotations

import json

import pytest
from dataops.v1 import jobs_pb2, webhooks_pb2
from dataops_client.cli import main

from tests.clients.fake_webhooks import DELIVERY_ID, WEBHOOK_ID
from tests.clients.fake_world import DIGEST, IMPORT_ID, JOB_ID, World

pytestmark = pytest.mark.usefixtures("configured")

URL = "https://hooks.example.org/x"
KEY = DIGEST.hex()


def test_a_webhook_is_made_and_its_key_shown(world: World, capsys):
    words = ["--kind", "backup", "--kind", "import-apply", "--state", "failed", "--schedule", IMPORT_ID]
    assert main(["webhook", "create", URL, *words, "--reason", "alarms"]) == 0

    shown = capsys.readouterr().out
    assert shown.startswith(
        f"webhook  {WEBHOOK_ID}\nurl      {URL}\n"
        f"jobs     BACKUP,IMPORT_APPLY FAILED of schedule {IMPORT_ID}\nkey      {KEY}\n"
    )
    assert "is not shown again" in shown
    (request,) = world.started
    assert isinstance(request, webhooks_pb2.CreateWebhookRequest)
    assert list(request.job_kinds) == [jobs_pb2.JOB_KIND_BACKUP, jobs_pb2.JOB_KIND_IMPORT_APPLY]
    assert (list(request.job_states), request.reason) == ([jobs_pb2.JOB_STATE_FAILED], "alarms")
    assert request.request_id

    assert main(["webhook", "create", URL, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["webhook"]["webhook_id"] == WEBHOOK_ID
    assert made["signing_key"] == KEY


def test_what_is_no_kind_or_state_is_wrong_usage(world: World, capsys):
    assert main(["webhook", "create", URL, "--kind", "party"]) == 2
    assert "'party' is no kind of job" in capsys.readouterr().err
    assert main(["webhook", "create", URL, "--state", "late"]) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "expected completed, failed or cancelled" in said
    assert not world.started


def test_webhooks_are_listed_and_deleted(world: World, capsys):
    assert main(["webhook", "list", "--limit", "3"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split("\t")[:4] == ["webhook", "url", "jobs", "by"]
    assert line.split("\t")[:4] == [WEBHOOK_ID, URL, "all", "anne"]

    assert main(["webhook", "delete", WEBHOOK_ID, "--reason", "moved"]) == 0
    assert capsys.readouterr().out == f"deleted {WEBHOOK_ID}\n"
    assert world.started == [webhooks_pb2.DeleteWebhookRequest(webhook_id=WEBHOOK_ID, reason="moved")]
    assert main(["webhook", "delete", IMPORT_ID]) == 4


def test_deliveries_are_listed_by_webhook_and_state(world: World, capsys):
    assert main(["webhook", "deliveries", "--webhook", WEBHOOK_ID, "--state", "pending", "--limit", "3"]) == 0
    _, line = capsys.readouterr().out.splitlines()
    cells = line.split("\t")
    assert cells[:7] == [DELIVERY_ID, WEBHOOK_ID, JOB_ID, "PENDING", "2", "500", "STATUS"]
    assert cells[-1] == "2026-11-26T12:02:00Z"
    assert world.asked == [
        webhooks_pb2.ListDeliveriesRequest(
            page_size=3, webhook_id=WEBHOOK_ID, states=[webhooks_pb2.DELIVERY_STATE_PENDING]
        )
    ]
    assert main(["webhook", "deliveries", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "PENDING"
