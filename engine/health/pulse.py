"""Whether a thread that a process cannot do without still lives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pulse:
    """One such thread: it beats at every round. `busy` says that it may be silent for long, as it is while it works."""

    def __init__(
        self, name: str, thread: threading.Thread, silence_seconds: float, busy: Callable[[], bool] = lambda: False
    ) -> None:
        self.name = name
        self._thread = thread
        self._silence = silence_seconds
        self._busy = busy
        self._heard_at = time.monotonic()

    def beat(self) -> None:
        """I live."""
        self._heard_at = time.monotonic()

    def wrong(self) -> str:
        """Why the process should be started again; empty when the thread lives."""
        if not self._thread.is_alive():
            return "its thread has ended"
        heard_at = self._heard_at  # before `busy` is asked: a beat comes before the work ends
        silent = time.monotonic() - heard_at
        if silent > self._silence and not self._busy():
            return f"not heard of for {silent:.0f} s, expected every {self._silence:.0f} s"
        return ""
