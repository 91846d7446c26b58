"""A job's events written straight into the control schema, as the job engine writes them, for tests of the feed."""

from __future__ import annotations

import uuid
from types import TracebackType
from typing import Self

import psycopg
from psycopg.types.json import Jsonb

from engine.clock import utc_now
from engine.db.database import Database
from engine.db.models import JobRow
from engine.ids import new_id


class Journal:
    """Writes jobs and events; each event commits with its sequence, as the engine's do."""

    def __init__(self, dsn: str) -> None:
        self._database = Database(dsn, pool_size=1)
        self._connection = psycopg.connect(dsn, autocommit=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._connection.close()
        self._database.close()

    def job(self, state: str = "RUNNING", events: int = 0) -> uuid.UUID:
        job_id = new_id()
        now = utc_now()
        row = JobRow(id=job_id, kind="EXPORT", state=state, resource_type="exports", resource_id=new_id())
        row.principal_id, row.run_at, row.created_at, row.last_sequence = new_id(), now, now, events
        with self._database.transaction() as session:
            session.add(row)
        self._connection.execute(
            "INSERT INTO dataops.job_events SELECT %s, n, now(), 'PROGRESS', jsonb_build_object('rows_done', n)"
            " FROM generate_series(1, %s) n",
            (job_id, events),
        )
        return job_id

    def event(self, job_id: uuid.UUID, kind: str = "PROGRESS", state: str | None = None, **payload: object) -> int:
        with self._connection.transaction():
            row = self._connection.execute(
                "UPDATE dataops.jobs SET last_sequence = last_sequence + 1, state = coalesce(%s, state)"
                " WHERE id = %s RETURNING last_sequence",
                (state, job_id),
            ).fetchone()
            assert row is not None
            self._connection.execute(
                "INSERT INTO dataops.job_events VALUES (%s, %s, now(), %s, %s)", (job_id, row[0], kind, Jsonb(payload))
            )
        return int(row[0])

    def end(self, job_id: uuid.UUID, state: str = "COMPLETED") -> int:
        return self.event(job_id, "STATE", state, old_state="RUNNING", new_state=state, attempt=1)

    def thin(self, job_id: uuid.UUID, first: int, last: int) -> None:
        """What the engine does at a job's end: a SNAPSHOT event in the last one's place stands for all of them."""
        self.lose(job_id, first, last)
        self._connection.execute(
            "INSERT INTO dataops.job_events VALUES (%s, %s, now(), 'SNAPSHOT', %s)",
            (job_id, last, Jsonb({"state": "RUNNING", "stage": "", "attempt": 1, "progress": {}})),
        )

    def lose(self, job_id: uuid.UUID, first: int, last: int) -> None:
        """What retention does: nothing is left."""
        self._connection.execute(
            "DELETE FROM dataops.job_events WHERE job_id = %s AND sequence BETWEEN %s AND %s", (job_id, first, last)
        )
