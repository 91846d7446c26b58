"""Tells a person at a terminal, or a log, what is going on."""

from __future__ import annotations

import sys
import time

from dataops.v1 import common_pb2, jobs_pb2


class Narrator:
    """Prints steps, a live line per stage on a terminal, and one lasting line per stage either way."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._stage = ""
        self._stage_began = 0.0
        self._latest: common_pb2.Progress | None = None
        self._step = 0

    def step(self, title: str, why: str) -> None:
        """Begin the next step of the story."""
        self._step += 1
        print(f"\n{self._step}. {title}\n   {why}", flush=True)

    def say(self, text: str) -> None:
        """One lasting line of the present step."""
        self._clear()
        print(f"   {text}", flush=True)

    def bytes_moved(self, done: int, total: int | None) -> None:
        """A live line about a transfer."""
        share = f" ({100 * done // total} %)" if total else ""
        self._show(f"{megabytes(done)}{share}")

    def on_event(self, event: jobs_pb2.JobEvent) -> None:
        """Follow a job: hand this to the client's ``wait_for_job``."""
        kind = event.WhichOneof("event")
        if kind == "stage_change":
            self.stage_over()
            self._stage, self._stage_began, self._latest = event.stage_change.new_stage.lower(), time.monotonic(), None
        elif kind == "progress":
            self._latest = event.progress
            self._show(f"{self._stage:<12} {self._counts()}")

    def stage_over(self) -> None:
        """The lasting line of the stage that has just ended, if there was one."""
        if self._stage:
            seconds = time.monotonic() - self._stage_began
            self.say(f"{self._stage:<12} {seconds:6.1f} s  {self._counts(seconds)}".rstrip())
        self._stage, self._latest = "", None

    def _counts(self, seconds: float | None = None) -> str:
        progress = self._latest
        if progress is None or not progress.rows_done:
            return ""
        rate = progress.rows_done / seconds if seconds else progress.rows_per_second
        return f"{progress.rows_done:>9,} rows  {rate:>9,.0f} rows/s"

    def _show(self, text: str) -> None:
        if self._live:
            print(f"\r   {text:<70}", end="", flush=True)

    def _clear(self) -> None:
        if self._live:
            print(f"\r{'':<76}\r", end="", flush=True)


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:.1f} MB"
