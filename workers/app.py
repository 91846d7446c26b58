"""A worker process, assembled on one page: settings, resources, slot, doorbell, housekeeping, schedules, its end.

The main thread owns the signals and does nothing else. On SIGTERM nothing more is claimed, the running job's statement
is cancelled, its transaction rolled back and its lease released with the attempt not counted; exit within 10 s.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime

import dramatiq
import structlog
from sqlalchemy.orm import Session

from engine import faults, memory, telemetry
from engine.access.idempotency import sweep_request_ids
from engine.backups.sweep import BackupSweeper
from engine.config import Settings, load_settings
from engine.errors import DataOpsError
from engine.health.endpoint import HealthEndpoint, alive_of
from engine.jobs import events, marks, registry
from engine.jobs.handlers import Handlers
from engine.jobs.runner import Runner
from engine.resources import Resources, open_resources
from engine.restores.service import Restores
from engine.retention.service import Retention
from engine.schedules.record import forget_runs
from engine.schedules.scheduler import Scheduler
from engine.webhooks.sender import Sender
from engine.webhooks.service import Webhooks
from workers import broker
from workers.deliveries import Deliveries
from workers.housekeeping import SCHEDULER, Duty, Housekeeping
from workers.slot import Slot

POOL_SIZE = 6
"""Control connections: the slot, housekeeping, the scheduler, webhooks, and what a handler does besides. Heartbeats
have their own."""

ROLLBACK_SECONDS = 7.0
"""What a stopping job gets to notice and roll back; with giving up and closing it stays under the promised 10 s."""

GIVE_UP_SECONDS = 1.0

SIGNAL_SECONDS = 0.5
"""The main thread wakes this often. A signal may be delivered to any thread, and its handler runs when the main thread
runs next: one that waited without end was seen to sleep over a SIGTERM until the second came."""

log = structlog.get_logger(__name__)


def main() -> int:
    """Entry point: run until SIGTERM or SIGINT. Returns the process's exit code."""
    memory.keep_little()
    try:
        settings = load_settings()
        telemetry.configure(settings.log_format)
        return run(settings, registry.handlers())
    except DataOpsError as error:
        sys.stderr.write(f"worker: refuses to start: {error}\n")
        return 1


def run(settings: Settings, handlers: Handlers, duties: Sequence[Duty] | None = None) -> int:
    """Serve jobs of the given kinds until told to stop. Call it on the main thread: it takes the signals.

    Raises:
        DataOpsError: the process must not start: SCHEMA_REVISION, KEYS_MISSING, ….
    """
    faults.arm(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_args: stop.set())
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    resources = open_resources(settings, name="dataops: worker", pool_size=POOL_SIZE)
    health = None
    try:
        worker = Worker(resources, handlers, default_duties(resources) if duties is None else duties, owner)
        health = HealthEndpoint.of(resources, alive_of(worker.pulses), stop.is_set)  # first: it may refuse the start
        worker.start()
        log.info("worker_ready", owner=owner, kinds=sorted(handlers), health=health.address if health else "")
        while not stop.wait(SIGNAL_SECONDS):
            pass
        worker.stop()
    finally:
        if health is not None:
            health.close()
        resources.close()
    log.info("worker_stopped", owner=owner)
    return 0


def default_duties(resources: Resources) -> list[Duty]:
    """What housekeeping does in this release."""
    retention, restores, backups = Retention(resources), Restores(resources), BackupSweeper(resources)
    webhooks = Webhooks(resources)

    def forgetting(name: str, forget: Callable[[Session, datetime], int]) -> Duty:
        def act(now: datetime) -> int:
            with resources.db.transaction() as session:
                return forget(session, now)

        return Duty(name, act)

    return [
        Duty("retention", retention.sweep),
        Duty("restores", restores.expire),
        Duty("backups", backups.sweep),
        # after those above: what they let go of is swept in the same round
        Duty("artifacts", lambda _now: resources.artifacts.sweep()),
        forgetting("events", events.forget),
        forgetting("schedule runs", forget_runs),
        Duty("webhooks", webhooks.forget),
        forgetting("request ids", sweep_request_ids),
        Duty("marks", lambda now: marks.sweep(resources, now)),
    ]


class Worker:
    """Slot, doorbell, housekeeping, scheduler and webhooks of one process."""

    def __init__(self, resources: Resources, handlers: Handlers, duties: Sequence[Duty], owner: str) -> None:
        self._settings = resources.settings
        self._runner = Runner(resources, handlers, owner)
        self._slot = Slot(
            self._runner,
            resources.bell,
            look_seconds=self._settings.look_seconds,
            after_job=resources.artifacts.vault.buffers.let_go,
        )
        self._housekeeping = Housekeeping(resources, duties, owner)
        firing, every = Duty("schedules", Scheduler(resources).fire), self._settings.schedule_seconds
        self._scheduler = Housekeeping(resources, [firing], owner, lease=SCHEDULER, every=every)
        self._deliveries = Deliveries(Sender(resources), every_seconds=self._settings.webhook_seconds)
        self._bell: dramatiq.Worker | None = None
        self.pulses = [self._slot.pulse, self._housekeeping.pulse, self._scheduler.pulse, self._deliveries.pulse]
        """Of the threads that this process cannot do without."""

    def start(self) -> None:
        self._slot.start()
        if self._settings.redis_url:
            self._bell = broker.listen(self._settings.redis_url, self._slot.rung)
        self._housekeeping.start()
        self._scheduler.start()
        self._deliveries.start()

    def stop(self) -> None:
        """Stop within 10 s, whatever a handler does. Does not return if a job could not be interrupted."""
        deadline = time.monotonic() + ROLLBACK_SECONDS
        self._slot.stop()
        idle = self._slot.wait_idle(ROLLBACK_SECONDS)
        if not idle:
            self._abandon()
        if self._bell is not None:
            # What is left unacknowledged is only a ring: some worker looks within 2 s anyway.
            self._bell.stop(timeout=500)
        for rounds in (self._scheduler, self._housekeeping, self._deliveries):
            rounds.stop(max(0.1, deadline - time.monotonic()))

    def _abandon(self) -> None:
        """A job that does not listen: release it under its thread's feet and end the process at once.

        Safe, because an effect that is on its way meets the next holder's fence, which ends its backend.
        """
        log.error("job_does_not_stop")
        thread = threading.Thread(target=self._runner.abandon, name="abandon", daemon=True)
        thread.start()
        thread.join(GIVE_UP_SECONDS)
        os._exit(1)
