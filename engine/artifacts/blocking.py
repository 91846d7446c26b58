"""A guard: hashing, sealing and storage take milliseconds, and every stream of an event loop would wait for them."""

from __future__ import annotations

import asyncio

from engine.errors import InternalError


def refuse_on_event_loop() -> None:
    """Return at once on a plain thread (some 50 ns).

    Raises:
        InternalError: BLOCKING_ON_EVENT_LOOP on a thread with a running loop: a defect of the calling code.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise InternalError(
        "artifacts must not be read or written on a thread with a running event loop", reason="BLOCKING_ON_EVENT_LOOP"
    )
