"""Letting go of what a stream holds: it must happen however busy the server is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec

from engine.errors import ResourceExhausted
from server.offload import Offload

P = ParamSpec("P")

AGAIN_SECONDS = 0.05


async def surely(offload: Offload, fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
    """`fn` on a thread, tried again for as long as the line is full."""
    while True:
        try:
            await offload.call(fn, *args, **kwargs)
        except ResourceExhausted as error:
            if error.reason != "SERVER_BUSY":
                raise
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            return
