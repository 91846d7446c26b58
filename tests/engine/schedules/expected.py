"""What must become of a schedule's times, told once more in plain lists: the measure that the simulation is held to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

PAUSES = [timedelta(minutes=minutes) for minutes in (5, 15, 60)]

Fate = Callable[[datetime, int], tuple[timedelta, str]]
"""Of a time's nth backup: how long it takes, and how it ends: good, lost (may go away) or broken."""


@dataclass
class Expected:
    """One schedule: `ended` and `fire` at every moment at which a worker looks."""

    times: Sequence[datetime]
    buffers: bool
    window: timedelta
    fate: Fate
    outcomes: dict[datetime, str] = field(default_factory=dict)
    attempts: dict[datetime, int] = field(default_factory=dict)
    _next: int = 0
    _made: tuple[datetime, datetime, str] | None = None
    _buffered: datetime | None = None
    _retry: tuple[datetime, datetime] | None = None

    def next_event(self, now: datetime) -> datetime:
        """The first moment behind `now` at which something may happen."""
        found = [
            self._due(),
            self._made[1] if self._made else datetime.max.replace(tzinfo=now.tzinfo),
            self._retry[1] if self._retry else datetime.max.replace(tzinfo=now.tzinfo),
        ]
        return max(now, min(found))

    def ended(self, now: datetime) -> str:
        """How the backup ends that is over by now; empty where none is."""
        if self._made is None or self._made[1] > now:
            return ""
        time, _, end = self._made
        self._made = None
        tries = self.attempts[time]
        if end == "lost" and tries <= len(PAUSES) and self._buffered is None:
            again = now + PAUSES[tries - 1]
            if again < self._due():
                self._retry = (time, again)
                self.outcomes[time] = "WAITING"
                return end
        if end != "good":
            self.outcomes[time] = "FAILED"
        return end

    def fire(self, now: datetime) -> int:
        before = sum(self.attempts.values())
        if self._buffered is not None and self._made is None:
            waited, self._buffered = self._buffered, None
            if now - waited > self.window:
                self.outcomes[waited] = "MISSED"
            else:
                self._begin(waited, now)
        if self._retry is not None and self._due() <= now:
            self.outcomes[self._retry[0]] = "FAILED"
            self._retry = None
        if self._retry is not None and self._retry[1] <= now:
            self._begin(self._retry[0], now)
            self._retry = None
        passed = []
        while self._due() <= now:
            passed.append(self._due())
            self._next += 1
        for time in passed:
            self.outcomes[time] = "MISSED"
        if passed and now - passed[-1] <= self.window:
            self._come(passed[-1], now)
        return sum(self.attempts.values()) - before

    def count(self, outcome: str) -> int:
        return sum(found == outcome for found in self.outcomes.values())

    def _come(self, time: datetime, now: datetime) -> None:
        if self._made is None:
            self._begin(time, now)
        elif self.buffers and self._buffered is None:
            self._buffered = time
            self.outcomes[time] = "WAITING"
        else:
            self.outcomes[time] = "SKIPPED"

    def _begin(self, time: datetime, now: datetime) -> None:
        self.outcomes[time] = "STARTED"
        self.attempts[time] = self.attempts.get(time, 0) + 1
        lasts, end = self.fate(time, self.attempts[time])
        self._made = (time, now + lasts, end)

    def _due(self) -> datetime:
        return self.times[self._next]
