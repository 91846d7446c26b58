"""The slot: one job at a time, whoever calls, and a ring for a busy process goes to another."""

from __future__ import annotations

import threading
from typing import Any, cast

from tests.engine.jobs.kit import wait_until
from workers.slot import Slot


class Jobs:
    """A runner with a given number of jobs, each of which waits for the test; and the bell it would ring."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.running = 0
        self.most = 0
        self.rings = 0
        self.let_go = 0
        self.go = threading.Event()
        self.stopped = threading.Event()

    def run_next(self) -> bool:
        if self.left == 0:
            return False
        self.left -= 1
        self.running += 1
        self.most = max(self.most, self.running)
        while not (self.go.is_set() or self.stopped.is_set()):
            self.go.wait(0.01)
        self.running -= 1
        return True

    def ring(self) -> None:
        self.rings += 1

    def after(self) -> None:
        self.let_go += 1

    def stop(self) -> None:
        self.stopped.set()


def make(count: int) -> tuple[Jobs, Slot]:
    jobs = Jobs(count)
    return jobs, Slot(cast(Any, jobs), cast(Any, jobs), look_seconds=0.01, after_job=jobs.after)


def test_look_and_ring_share_one_slot_and_the_ring_is_passed_on_once() -> None:
    jobs, slot = make(3)
    slot.start()
    wait_until(lambda: jobs.running == 1, 30)
    actor = threading.Thread(target=slot.rung)
    actor.start()
    wait_until(lambda: jobs.rings == 1, 30)

    jobs.go.set()
    actor.join(30)
    wait_until(lambda: jobs.left == 0, 30)
    slot.stop()

    assert slot.wait_idle(30)
    assert (jobs.most, jobs.rings, jobs.let_go) == (1, 1, 3)


def test_a_stop_ends_the_job_and_takes_no_other() -> None:
    jobs, slot = make(5)
    slot.start()
    wait_until(lambda: jobs.running == 1, 30)

    slot.stop()

    assert slot.wait_idle(30)
    assert jobs.left == 4


def test_a_defect_while_looking_does_not_end_the_looking() -> None:
    jobs, slot = make(2)
    jobs.go.set()
    working, failed = jobs.run_next, threading.Event()

    def fail_once() -> bool:
        jobs.run_next = working  # type: ignore[method-assign]
        failed.set()
        raise ValueError("defect")

    jobs.run_next = fail_once  # type: ignore[method-assign]
    slot.start()

    wait_until(lambda: jobs.left == 0, 30)
    slot.stop()
    assert failed.is_set()
