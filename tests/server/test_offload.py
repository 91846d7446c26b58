"""The way from the loop to the engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from engine.errors import ResourceExhausted
from server.offload import Offload

PATIENCE = 30.0
VARIABLE: ContextVar[str] = ContextVar("variable", default="")


@pytest.fixture
def offload() -> Iterator[Offload]:
    made = Offload(2, waiting=1)
    yield made
    made.close()


async def test_a_call_runs_on_a_thread_without_a_loop_and_with_the_callers_variables(offload: Offload) -> None:
    def look() -> tuple[str, int]:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return VARIABLE.get(), threading.get_ident()

    VARIABLE.set("mine")
    value, thread = await offload.call(look)
    assert (value, thread == threading.get_ident()) == ("mine", False)


async def test_a_full_line_is_refused_with_a_time_to_come_back_and_empties(offload: Offload) -> None:
    leave = threading.Event()
    calls = [asyncio.ensure_future(offload.call(leave.wait, PATIENCE)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted, match="SERVER_BUSY") as caught:
        await offload.call(leave.is_set)
    assert caught.value.retry_after
    leave.set()
    assert await asyncio.gather(*calls) == [True] * 3
    assert await offload.call(leave.is_set)


async def test_a_cancelled_caller_leaves_only_when_the_call_has_ended(offload: Offload) -> None:
    entered, leave, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        leave.wait(PATIENCE)
        ended.set()

    task = asyncio.ensure_future(offload.call(work))
    await asyncio.to_thread(entered.wait, PATIENCE)
    task.cancel()
    await asyncio.sleep(0.05)
    task.cancel()  # once more, as a client that goes away while the server drains does
    await asyncio.sleep(0.05)
    assert not task.done()
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_call_that_has_not_begun_is_dropped_when_its_caller_is_cancelled(offload: Offload) -> None:
    leave, ran = threading.Event(), threading.Event()
    busy = [asyncio.ensure_future(offload.call(leave.wait, PATIENCE)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(offload.call(ran.set))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    leave.set()
    await asyncio.gather(*busy)
    assert await offload.call(ran.is_set) is False


async def test_what_a_call_raises_reaches_its_caller(offload: Offload) -> None:
    def fail() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError):
        await offload.call(fail)
