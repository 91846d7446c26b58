"""Tells how work goes, on standard error: live bars for a person at a terminal, plain lines for anyone else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from dataops_client.cli.plain import enum_word, size_text

if TYPE_CHECKING:
    from dataops.v1 import common_pb2, jobs_pb2

    from dataops_client.errors import DataOpsError

_LINE_SECONDS = 2.0
"""Plain lines of one stage come no closer: a log of an hour's import stays under 2,000 lines."""

_NAMED = 3
"""Jobs before ours that are named; the line must fit a terminal."""


class Teller(Protocol):
    """Who is told. Each call says where one step stands now; steps may be told in any order."""

    def step(self, name: str, done: float, total: float | None, text: str) -> None:
        """`done` of `total` (None: not known) with the rest in words."""

    def say(self, text: str) -> None:
        """One line that stays."""

    def close(self) -> None:
        """The work is over: every bar is as it ended."""


class Lines:
    """Plain lines: the first and the last of each step, and one every two seconds between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._step = ""
        self._pending = ""
        self._told_at = 0.0

    def step(self, name: str, done: float, total: float | None, text: str) -> None:
        now = time.monotonic()
        line = f"{name}: {text}"
        if name != self._step:
            self._flush()
        elif now - self._told_at < _LINE_SECONDS and done != total:
            self._pending = line
            return
        self._step, self._told_at, self._pending = name, now, ""
        self._write(line)

    def say(self, text: str) -> None:
        self._flush()
        self._write(text)

    def close(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._write(self._pending)
            self._pending = ""

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class Bars:
    """One bar for each step."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:>14}", markup=False),
            BarColumn(bar_width=32),
            TextColumn("{task.fields[text]}", markup=False),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def step(self, name: str, done: float, total: float | None, text: str) -> None:
        if name not in self._tasks:
            self._end_steps()
            self._tasks[name] = self._progress.add_task(name, total=total, text="")
        self._progress.update(self._tasks[name], completed=done, total=total, text=text)

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._end_steps()
        self._progress.stop()

    def _end_steps(self) -> None:
        """A step without a total would go on moving after its end."""
        for task in self._progress.tasks:
            if task.total is None:
                self._progress.update(task.id, total=max(task.completed, 1), completed=max(task.completed, 1))


class Nobody:
    """Tells nothing."""

    def step(self, name: str, done: float, total: float | None, text: str) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


@contextmanager
def telling(*, quiet: bool, job_of: Callable[[str], jobs_pb2.Job] | None = None) -> Iterator[Narration]:
    """Tell on standard error while the block runs; `job_of` looks up a job that another one waits for."""
    console = Console(stderr=True)
    teller: Teller = Nobody() if quiet else Bars(console) if console.is_terminal else Lines(sys.stderr)
    try:
        yield Narration(teller, job_of)
    finally:
        teller.close()


class Narration:
    """Puts bytes and events of the client into a teller's steps."""

    def __init__(self, teller: Teller, job_of: Callable[[str], jobs_pb2.Job] | None = None) -> None:
        self._teller = teller
        self._job_of = job_of
        self._stage = ""

    def say(self, text: str) -> None:
        """One line that stays."""
        self._teller.say(text)

    def uploaded(self, done: int, size: int | None) -> None:
        """For `on_bytes` of an upload."""
        self._moved("upload", done, size)

    def checked(self, done: int, size: int | None) -> None:
        """For `on_checked` of an upload: a large file is read once before."""
        self._moved("checksum", done, size)

    def downloaded(self, done: int, size: int | None) -> None:
        """For `on_bytes` of a download."""
        self._moved("download", done, size)

    def waiting(self, error: DataOpsError) -> None:
        """For `on_waiting` of a download."""
        job = error.metadata.get("job_id", "")
        self._teller.step("waits", 0, None, "for the file to be made" + (f" by job {job}" if job else ""))

    def _moved(self, name: str, done: int, size: int | None) -> None:
        text = size_text(done) + (f" of {size_text(size)}" if size is not None else "")
        self._teller.step(name, done, size, text)

    def happened(self, event: jobs_pb2.JobEvent) -> None:
        """For `on_event` of a job."""
        kind = event.WhichOneof("event")
        if kind == "progress":
            self._progressed(event.progress)
        elif kind == "stage_change":
            self._stage = event.stage_change.new_stage
            self._teller.step(self._stage, 0, None, "begins")
        elif kind == "notice":
            self._teller.say(f"{event.notice.code}: {event.notice.message}")
        elif kind == "state_change":
            self._changed(event.state_change)
        elif kind == "snapshot":
            self._stood(event.snapshot)

    def _stood(self, job: jobs_pb2.Job) -> None:
        if job.HasField("progress"):
            self._progressed(job.progress)
        elif job.blocked_by:
            self._waits_for(job.blocked_by)

    def _changed(self, change: jobs_pb2.JobStateChange) -> None:
        """Only what a person must know: that it waits, or that it begins again."""
        if change.blocked_by:
            self._waits_for(change.blocked_by)
        elif change.attempt > 1 or change.HasField("error"):
            state = enum_word(change, "new_state")
            reason = f": {change.error.reason}: {change.error.message}" if change.HasField("error") else ""
            self._teller.say(f"{state}, attempt {change.attempt}{reason}")

    def _waits_for(self, job_ids: Sequence[str]) -> None:
        """Whose turn comes first: a person may know how long that takes, or stop it."""
        named = [self._named(job_id) for job_id in job_ids[:_NAMED]]
        more = f" and {len(job_ids) - _NAMED} more" if len(job_ids) > _NAMED else ""
        self._teller.step("waits", 0, None, f"for {', '.join(named)}{more}")

    def _named(self, job_id: str) -> str:
        from dataops_client.errors import DataOpsError

        if self._job_of is None:
            return f"job {job_id}"
        try:
            return f"{enum_word(self._job_of(job_id), 'kind')} job {job_id}"
        except DataOpsError:  # another's job may not be ours to see
            return f"job {job_id}"

    def _progressed(self, progress: common_pb2.Progress) -> None:
        name = progress.stage or self._stage or "work"
        if progress.rows_done or progress.HasField("rows_estimated"):
            total = progress.rows_estimated if progress.HasField("rows_estimated") else None
            self._teller.step(name, progress.rows_done, total, _rows_text(progress))
        else:
            size = progress.bytes_estimated if progress.HasField("bytes_estimated") else None
            self._moved(name, progress.bytes_done, size)


def _rows_text(progress: common_pb2.Progress) -> str:
    parts = [f"{progress.rows_done:,}"]
    if progress.HasField("rows_estimated"):
        parts.append(f"of {progress.rows_estimated:,}")
    parts.append("rows")
    if progress.rows_per_second >= 1:
        parts.append(f"· {progress.rows_per_second:,.0f} rows/s")
    if progress.HasField("eta") and progress.eta.seconds:
        parts.append(f"· {progress.eta.seconds} s left")
    return " ".join(parts)
