"""Keeps the workers of ``make up`` running: one that dies is started again, unless it dies all the time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from examples.stack.programs import Program

MAX_RESTARTS = 10
"""Of one worker within a minute; one that dies more often will not live, and its log says why."""

_MINUTE = 60.0


class Keeper:
    """Starts workers that ended by themselves again, and says so each time.

    The job that such a worker ran is taken over, as in earnest, where something else starts it again.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._restarts: dict[str, deque[float]] = {}

    def look(self, workers: Iterable[Program]) -> Program | None:
        """Start what has ended; the first worker that ended too often to be started again, else None.

        Main thread only, as everything that starts a program.
        """
        for worker in workers:
            if not worker.alive and not self._start_again(worker):
                return worker
        return None

    def _start_again(self, worker: Program) -> bool:
        now = self._clock()
        times = self._restarts.setdefault(worker.name, deque())
        while times and now - times[0] >= _MINUTE:
            times.popleft()
        if len(times) >= MAX_RESTARTS:
            return False
        times.append(now)
        self._say(f"{worker.name} ended by itself with code {worker.returncode}; it is started again")
        worker.start()
        return True
