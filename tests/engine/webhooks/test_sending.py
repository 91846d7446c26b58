"""Sending to a real receiver: what it gets, what it may answer, and what becomes of a delivery then."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from engine.db.models import WebhookDeliveryRow, WebhookRow
from engine.errors import InvalidRequest
from engine.faults import InjectedFault
from engine.webhooks import sender as sending
from engine.webhooks.failures import NotDelivered
from engine.webhooks.sender import BACKOFF, CLAIM_SECONDS, Sender
from engine.webhooks.service import Webhooks
from tests.engine.webhooks.kit import comes_due, ended_job, hook, only, owed, send
from tests.engine.webhooks.receiver import half, nonsense, status

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")


def documented():
    """The receiver's code of docs/webhooks.md."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    names: dict = {}
    exec(code, names)
    return names["verified"]


def test_a_receiver_gets_what_the_page_says_and_the_pages_code_verifies_it(reached, receiver):
    _, key = hook(reached, receiver.url)
    job_id = ended_job(reached)

    assert send(reached) == 1
    ((headers, body),) = receiver.received
    delivery = only(reached)
    assert (delivery.state, delivery.attempts, delivery.last_status, delivery.last_error) == ("DELIVERED", 1, 200, "")
    assert (delivery.next_attempt_at, delivery.ended_at is not None) == (None, True)
    assert body == delivery.body
    assert headers["path"] == "/hooks?from=dataops"
    assert headers["Host"] == f"localhost:{receiver.port}"
    assert headers["Content-Type"] == "application/json"
    assert (headers["DataOps-Delivery"], headers["DataOps-Event"]) == (str(delivery.id), "job.completed")

    verified = documented()
    assert verified(key, headers["DataOps-Signature"], body)["job"]["job_id"] == str(job_id)
    at = int(headers["DataOps-Signature"][2:].partition(",")[0])
    for wrong in (
        (key[::-1], headers["DataOps-Signature"], body, at),
        (key, headers["DataOps-Signature"], body + b" ", at),
        (key, headers["DataOps-Signature"].replace(f"t={at}", f"t={at + 1}"), body, at),
        (key, headers["DataOps-Signature"], body, at + 301),
        (key, "", body, at),
        (key, f"t={at},v1=é{headers['DataOps-Signature'][-63:]}", body, at),
        (key, f"t=é,v1={headers['DataOps-Signature'][-64:]}", body, at),
    ):
        with pytest.raises(ValueError, match="webhook"):
            verified(*wrong)
    assert send(reached) == 0


@pytest.mark.parametrize(
    ("answer", "code", "word"),
    [
        (status(204), 204, ""),
        (status(500), 500, "STATUS"),
        (status(404), 404, "STATUS"),
        (status(302, Location="/elsewhere"), 302, "REDIRECT"),
        (nonsense, 0, "ANSWER_INVALID"),
        (lambda handler: handler.connection.close(), 0, "CONNECTION_LOST"),
        (half, 0, "CONNECTION_LOST"),
    ],
)
def test_what_a_receiver_answers(answer, code, word, reached, receiver):
    hook(reached, receiver.url)
    ended_job(reached)
    receiver.answers = [answer]

    assert send(reached) == 1
    delivery = only(reached)
    expected = ("PENDING" if word else "DELIVERED", code, word)
    assert (delivery.state, delivery.last_status, delivery.last_error) == expected
    assert [headers["path"] for headers, _ in receiver.received] == ["/hooks?from=dataops"]


def test_of_a_huge_answer_little_is_taken(reached, receiver):
    hook(reached, receiver.url)
    ended_job(reached)
    receiver.answers = [receiver.pours]
    send(reached)

    assert (only(reached).state, only(reached).last_status) == ("DELIVERED", 200)
    assert receiver.poured < receiver.most / 4  # what the sockets hold on the way is some MiB


@pytest.mark.parametrize("manner", ["never", "drips"])
def test_a_receiver_that_is_slow_is_left_and_others_are_not_kept_waiting(manner, reached, receiver, monkeypatch):
    monkeypatch.setattr(sending, "ATTEMPT_SECONDS", 0.3)
    slow, _ = hook(reached, receiver.url)
    ended_job(reached)
    ended_job(reached)
    receiver.answers = [getattr(receiver, manner)]

    assert send(reached) == 1  # its second delivery rests too
    assert [d.last_error for d in owed(reached)] == ["TIMEOUT", ""]
    other, _ = hook(reached, receiver.url.replace("hooks", "other"))
    ended_job(reached)
    with reached.resources.db.transaction() as session:  # the slow one's are older, and due
        assert len(owed(reached, slow)) == 3
        session.get_one(WebhookRow, slow.id).url = f"https://localhost:{receiver.port}/slow"
    receiver.answers, sender = [getattr(receiver, manner)], Sender(reached.resources)
    assert sender.send_next()
    monkeypatch.setattr(sending, "ATTEMPT_SECONDS", 60.0)  # only the slow one was to meet its end
    receiver.answers.clear()  # where it was met before its message was there
    assert [sender.send_next(), sender.send_next()] == [True, False]
    assert [d.state for d in owed(reached, other)] == ["DELIVERED"]


def test_a_receiver_whose_answer_has_no_end_is_left_too(reached, receiver, monkeypatch):
    monkeypatch.setattr(sending, "ATTEMPT_SECONDS", 2.5)  # all of it is waited; its status must have come by then
    monkeypatch.setattr(sending, "SLOW_SECONDS", 0.3)
    hook(reached, receiver.url)
    ended_job(reached)
    ended_job(reached)
    receiver.answers = [receiver.lingers]
    assert send(reached) == 1
    assert [d.state for d in owed(reached)] == ["DELIVERED", "PENDING"]


def test_a_delivery_is_tried_again_later_and_later_and_then_given_up(reached, receiver):
    hook(reached, receiver.url)
    ended_job(reached)
    receiver.answers = [status(503)] * 10
    first = only(reached)
    for pause in BACKOFF:
        before = reached.resources.clock()
        assert send(reached) == 1
        again = only(reached).next_attempt_at
        assert again is not None
        assert timedelta(0) <= again - before - timedelta(seconds=pause) < timedelta(seconds=50)
        comes_due(reached, pause - 60)
        assert send(reached) == 0
        comes_due(reached, 120)

    send(reached)
    last = only(reached)
    assert (last.state, last.last_status, last.next_attempt_at) == ("FAILED", 503, None)
    assert last.attempts == len(BACKOFF) + 1
    assert {(headers["DataOps-Delivery"], body) for headers, body in receiver.received} == {(str(first.id), first.body)}


def test_a_receiver_that_is_gone_is_not_tried_again(reached, receiver):
    hook(reached, receiver.url)
    ended_job(reached)
    receiver.answers = [status(410)]
    send(reached)

    assert (only(reached).state, only(reached).last_status, only(reached).attempts) == ("FAILED", 410, 1)


def test_deleting_drops_what_is_not_delivered_and_forgets_the_key(reached, receiver):
    webhook, _ = hook(reached, receiver.url)
    ended_job(reached)
    Webhooks(reached.resources).delete(reached.caller, webhook.id)
    Webhooks(reached.resources).delete(reached.caller, webhook.id)

    assert send(reached) == 0
    assert (only(reached).state, only(reached).last_error) == ("FAILED", "WEBHOOK_DELETED")
    with reached.resources.db.transaction() as session:
        assert session.get_one(WebhookRow, webhook.id).signing_key == b""
    assert receiver.received == []


def test_one_that_is_deleted_while_its_job_ends_is_not_sent_to(reached, receiver):
    webhook, _ = hook(reached, receiver.url)
    ended_job(reached)
    with reached.resources.db.transaction() as session:
        session.get_one(WebhookRow, webhook.id).deleted_at = reached.resources.clock()

    assert send(reached) == 1
    assert (only(reached).state, only(reached).last_error) == ("FAILED", "WEBHOOK_DELETED")
    assert receiver.received == []


def test_a_sender_that_dies_before_it_has_recorded_is_followed_by_one_that_sends_the_same_again(
    reached, receiver, monkeypatch
):
    hook(reached, receiver.url)
    ended_job(reached)

    def die(name):
        raise InjectedFault(name)

    monkeypatch.setattr(sending, "fault", die)
    with pytest.raises(InjectedFault, match=r"webhooks\.sent"):
        send(reached)
    monkeypatch.undo()
    monkeypatch.setitem(vars(reached.resources.settings), "webhook_ca_file", receiver.ca_file)
    monkeypatch.setitem(vars(reached.resources.settings), "webhook_private_hosts", "localhost")
    assert send(reached) == 0  # until the claim is over
    comes_due(reached, CLAIM_SECONDS)
    assert send(reached) == 1

    (first, body), (second, again) = receiver.received
    assert (first["DataOps-Delivery"], body) == (second["DataOps-Delivery"], again)
    assert (only(reached).state, only(reached).attempts) == ("DELIVERED", 2)


def test_what_an_older_attempt_comes_to_does_not_undo_what_a_newer_has(reached, receiver):
    hook(reached, receiver.url)
    ended_job(reached)
    slow = Sender(reached.resources)
    with reached.resources.db.transaction() as session:
        claimed = slow._claim(session)
    assert claimed is not None
    comes_due(reached, CLAIM_SECONDS)
    receiver.answers = [status(503)]
    assert send(reached) == 1
    with reached.resources.db.transaction() as session:
        slow._record(session, claimed, 410, NotDelivered("STATUS", final=True))

    assert (only(reached).state, only(reached).last_status) == ("PENDING", 503)


def test_two_senders_at_once_send_each_message_once(reached, receiver):
    for number in range(4):
        hook(reached, f"{receiver.url}&n={number}")
    for _ in range(3):
        ended_job(reached)
    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(send, [reached, reached])) == 12

    sent = [headers["DataOps-Delivery"] for headers, _ in receiver.received]
    assert sorted(sent) == sorted(str(d.id) for d in owed(reached))
    assert {d.state for d in owed(reached)} == {"DELIVERED"}


def test_a_certificate_of_another_name_or_authority_is_refused(reached, receiver, monkeypatch):
    hook(reached, receiver.url.replace("localhost", "other.example"))
    ended_job(reached)
    answer = [(2, 1, 6, "", ("127.0.0.1", receiver.port))]
    with monkeypatch.context() as patched:
        patched.setattr("socket.getaddrinfo", lambda *_, **__: answer)
        send(reached)
    assert only(reached).last_error == "CERTIFICATE_REFUSED"

    monkeypatch.setitem(vars(reached.resources.settings), "webhook_ca_file", None)
    with reached.resources.db.transaction() as session:
        session.get_one(WebhookRow, only(reached).webhook_id).url = receiver.url
    comes_due(reached, BACKOFF[0])
    send(reached)
    assert (only(reached).last_error, only(reached).attempts) == ("CERTIFICATE_REFUSED", 2)
    assert receiver.received == []


def test_a_setting_that_names_no_certificates_stops_the_start(reached, monkeypatch, tmp_path):
    wrong = tmp_path / "ca.pem"
    for content in (None, "no certificate"):
        if content:
            wrong.write_text(content)
        monkeypatch.setitem(vars(reached.resources.settings), "webhook_ca_file", wrong)
        with pytest.raises(InvalidRequest, match="CONFIG_INVALID"):
            Sender(reached.resources)


def test_a_key_that_cannot_be_opened_is_told_and_the_message_waits(reached, receiver):
    webhook, _ = hook(reached, receiver.url)
    ended_job(reached)
    with reached.resources.db.transaction() as session:
        session.get_one(WebhookRow, webhook.id).key_id = "lost"
    send(reached)

    assert (only(reached).state, only(reached).last_error) == ("PENDING", "KEY_UNKNOWN")
    assert receiver.received == []


def test_what_ended_long_ago_is_forgotten_and_what_is_owed_is_not(world):
    webhooks, now = Webhooks(world.resources), world.resources.clock()
    (over, _), (living, _) = hook(world), hook(world)
    ended_job(world)
    webhooks.delete(world.caller, over.id)

    assert webhooks.forget(now + timedelta(days=89)) == 0
    assert webhooks.forget(now + timedelta(days=91)) == 1
    assert [d.webhook_id for d in owed(world)] == [living.id]
    with world.resources.db.transaction() as session:
        assert session.get(WebhookRow, over.id) is None
        assert session.get(WebhookRow, living.id) is not None
        assert session.get_one(WebhookDeliveryRow, only(world).id).state == "PENDING"
        assert json.loads(only(world).body)["event"] == "job.completed"
