"""The doorbell never fails anything and never piles up."""

from __future__ import annotations

import socket
import time

import redis

from engine.ids import new_id
from engine.jobs import doorbell
from engine.jobs.doorbell import ENOUGH_RINGS, EVENTS_CHANNEL, QUEUE, Doorbell, make_broker
from examples.stack.servers import ValkeyServer


def test_without_redis_it_is_silent() -> None:
    bell = Doorbell("")
    bell.ring()
    bell.announce(new_id())
    bell.close()


def test_what_redis_did_not_take_is_told() -> None:
    failed: list[int] = []
    for url in ("", "redis://127.0.0.1:1/0"):
        bell = Doorbell(url, lambda: failed.append(1))
        bell.ring()
        bell.announce(new_id())  # not even tried so soon
        answers = bell.answers()
        bell.close()

    assert (len(failed), answers) == (2, False)


def test_a_dead_redis_fails_nothing_and_is_not_asked_every_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts, never answers
        bell = Doorbell(f"redis://127.0.0.1:{deaf.getsockname()[1]}/0")
        bell.ring()
        began = time.monotonic()
        for _ in range(1_000):
            bell.ring()
            bell.announce(new_id())
        took = time.monotonic() - began
        bell.close()

    # One wait for an answer is 1 s; two thousand would be half an hour.
    assert took < doorbell.RING_SECONDS * 25


def test_rings_that_nobody_hears_do_not_pile_up(valkey: ValkeyServer) -> None:
    bell = Doorbell(valkey.url)
    for _ in range(ENOUGH_RINGS * 3):
        bell.ring()

    broker = make_broker(valkey.url)
    assert broker.do_qsize(QUEUE) == ENOUGH_RINGS
    broker.flush(QUEUE)
    broker.client.close()
    bell.close()


def test_an_announcement_is_the_job_id_on_the_channel(valkey: ValkeyServer) -> None:
    bell, job_id = Doorbell(valkey.url), new_id()
    with redis.Redis.from_url(valkey.url) as client, client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(EVENTS_CHANNEL)
        channel.get_message(timeout=10)
        for _ in range(10):
            bell.announce(job_id)  # what cannot be told within a second is not told
            message = channel.get_message(timeout=10)
            if message is not None:
                break

    assert message is not None

    assert message["data"] == str(job_id).encode()
    bell.close()
