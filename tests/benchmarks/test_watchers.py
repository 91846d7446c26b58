"""1,000 watchers over 100 connections on one server. What they see is asserted; how fast is printed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.jobs.doorbell import Doorbell
from examples.stack.stack import Stack
from tests.benchmarks.watchers import watch_all
from tests.server.journal import Journal

CONNECTIONS, EACH = 100, 10
EVENTS = 20
PER_SECOND = 4
"""As a running job writes them."""


async def test_a_thousand_watchers_all_see_every_event(
    make_stack: Callable[..., Stack], capsys: pytest.CaptureFixture[str]
):
    stack = make_stack(workers=0)
    bell = Doorbell(stack.valkey.url)
    with Journal(stack.control_dsn) as journal:
        job_id, ready = journal.job(events=1), asyncio.Event()
        watching = asyncio.create_task(
            watch_all(
                stack.address,
                Path(stack.ca_file),
                stack.tokens["super_admin"],
                str(job_id),
                connections=CONNECTIONS,
                each=EACH,
                ready=ready,
            )
        )
        await asyncio.wait({asyncio.ensure_future(ready.wait()), watching}, return_when=asyncio.FIRST_COMPLETED)
        assert not watching.done(), await watching
        for number in range(EVENTS):
            await asyncio.sleep(1 / PER_SECOND)
            last = await asyncio.to_thread(journal.end if number == EVENTS - 1 else journal.event, job_id)
            await asyncio.to_thread(bell.announce, job_id)
        seen = await watching
    bell.close()

    assert len(seen.sequences) == CONNECTIONS * EACH
    assert all(mine == list(range(1, last + 1)) for mine in seen.sequences)
    ages = seen.last_watcher(after=1)
    with capsys.disabled():
        print(
            f"\n1,000 watchers over 100 connections, {len(ages)} events: the last watcher has an event after"
            f" {ages[len(ages) // 2] * 1000:.0f} ms (median), {ages[-1] * 1000:.0f} ms (worst)"
        )
