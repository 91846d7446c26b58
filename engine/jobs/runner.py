"""Takes jobs and runs them, one at a time: claim, attempt, true end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from engine.errors import DataOpsError, PlatformNotPrepared
from engine.faults import fault
from engine.jobs import ending, lease, retry
from engine.jobs.handlers import Handlers, JobHandler
from engine.jobs.heartbeat import Heartbeat
from engine.jobs.interrupts import JobCancelled, LeaseLost, WorkerStopping
from engine.jobs.lease import Claimed
from engine.jobs.model import ACTIVE, JobState
from engine.jobs.run import JobRun

if TYPE_CHECKING:
    from engine.resources import Resources

END_TRIES = 10
"""An end that meets a deadlock or a restarting database is tried again for some 20 s before the lease is left."""

log = structlog.get_logger(__name__)


class Runner:
    """One slot. `run_next` is called by one thread at a time; `stop` by any."""

    def __init__(self, resources: Resources, handlers: Handlers, owner: str) -> None:
        self._resources = resources
        self._handlers = handlers
        self._kinds = sorted(str(kind) for kind in handlers)
        self._owner = owner
        self._stopping = threading.Event()
        self._current: Claimed | None = None

    def stop(self) -> None:
        """Claim nothing more and interrupt the job that runs: it rolls back and is released."""
        self._stopping.set()

    def abandon(self) -> None:
        """Release the job that runs although its thread still holds it; the process must end right after."""
        claimed = self._current
        if claimed is not None:
            handler, now = self._handlers[claimed.job.kind], self._resources.clock()
            with self._resources.db.transaction() as session:
                ending.release(session, claimed.held, handler, claimed.settle, now)

    def run_next(self) -> bool:
        """Take the next job and bring it as far as it goes; False when there is none, or we are stopping."""
        if self._stopping.is_set():
            return False
        leased_at = time.monotonic()
        claimed, defect = self._claim()
        if claimed is None:
            return False
        fault("jobs.claimed")
        with structlog.contextvars.bound_contextvars(job_id=str(claimed.job.id), kind=claimed.job.kind):
            log.info("job_claimed", attempt=claimed.job.attempt, fence=claimed.held.fence, settle=claimed.settle)
            self._current = claimed
            outcome = self._work(claimed, defect, leased_at)
            self._current = None
        self._count(claimed, outcome, time.monotonic() - leased_at)
        self._resources.bell.announce(claimed.job.id)
        return True

    def _claim(self) -> tuple[Claimed | None, Exception | None]:
        """The next job, with what its handler's `started` said against it."""
        settings, now = self._resources.settings, self._resources.clock()
        defect: Exception | None = None
        with self._resources.db.transaction() as session:
            claimed = lease.claim_next(session, self._kinds, self._owner, settings.lease_seconds, now)
            if claimed is None:
                return None, None
            if claimed.first and not claimed.settle:
                defect = _start(session, claimed, self._handlers[claimed.job.kind])
            more = lease.more_runnable(session, self._kinds, now)
        if more:
            self._resources.bell.ring()
        self._resources.bell.announce(claimed.job.id)
        return claimed, defect

    def _count(self, claimed: Claimed, outcome: str, seconds: float) -> None:
        meters = self._resources.meters
        meters.job_attempts.labels(claimed.job.kind, outcome).inc()
        meters.job_seconds.labels(claimed.job.kind).observe(seconds)
        if claimed.lost:
            meters.leases_expired.inc()

    def _work(self, claimed: Claimed, defect: Exception | None, leased_at: float) -> str:
        """One attempt; what it came to: the job's state after it, OPEN where that is not an end, LOST."""
        settings = self._resources.settings
        heartbeat = Heartbeat(
            self._resources.db.dsn,
            claimed.held,
            lease_seconds=settings.lease_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
            stopping=self._stopping,
            leased_at=leased_at,
        )
        with heartbeat:
            run = JobRun(claimed.job, claimed.held, self._resources, heartbeat)
            attempt = _Attempt(self._resources, self._handlers[claimed.job.kind], claimed, run, heartbeat)
            try:
                attempt.drive(defect)
            except LeaseLost:
                log.warning("job_left_to_another", fence=claimed.held.fence)
                return "LOST"
            except Exception:
                # Neither run nor ended: the lease runs out, and whoever takes over finds the truth in the mark.
                log.exception("job_left_open")
                return "OPEN"
        return "OPEN" if attempt.ended in (None, *ACTIVE) else str(attempt.ended)


def _start(session: Session, claimed: Claimed, handler: JobHandler) -> Exception | None:
    try:
        with session.begin_nested():
            handler.started(session, claimed.job)
    except (DBAPIError, PoolTimeout):
        raise
    except Exception as error:
        session.refresh(claimed.job)
        return error
    return None


class _Attempt:
    """One attempt, from claim to end."""

    def __init__(
        self, resources: Resources, handler: JobHandler, claimed: Claimed, run: JobRun, heartbeat: Heartbeat
    ) -> None:
        self._resources = resources
        self._handler = handler
        self._claimed = claimed
        self._held = claimed.held
        self._job = claimed.job
        self._run = run
        self._heartbeat = heartbeat
        self.ended: JobState | None = None
        """The job's state after the attempt, once that is written."""

    def drive(self, defect: Exception | None) -> None:
        """Run the job and end it as what it truly is. LeaseLost comes out: then there is nothing to end."""
        if defect is not None:
            self._fail(retry.describe(defect))
            return
        try:
            if self._claimed.settle and not self._effect_stands():
                self._settle()
            else:
                self._complete()
        except WorkerStopping:
            self._release()
        except JobCancelled:
            self._cancel()
        except Exception as error:
            self._fail_unless_interrupted(retry.describe(error))

    def _fail_unless_interrupted(self, error: DataOpsError) -> None:
        """A handler may have made an error of its own of a statement that our cancel ended; the reason is ours then.

        An error that no other attempt can mend is the job's own, whatever came at the same time.
        """
        interrupt = self._run.interrupt
        if isinstance(interrupt, WorkerStopping) and (error.retryable or error.reason == "INTERNAL"):
            self._release()
        else:
            self._fail(error)

    def _complete(self) -> None:
        finish = self._handler.run(self._run)
        self._run.finish_progress()
        fault("jobs.before_end")
        self._end(lambda session: ending.complete(session, self._held, self._handler, finish, self._now()))

    def _settle(self) -> None:
        """The effect does not stand: the end that could not be written before is true now."""
        kept = self._job.error or {}
        error: DataOpsError = lease.worker_lost()
        if kept.get("final"):
            error = DataOpsError(kept["message"], reason=kept["reason"], metadata=kept["metadata"])
        self._end(lambda session: ending.fail(session, self._held, self._handler, error, self._now()))

    def _release(self) -> None:
        settling = self._claimed.settle
        self._end(lambda session: ending.release(session, self._held, self._handler, settling, self._now()))
        self._resources.bell.ring()

    def _cancel(self) -> None:
        try:
            stands = self._effect_stands()
        except (DataOpsError, DBAPIError, PoolTimeout) as error:
            self._leave_open(retry.describe(error))
            return
        if stands:
            # The cancel came after the COMMIT: the record must say what happened.
            self.drive(None)
        else:
            self._end(lambda session: ending.cancel(session, self._held, self._handler, self._now()))

    def _fail(self, error: DataOpsError) -> None:
        try:
            stands = self._effect_stands()
        except (DataOpsError, DBAPIError, PoolTimeout) as unknown:
            if self._attempts_left():
                self._again(retry.describe(unknown))
            else:
                self._leave_open(error)
            return
        if self._attempts_left() and (error.retryable or stands):
            self._again(error)
            return
        if stands:
            error = replace(error, metadata={**error.metadata, "effect": "committed"})
        self._end(lambda session: ending.fail(session, self._held, self._handler, error, self._now()))

    def _again(self, error: DataOpsError) -> None:
        log.warning("job_tries_again", reason=error.reason, attempt=self._job.attempt)
        self._end(lambda session: ending.again(session, self._held, self._handler, error, self._now()))

    def _leave_open(self, error: DataOpsError) -> None:
        self._end(lambda session: ending.leave_open(session, self._held, error))

    def _effect_stands(self) -> bool:
        """Whether the effect is committed, for certain. Raises what keeps us from knowing."""
        if not self._job.announced:
            return False
        try:
            return self._run.take_over() is not None
        except PlatformNotPrepared:
            return False  # where there is no fence to hold, no effect can have been committed

    def _attempts_left(self) -> bool:
        return not self._claimed.settle and self._job.attempt < self._job.max_attempts

    def _end(self, act: Callable[[Session], JobState]) -> None:
        for tried in range(1, END_TRIES + 1):
            try:
                with self._resources.db.transaction() as session:
                    state = act(session)
            except (DBAPIError, PoolTimeout) as error:
                if tried == END_TRIES or not self._heartbeat.lease_is_good() or not retry.describe(error).retryable:
                    raise
                time.sleep(min(2.0, 0.2 * 2**tried))
            else:
                log.info("job_ended_attempt", state=state, attempt=self._job.attempt)
                self.ended = state
                return

    def _now(self) -> datetime:
        return self._resources.clock()
