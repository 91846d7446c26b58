"""How far a stage has come: totals, rates over the last seconds, time left. Pure; the clock comes from outside."""

from __future__ import annotations

from collections import deque
from typing import Any

INTERVAL = 0.25
"""Seconds between two progress events of a job: four a second look smooth and cost the database nothing."""

WINDOW = 5.0
"""Seconds over which a rate is measured."""


class Meter:
    """One stage. `seconds` of every call are of one monotonic clock."""

    def __init__(self, stage: str, rows: int | None, size: int | None, seconds: float) -> None:
        self.stage = stage
        self.rows, self.bytes = 0, 0
        self._rows_estimated, self._bytes_estimated = rows, size
        self._samples: deque[tuple[float, int, int]] = deque([(seconds, 0, 0)])
        self._told_at = float("-inf")
        self._told = True

    def update(self, rows: int | None, size: int | None, seconds: float) -> bool:
        """Take what is done (absolute); returns whether it is time to tell."""
        self.rows = self.rows if rows is None else rows
        self.bytes = self.bytes if size is None else size
        self._told = False
        return seconds - self._told_at >= INTERVAL

    @property
    def pending(self) -> bool:
        """Whether something was counted that has not been told."""
        return not self._told

    def tell(self, seconds: float) -> dict[str, Any]:
        """The payload of a progress event now."""
        self._told_at, self._told = seconds, True
        samples = self._samples
        samples.append((seconds, self.rows, self.bytes))
        while len(samples) > 2 and samples[1][0] <= seconds - WINDOW:
            samples.popleft()
        since, rows, size = samples[0]
        span = seconds - since
        row_rate = max(0, self.rows - rows) / span if span > 0 else 0.0
        byte_rate = max(0, self.bytes - size) / span if span > 0 else 0.0
        payload: dict[str, Any] = {
            "stage": self.stage,
            "rows_done": self.rows,
            "bytes_done": self.bytes,
            "rows_per_second": round(row_rate, 1),
            "bytes_per_second": round(byte_rate, 1),
        }
        # An estimate that was passed was wrong: what is done is the better one.
        if self._rows_estimated is not None:
            payload["rows_estimated"] = max(self._rows_estimated, self.rows)
        if self._bytes_estimated is not None:
            payload["bytes_estimated"] = max(self._bytes_estimated, self.bytes)
        left = self._seconds_left(row_rate, byte_rate)
        if left is not None:
            payload["eta_seconds"] = round(left, 1)
        return payload

    def _seconds_left(self, row_rate: float, byte_rate: float) -> float | None:
        if self._rows_estimated is not None and row_rate > 0:
            return max(0, self._rows_estimated - self.rows) / row_rate
        if self._bytes_estimated is not None and byte_rate > 0:
            return max(0, self._bytes_estimated - self.bytes) / byte_rate
        return None
