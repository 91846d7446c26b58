"""Workers that end while they fire schedules: no time is fired twice, and none is lost."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import select, text, update

from engine.config import Settings
from engine.db.models import BackupRow, JobRow, ScheduleRow, ScheduleRunRow
from engine.schedules.model import ScheduleSpec
from engine.schedules.service import Schedules
from tests.engine.jobs.kit import Bench, wait_until
from tests.fix_workers import Start
from tests.world import World


class Fired:
    """Schedules of a control database, and what has become of them."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.db = bench, bench.resources.db
        self.world = World(bench.resources)
        self.world.sql("CREATE TABLE public.beside (id int PRIMARY KEY)")

    def schedule(self, entity: str = "effects") -> uuid.UUID:
        """One that is due, and then not again for months."""
        spec = ScheduleSpec("yearly", "0 0 1 6 *", entity_types=(entity,))
        schedule_id = Schedules(self.bench.resources).create(self.world.caller, spec, *self.world.request()).id
        with self.db.transaction() as session:
            now = text("date_trunc('second', clock_timestamp()) - interval '1 s'")
            session.execute(update(ScheduleRow).where(ScheduleRow.id == schedule_id).values(next_run_at=now))
        return schedule_id

    def holder_is_forgotten(self) -> None:
        """As if the time of the lease had passed since its holder was last heard of."""
        with self.db.transaction() as session:
            session.execute(text("UPDATE dataops.leases SET expires_at = clock_timestamp() - interval '1 s'"))

    def runs(self, schedule_id: uuid.UUID) -> list[tuple[str, int]]:
        with self.db.transaction() as session:
            found = select(ScheduleRunRow).where(ScheduleRunRow.schedule_id == schedule_id)
            return [(run.outcome, run.attempts) for run in session.scalars(found)]

    def backups(self, schedule_id: uuid.UUID) -> list[str]:
        with self.db.transaction() as session:
            query = select(BackupRow.status, JobRow.id).join(JobRow, JobRow.resource_id == BackupRow.id)
            return [status for status, _ in session.execute(query.where(BackupRow.schedule_id == schedule_id))]

    def wait_for_backup(self, schedule_id: uuid.UUID) -> None:
        """Until it has fired and its backup is complete."""
        wait_until(lambda: self.backups(schedule_id) == ["COMPLETED"], 60, lambda: str(self.backups(schedule_id)))


@pytest.fixture
def fired(bench: Bench) -> Iterator[Fired]:
    fired = Fired(bench)
    yield fired
    fired.world.sql("DROP TABLE public.beside")
    with bench.resources.db.transaction() as session:
        for table in ("schedule_runs", "schedules", "backups"):
            session.execute(text(f"DELETE FROM dataops.{table}"))


@pytest.fixture
def settings(job_settings: Settings) -> Settings:
    return job_settings.model_copy(update={"schedule_seconds": 0.2})


@pytest.mark.parametrize(
    ("point", "before"), [("schedules.before_commit", []), ("schedules.after_commit", [("STARTED", 1)])]
)
def test_killed_while_it_fires_the_time_is_fired_once(
    point: str, before: list[tuple[str, int]], fired: Fired, settings: Settings, start_worker: Start
) -> None:
    schedule_id = fired.schedule()
    worker = start_worker(settings, kill=point)
    assert worker.wait() == -signal.SIGKILL
    assert fired.runs(schedule_id) == before

    fired.holder_is_forgotten()
    start_worker(settings)
    fired.wait_for_backup(schedule_id)
    fired.wait_for_backup(fired.schedule())  # the new holder has been through all of them

    assert fired.runs(schedule_id) == [("STARTED", 1)]
    assert fired.backups(schedule_id) == ["COMPLETED"]


def test_two_holders_at_once_and_one_is_killed_in_the_middle(
    fired: Fired, settings: Settings, start_worker: Start
) -> None:
    held = fired.schedule()
    slow = start_worker(settings, "schedules.before_commit")
    slow.wait_at("schedules.before_commit")
    fired.holder_is_forgotten()
    start_worker(settings)
    other = fired.schedule("beside")

    fired.wait_for_backup(other)  # the second fires too, and leaves what the first has in hand
    assert fired.runs(held) == []
    slow.signal(signal.SIGKILL)
    fired.wait_for_backup(held)

    assert (fired.runs(held), fired.runs(other)) == ([("STARTED", 1)], [("STARTED", 1)])


def test_two_holders_at_once_and_both_live(fired: Fired, settings: Settings, start_worker: Start) -> None:
    held = fired.schedule()
    slow = start_worker(settings, "schedules.before_commit")
    slow.wait_at("schedules.before_commit")
    fired.holder_is_forgotten()
    start_worker(settings)
    fired.wait_for_backup(other := fired.schedule("beside"))

    slow.open_gate("schedules.before_commit")
    fired.wait_for_backup(held)

    assert (fired.runs(held), fired.runs(other)) == ([("STARTED", 1)], [("STARTED", 1)])
    slow.signal(signal.SIGTERM)
    assert slow.wait() == 0
