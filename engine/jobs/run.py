"""One attempt of one job, as its handler sees it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import structlog
from sqlalchemy import update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from engine.db.models import JobEventRow, JobRow
from engine.db.platform import Connection
from engine.faults import fault
from engine.jobs import fence as fencing
from engine.jobs.fence import Mark
from engine.jobs.heartbeat import Heartbeat
from engine.jobs.interrupts import JobCancelled, JobInterrupt, LeaseLost
from engine.jobs.lease import Held
from engine.jobs.model import ACTIVE, EventKind, JobState, Severity
from engine.jobs.progress import Meter
from engine.memory import give_back

if TYPE_CHECKING:
    from engine.resources import Resources

log = structlog.get_logger(__name__)


class JobRun:
    """What a handler's `run` gets. All methods belong to the job's own thread.

    An effect in the platform database goes like this, and `commit` decides every doubt about it:

        found = run.take_over()                      # first of all: raises the fence, ends an older attempt
        if found is None:
            with run.platform("apply") as connection:
                run.announce(connection)             # step 1, outside a transaction
                run.hold(connection)                 # step 2, first statement of the effect's transaction
                ...
                run.mark(connection, facts)          # step 3, last statement
                run.commit(connection)
    """

    def __init__(self, job: JobRow, held: Held, resources: Resources, heartbeat: Heartbeat) -> None:
        self.job = job
        self.resources = resources
        self.fence = held.fence
        self._held = held
        self._heartbeat = heartbeat
        self._meter: Meter | None = None
        self._effect_stands = False

    # -- being interrupted

    def check(self) -> None:
        """Raise what should end this attempt, if anything: JobCancelled, LeaseLost or WorkerStopping.

        Call it at least every second; `progress` does. A cancel is no longer heard once the effect is committed.
        """
        interrupt = self._heartbeat.interrupt
        if interrupt is None or (self._effect_stands and isinstance(interrupt, JobCancelled)):
            return
        raise interrupt

    def require_hold(self, session: Session) -> None:
        """Within a control transaction: go on only as the job's present holder, until it commits.

        For what an attempt writes on its resource before the end; an attempt that was taken over must not.

        Raises:
            LeaseLost: somebody else holds the job, or it has ended.
        """
        if session.execute(self._if_held().values(stage=JobRow.stage).returning(JobRow.id)).first() is None:
            raise LeaseLost

    # -- telling

    def stage(self, name: str, *, rows: int | None = None, bytes: int | None = None) -> None:  # noqa: A002
        """Enter a stage; `rows` and `bytes` are what it will have to do, where that is known."""
        self.check()
        self._flush_progress()
        give_back()
        old, self.job.stage = self.job.stage, name
        self._meter = Meter(name, rows, bytes, time.monotonic())
        self._tell(EventKind.STAGE, {"old_stage": old, "new_stage": name}, stage=name, progress={})

    def progress(self, *, rows: int | None = None, bytes: int | None = None) -> None:  # noqa: A002
        """What is done in the stage so far, absolute: at most four events a second become of it. Raises interrupts."""
        self.check()
        if self._meter is None:
            self._meter = Meter(self.job.stage, None, None, time.monotonic())
        if self._meter.update(rows, bytes, time.monotonic()):
            self._tell_progress(self._meter)

    def notice(self, code: str, message: str, *, severity: Severity = Severity.INFO, **metadata: str) -> None:
        """Tell something worth knowing that is no error. No secret, no row value."""
        payload = {"code": code, "message": message, "severity": severity, "metadata": metadata}
        self._tell(EventKind.NOTICE, payload)

    def finish_progress(self) -> None:
        """Tell what was counted but not told yet; the engine calls it before the job ends."""
        self._flush_progress()

    def _flush_progress(self) -> None:
        if self._meter is not None and self._meter.pending:
            self._tell_progress(self._meter)

    def _tell_progress(self, meter: Meter) -> None:
        payload = meter.tell(time.monotonic())
        self.job.progress = payload
        try:
            self._tell(EventKind.PROGRESS, payload, progress=payload)
        except (DBAPIError, PoolTimeout) as error:
            # Progress is not worth an attempt; if the control database stays away, the lease will say so.
            log.warning("progress_not_told", job_id=str(self.job.id), error=type(error).__name__)

    def _tell(self, kind: EventKind, payload: dict[str, Any], **columns: Any) -> None:
        """One event in a transaction of its own; refused, by the hold, to an attempt that is no longer the job's."""
        now = self.resources.clock()
        with self.resources.db.transaction() as session:
            found = session.execute(
                self._if_held()
                .values(last_sequence=JobRow.last_sequence + 1, **columns)
                .returning(JobRow.last_sequence, JobRow.state)
            ).first()
            if found is None:
                raise LeaseLost
            sequence, state = found
            session.add(JobEventRow(job_id=self.job.id, sequence=sequence, at=now, kind=kind, payload=payload))
        self.resources.bell.announce(self.job.id)
        if state == JobState.CANCEL_REQUESTED and not self._effect_stands:
            raise JobCancelled

    def _if_held(self) -> Any:
        return (
            update(JobRow)
            .where(
                JobRow.id == self.job.id,
                JobRow.fence == self.fence,
                JobRow.lease_owner == self._held.owner,
                JobRow.state.in_(ACTIVE),
            )
            .execution_options(synchronize_session=False)
        )

    # -- the platform database

    @contextmanager
    def platform(self, purpose: str, **settings: Any) -> Iterator[Connection]:
        """A pinned session whose statements are cancelled when the job is interrupted; closed at the end.

        Whatever error such a cancel causes comes out as the interrupt.
        """
        self.check()
        with self.resources.platform.connect(f"{purpose} {self.job.id}", **settings) as connection:
            self._heartbeat.watch(connection)
            try:
                yield connection
            except psycopg.Error:
                self.check()
                raise
            finally:
                self._heartbeat.unwatch(connection)

    def take_over(self) -> Mark | None:
        """Raise the fence to ours, end an older attempt that is still in its effect, and read the mark.

        After it nobody older can commit an effect. Makes the work schema when it is missing and we may.

        Raises:
            PlatformNotPrepared: the schema is missing, with the SQL to run.
            Unavailable: FENCE_HELD, PLATFORM_UNREACHABLE.
        """
        self._announce_in_control()
        with self.resources.platform.connect("take-over", autocommit=True) as connection:
            if fencing.ensure_work_schema(connection):
                self.notice("WORK_SCHEMA_MADE", "made schema dataops_work in the platform database")
            found = fencing.raise_fence(connection, self.job.id, self.fence)
        self._effect_stands = found is not None
        return found

    def announce(self, connection: Connection) -> None:
        """Step 1: say which backend will have the effect. `connection` must be outside a transaction."""
        self.check()
        self._announce_in_control()
        fencing.announce(connection, self.job.id, self.fence)

    def hold(self, connection: Connection) -> None:
        """Step 2, the first statement of the effect's transaction: nobody may take over without ending us."""
        fencing.hold(connection, self.job.id, self.fence)

    def mark(self, connection: Connection, facts: dict[str, Any]) -> None:
        """Step 3, the last statement of the effect's transaction; `facts` are enough to write the report from."""
        fencing.mark(connection, self.job.id, self.fence, facts)

    def commit(self, connection: Connection) -> None:
        """Commit the effect. Returns if, and only if, it stands, whatever happened to the reply.

        Raises:
            JobInterrupt, psycopg.Error: it does not stand; the reason why.
            Unavailable: not known now. The next attempt finds out by its take-over.
        """
        self.check()
        fault("effect.before_commit")
        try:
            connection.commit()
        except psycopg.Error:
            if self.read_mark() is None:
                self.check()
                raise
        self._effect_stands = True
        fault("effect.after_commit")

    def read_mark(self) -> Mark | None:
        """The mark, read behind the row's lock on a fresh session: ends our own backend if its COMMIT hangs."""
        with self.resources.platform.connect("read mark", autocommit=True) as connection:
            found = fencing.raise_fence(connection, self.job.id, self.fence)
        self._effect_stands = found is not None
        return found

    def _announce_in_control(self) -> None:
        """From here on only the mark says how this job ends. Refused to whoever lost the lease."""
        with self.resources.db.transaction() as session:
            found = session.execute(self._if_held().values(announced=True).returning(JobRow.id)).first()
        if found is None:
            raise LeaseLost
        self.job.announced = True

    @property
    def interrupt(self) -> JobInterrupt | None:
        """What should end this attempt, heard or not."""
        return self._heartbeat.interrupt
