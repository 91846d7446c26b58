"""1,000 watchers over 100 connections on one server. What they see is asserted; how fast is printed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from examples.stack.stack import Stack
from tests.benchmarks.watchers import CONNECTIONS, EACH, watch_a_job


async def test_a_thousand_watchers_all_see_every_event(
    make_stack: Callable[..., Stack], capsys: pytest.CaptureFixture[str]
):
    seen, last = await watch_a_job(make_stack(workers=0))

    assert len(seen.sequences) == CONNECTIONS * EACH
    assert all(mine == list(range(1, last + 1)) for mine in seen.sequences)
    ages = seen.last_watcher(after=1)
    with capsys.disabled():
        print(
            f"\n1,000 watchers over 100 connections, {len(ages)} events: the last watcher has an event after"
            f" {ages[len(ages) // 2] * 1000:.0f} ms (median), {ages[-1] * 1000:.0f} ms (worst)"
        )
