"""The process's own thread that sends webhooks: a receiver that is slow keeps neither jobs nor housekeeping waiting."""

from __future__ import annotations

import threading

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from engine.health.pulse import Pulse
from engine.webhooks.sender import Sender

ATTEMPT_SECONDS = 300.0
"""What one attempt may take before the thread is said to hang: a silent receiver is given up after 10 s, a name that is
not resolved after some more."""

log = structlog.get_logger(__name__)


class Deliveries:
    """Every process has one, and they share the work: a delivery is claimed before it is sent."""

    def __init__(self, sender: Sender, *, every_seconds: float) -> None:
        self._sender, self._every = sender, every_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._rounds, name="webhooks", daemon=True)
        self.pulse = Pulse("webhooks", self._thread, every_seconds + ATTEMPT_SECONDS)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Begin no more attempts, and wait at most `seconds` for the one under way: what is not recorded is
        repeated."""
        self._stopping.set()
        self._thread.join(seconds)

    def _rounds(self) -> None:
        while not self._stopping.is_set():
            self.pulse.beat()
            try:
                while not self._stopping.is_set() and self._sender.send_next():
                    self.pulse.beat()
            except (DBAPIError, PoolTimeout) as error:
                log.warning("webhooks_failed", error=type(error).__name__)
            except Exception:
                # A defect must not end the thread: the deliveries would stay where they are and nobody be told.
                log.exception("webhooks_failed")
            self._stopping.wait(self._every)
