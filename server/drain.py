"""The end of streams when the server stops: each ends at a message edge, and says when to come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.errors import Unavailable

COME_BACK_SECONDS = 1.0
"""A restarted server, or another one behind the same name, takes the stream up again this soon."""


class Drain:
    """One flag of the whole server. Streams ask it between two messages; one that waits asks to be woken."""

    def __init__(self) -> None:
        self._begun = False
        self._wake: dict[object, Callable[[], None]] = {}

    @property
    def begun(self) -> bool:
        return self._begun

    def begin(self) -> None:
        """From now on every stream ends at its next message edge. Call it on the loop."""
        self._begun = True
        for wake in list(self._wake.values()):
            wake()

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Inside, `wake()` is called on the loop when the server begins to stop."""
        key = object()
        self._wake[key] = wake
        try:
            yield
        finally:
            del self._wake[key]

    def check(self) -> None:
        """Do nothing while the server runs.

        Raises:
            Unavailable: SERVER_STOPPING, retryable at once elsewhere.
        """
        if self._begun:
            raise Unavailable(
                "the server is stopping, go on with another stream",
                reason="SERVER_STOPPING",
                retry_after=COME_BACK_SECONDS,
            )
