"""The queues: who may run beside whom, and who may not overtake."""

from __future__ import annotations

import threading
import uuid

import pytest
from sqlalchemy import text

from engine.jobs import service
from engine.jobs.lease import Claimed, claim_next
from engine.jobs.model import ClaimMode
from tests.engine.jobs.kit import Bench, wait_until

READ, WRITE, EXCLUSIVE = ClaimMode.READ, ClaimMode.WRITE, ClaimMode.EXCLUSIVE


def claim(bench: Bench) -> Claimed | None:
    with bench.resources.db.transaction() as session:
        return claim_next(session, list(bench.handlers), "test", 60, bench.resources.clock())


def claim_all(bench: Bench) -> set[uuid.UUID]:
    """The jobs that run at once now."""
    found = set()
    while (claimed := claim(bench)) is not None:
        found.add(claimed.job.id)
    return found


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (READ, READ, True),
        (READ, WRITE, True),
        (WRITE, READ, True),
        (WRITE, WRITE, False),
        (READ, EXCLUSIVE, False),
        (WRITE, EXCLUSIVE, False),
        (EXCLUSIVE, READ, False),
        (EXCLUSIVE, WRITE, False),
        (EXCLUSIVE, EXCLUSIVE, False),
    ],
)
def test_modes_on_one_entity(first: ClaimMode, second: ClaimMode, together: bool, bench: Bench) -> None:
    one, two = bench.create("PLAIN", ("users", first)), bench.create("PLAIN", ("users", second))

    running = claim_all(bench)

    assert running == ({one, two} if together else {one})
    with bench.resources.db.transaction() as session:
        assert service.blocked_by(session, [one, two]) == ({} if together else {two: [one]})


def test_a_reader_does_not_overtake_a_waiting_exclusive(bench: Bench) -> None:
    reader = bench.create("PLAIN", ("users", READ))
    restore = bench.create("PLAIN", ("users", EXCLUSIVE))
    late = bench.create("PLAIN", ("users", READ))

    assert claim_all(bench) == {reader}
    with bench.resources.db.transaction() as session:
        assert service.blocked_by(session, [restore, late]) == {restore: [reader], late: [restore]}
    assert [e.payload.get("blocked_by") for e in bench.events(late)] == [[str(restore)]]


def test_the_next_in_the_queue_runs_when_the_one_before_has_ended(bench: Bench) -> None:
    first = bench.create("PLAIN", ("users", WRITE))
    second = bench.create("PLAIN", ("users", WRITE), ("tokens", READ))

    bench.run_until_end(second)

    assert bench.job(first).state == bench.job(second).state == "COMPLETED"
    assert bench.job(first).finished_at < bench.job(second).started_at  # type: ignore[operator]


def test_other_entities_do_not_wait(bench: Bench) -> None:
    bench.create("PLAIN", ("users", EXCLUSIVE))
    blocked = bench.create("PLAIN", ("tokens", WRITE), ("users", READ))
    free = bench.create("PLAIN", ("points", WRITE))

    running = claim_all(bench)

    assert free in running
    assert blocked not in running


def test_smaller_priority_first_then_age(bench: Bench) -> None:
    late, old, urgent = (bench.create("PLAIN", priority=p) for p in (200, 100, 10))

    order = [claimed.job.id for claimed in iter(lambda: claim(bench), None)]

    assert order == [urgent, old, late]


def a_lock_is_waited_for(bench: Bench) -> bool:
    with bench.resources.db.transaction() as session:
        found = session.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )
        return bool(found)


def test_places_are_taken_in_the_order_of_commits(bench: Bench) -> None:
    # The earlier place must be visible before a later one exists: the second creation waits for the first to commit.
    done = threading.Event()

    def create_second() -> None:
        bench.create("PLAIN", ("users", EXCLUSIVE))
        done.set()

    thread = threading.Thread(target=create_second)
    with bench.resources.db.transaction() as session:
        first = bench.insert(session, "PLAIN", ("users", EXCLUSIVE))
        thread.start()
        wait_until(lambda: a_lock_is_waited_for(bench), 50)
        assert not done.is_set()
    thread.join(10)

    assert done.is_set()
    assert claim_all(bench) == {first}


def test_two_workers_never_claim_one_job(bench: Bench) -> None:
    jobs = {bench.create("PLAIN") for _ in range(20)}
    found: list[uuid.UUID] = []

    def work() -> None:
        while (claimed := claim(bench)) is not None:
            found.append(claimed.job.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    # A skipped row may be one whose claim was rolled back; the 2 s look takes what is left.
    found += claim_all(bench)
    assert len(found) == 20
    assert set(found) == jobs


def test_a_kind_nobody_here_knows_is_left_to_others(bench: Bench) -> None:
    job_id = bench.create("FROM_A_LATER_RELEASE")

    assert not bench.runner().run_next()
    assert bench.job(job_id).state == "PENDING"
