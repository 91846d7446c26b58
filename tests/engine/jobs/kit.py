"""Small job kinds with a real, fenced effect in the platform database, for the tests of the engine itself."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from sqlalchemy import text
from sqlalchemy.orm import Session

from engine.access import Caller
from engine.access.caller import CallContext
from engine.config import Settings
from engine.db.models import JobEventRow, JobRow
from engine.errors import DataInvalid, DataOpsError
from engine.faults import fault
from engine.jobs import service
from engine.jobs.handlers import Ending, Handlers
from engine.jobs.model import FINISHED, Claim, ClaimMode
from engine.jobs.run import JobRun
from engine.jobs.runner import Runner
from engine.resources import Resources, open_resources

BATCHES = 5
CALLER = Caller(uuid.UUID(int=1), "tests", "tester", "USER", (), ("*",), CallContext(client="tests"))


def prepare(control_dsn: str, platform_dsn: str) -> None:
    """The tables of the test kinds: what they work for (control) and what they do (platform)."""
    with psycopg.connect(control_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.things (id uuid PRIMARY KEY, status text NOT NULL)")
    with psycopg.connect(platform_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.effects (job_id uuid NOT NULL, batch int NOT NULL)")


@dataclass
class Thing:
    """Base of the test kinds: one row of `things` whose status follows the job."""

    def started(self, session: Session, job: JobRow) -> None:
        set_status(session, job, "WORKING")

    def failed(self, session: Session, job: JobRow, error: DataOpsError) -> None:
        set_status(session, job, f"FAILED {error.reason}")

    def cancelled(self, session: Session, job: JobRow) -> None:
        set_status(session, job, "CANCELLED")

    def retried(self, session: Session, job: JobRow) -> None:
        set_status(session, job, "NEW")

    def run(self, run: JobRun) -> Ending:
        return done(run.job)


class Effect(Thing):
    """Writes five rows in one fenced transaction; faults and pauses at each step."""

    def run(self, run: JobRun) -> Ending:
        run.stage("effect", rows=BATCHES)
        if run.take_over() is None:
            with run.platform("effect") as connection:
                run.announce(connection)
                fault("effect.announced")
                run.hold(connection)
                for batch in range(BATCHES):
                    connection.execute("INSERT INTO public.effects VALUES (%s, %s)", (run.job.id, batch))
                    fault(f"effect.batch{batch}")
                    run.progress(rows=batch + 1)
                run.mark(connection, {"rows": BATCHES})
                run.commit(connection)
        run.stage("report")
        return done(run.job)


class Sleep(Thing):
    """Holds a statement open in the platform database for a minute."""

    def run(self, run: JobRun) -> Ending:
        run.stage("sleep")
        with run.platform("sleep") as connection:
            fault("sleep.begins")
            connection.execute("SELECT pg_sleep(60)")
        return done(run.job)


class SleepInEffect(Thing):
    """The same inside the effect's transaction."""

    def run(self, run: JobRun) -> Ending:
        if run.take_over() is None:
            with run.platform("effect") as connection:
                run.announce(connection)
                run.hold(connection)
                connection.execute("INSERT INTO public.effects VALUES (%s, 0)", (run.job.id,))
                run.stage("sleep")
                connection.execute("SELECT pg_sleep(60)")
                run.mark(connection, {})
                run.commit(connection)
        return done(run.job)


class Plain(Thing):
    """No effect; computes for a moment."""

    def run(self, run: JobRun) -> Ending:
        for step in range(3):
            fault("plain.step")
            run.progress(rows=step)
        return done(run.job)


class Refused(Thing):
    def run(self, run: JobRun) -> Ending:
        raise DataInvalid("file: found no rows", reason="EMPTY_FILE", metadata={"rows": "0"})


@dataclass
class Scripted(Thing):
    """Does what a test put into `acts`, one per attempt; then succeeds."""

    acts: list[Callable[[JobRun], None]] = field(default_factory=list)

    def run(self, run: JobRun) -> Ending:
        if self.acts:
            self.acts.pop(0)(run)
        return done(run.job)


def kinds() -> Handlers:
    return {
        "EFFECT": Effect(),
        "SLEEP": Sleep(),
        "SLEEP_IN_EFFECT": SleepInEffect(),
        "PLAIN": Plain(),
        "REFUSED": Refused(),
        "SCRIPTED": Scripted(),
    }


def done(job: JobRow) -> Ending:
    return lambda session: set_status(session, job, "DONE")


def set_status(session: Session, job: JobRow, status: str) -> None:
    session.execute(text("UPDATE public.things SET status = :s WHERE id = :id"), {"s": status, "id": job.resource_id})


@dataclass
class Bench:
    """One control database, one platform database, and everything a test asks about them."""

    resources: Resources
    handlers: Handlers

    def create(self, kind: str, *claims: tuple[str, ClaimMode], priority: int = 100) -> uuid.UUID:
        with self.resources.db.transaction() as session:
            job_id = self.insert(session, kind, *claims, priority=priority)
        self.resources.bell.ring()
        return job_id

    def insert(self, session: Session, kind: str, *claims: tuple[str, ClaimMode], priority: int = 100) -> uuid.UUID:
        """A job and its thing, in the test's own transaction."""
        thing = uuid.uuid4()
        session.execute(text("INSERT INTO public.things VALUES (:id, 'NEW')"), {"id": thing})
        job = service.create_job(
            session,
            kind=kind,
            resource_type="things",
            resource_id=thing,
            claims=[Claim(entity, mode) for entity, mode in claims],
            caller=CALLER,
            intent_id=None,
            now=self.resources.clock(),
            priority=priority,
        )
        return job.id

    def cancel(self, job_id: uuid.UUID) -> JobRow:
        with self.resources.db.transaction() as session:
            return service.cancel_job(session, job_id, self.resources.clock(), self.handlers)

    def job(self, job_id: uuid.UUID) -> JobRow:
        with self.resources.db.transaction() as session:
            return service.get_job(session, job_id)

    def status(self, job_id: uuid.UUID) -> str:
        with self.resources.db.transaction() as session:
            query = "SELECT status FROM public.things t JOIN dataops.jobs j ON j.resource_id = t.id WHERE j.id = :id"
            return str(session.execute(text(query), {"id": job_id}).scalar_one())

    def events(self, job_id: uuid.UUID) -> list[JobEventRow]:
        with self.resources.db.transaction() as session:
            return list(service.list_events(session, job_id, 0, 10_000))

    def lease_runs_out(self, job_id: uuid.UUID) -> None:
        """As if the lease's time had passed since its worker was last heard of."""
        with self.resources.db.transaction() as session:
            query = "UPDATE dataops.jobs SET lease_expires_at = clock_timestamp() - interval '1 s' WHERE id = :id"
            session.execute(text(query), {"id": job_id})

    def take_over(self, job_id: uuid.UUID) -> JobRow:
        """What another worker does once the lease has run out, until the job has ended."""
        self.lease_runs_out(job_id)
        return self.run_until_end(job_id)

    def run_until_end(self, job_id: uuid.UUID, seconds: float = 60) -> JobRow:
        """Look for jobs, as a worker does, until this one has ended."""
        runner = self.runner("survivor")

        def ended() -> bool:
            runner.run_next()
            return self.job(job_id).state in FINISHED

        wait_until(ended, seconds, lambda: self.describe(job_id))
        return self.job(job_id)

    def effects(self, job_id: uuid.UUID) -> int:
        with self.resources.platform.connect("test") as connection:
            row = connection.execute("SELECT count(*) FROM public.effects WHERE job_id = %s", (job_id,)).fetchone()
        assert row is not None
        return int(row[0])

    def runner(self, owner: str = "test") -> Runner:
        return Runner(self.resources, self.handlers, owner)

    def wait_for_end(self, job_id: uuid.UUID, seconds: float = 50) -> JobRow:
        wait_until(lambda: self.job(job_id).state in FINISHED, seconds, lambda: self.describe(job_id))
        return self.job(job_id)

    def wait_for_stage(self, job_id: uuid.UUID, stage: str, seconds: float = 50) -> None:
        wait_until(lambda: self.job(job_id).stage == stage, seconds, lambda: self.describe(job_id))

    def describe(self, job_id: uuid.UUID) -> str:
        return "\n".join(f"{event.sequence} {event.kind} {event.payload}" for event in self.events(job_id))


def wait_until(condition: Callable[[], bool], seconds: float, describe: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come true in {seconds} s: {describe()}"
        time.sleep(0.05)


@contextmanager
def open_bench(settings: Settings, handlers: Handlers | None = None) -> Iterator[Bench]:
    resources = open_resources(settings, name="dataops: test", pool_size=4)
    try:
        yield Bench(resources, kinds() if handlers is None else handlers)
    finally:
        resources.close()
