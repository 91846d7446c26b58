"""The process's one slot: whoever comes first, a ring or the look every 2 s, runs jobs in it until there are none."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from engine.health.pulse import Pulse
from engine.jobs.doorbell import Doorbell
from engine.jobs.runner import Runner
from engine.memory import give_back

SILENT_SECONDS = 30.0
"""An idle worker that has not looked for so long will not look again."""

log = structlog.get_logger(__name__)


class Slot:
    """Safe on any thread. `stop` interrupts what runs; `wait_idle` tells when it has been rolled back and released."""

    def __init__(
        self, runner: Runner, bell: Doorbell, *, look_seconds: float, after_job: Callable[[], None] = lambda: None
    ) -> None:
        """Args:
        after_job: lets go of what only a job needs.
        """
        self._runner = runner
        self._after_job = after_job
        self._bell = bell
        self._every = look_seconds
        self._busy = threading.Lock()
        self._stopping = threading.Event()
        self._looker = threading.Thread(target=self._look_for_ever, name="look", daemon=True)
        self.pulse = Pulse("look", self._looker, max(SILENT_SECONDS, 5 * look_seconds), self._busy.locked)
        """A job may take hours, and its worker lives: what is too long for it, its lease says."""

    def start(self) -> None:
        """Begin to look by ourselves: at once, then every `look_seconds`."""
        self._looker.start()

    def rung(self) -> None:
        """The doorbell rang. If we are busy the ring is for somebody else: pass it on, then wait for the slot.

        Waiting keeps our consumer, which holds one message at a time, from taking further rings that an idle process
        could answer.
        """
        if not self._busy.acquire(blocking=False):
            self._bell.ring()
            while not self._busy.acquire(timeout=0.5):
                if self._stopping.is_set():
                    return
        self._work_and_free()

    def look(self) -> None:
        """Run what there is, unless the slot is taken."""
        if self._busy.acquire(blocking=False):
            self._work_and_free()

    def stop(self) -> None:
        self._stopping.set()
        self._runner.stop()

    def wait_idle(self, seconds: float) -> bool:
        """Whether the slot became free within `seconds`; after `stop` it is not taken again."""
        return self._busy.acquire(timeout=seconds)

    def _work_and_free(self) -> None:
        try:
            while not self._stopping.is_set() and self._runner.run_next():
                self._after_job()
                give_back()
        except (DBAPIError, PoolTimeout) as error:
            log.warning("look_failed", error=type(error).__name__)
        except Exception:
            # A defect must not end the thread that looks: the process would live on and do nothing.
            log.exception("look_failed")
        finally:
            self.pulse.beat()  # before the slot is free: from then on silence counts
            self._busy.release()

    def _look_for_ever(self) -> None:
        while not self._stopping.is_set():
            self.pulse.beat()
            self.look()
            self._stopping.wait(self._every)
