"""Sweeping: nothing that counts is taken, and everything else goes."""

from __future__ import annotations

from datetime import timedelta
from threading import Thread
from uuid import UUID

import pytest

from engine.artifacts import SweepResult
from engine.clock import utc_now
from engine.db.models import ArtifactRow, JobRow
from engine.errors import FailedPrecondition, NotFound, Unavailable
from engine.ids import new_id
from tests.engine.artifacts.conftest import Bench


def job(bench: Bench, state: str) -> UUID:
    now = utc_now()
    row = JobRow(id=new_id(), kind="TEST", state=state, resource_type="test", resource_id=new_id())
    row.principal_id, row.run_at, row.created_at, row.context, row.progress = new_id(), now, now, {}, {}
    with bench.db.transaction() as session:
        session.add(row)
    return row.id


def exists(bench: Bench, artifact_id: UUID) -> bool:
    with bench.db.transaction() as session:
        return session.get(ArtifactRow, artifact_id) is not None


def test_an_idle_sweep_takes_nothing(bench: Bench) -> None:
    artifact_id = bench.written(b"keep")

    assert bench.artifacts.sweep() == SweepResult()
    assert b"".join(bench.artifacts.reader(artifact_id).read()) == b"keep"


def test_discarded_artifacts_go_with_their_bytes(bench: Bench) -> None:
    going, staying = bench.written(b"going"), bench.written(b"staying")
    with bench.db.transaction() as session:
        bench.artifacts.discard(session, going)
        bench.artifacts.discard(session, new_id())  # one that never was is no error

    assert bench.artifacts.sweep() == SweepResult(artifacts=1, objects=1)
    assert not exists(bench, going)
    assert b"".join(bench.artifacts.reader(staying).read()) == b"staying"
    assert len(bench.names()) == 1


def test_purge_takes_only_what_was_discarded(bench: Bench) -> None:
    artifact_id = bench.written(b"keep")
    bench.artifacts.purge(artifact_id)

    assert b"".join(bench.artifacts.reader(artifact_id).read()) == b"keep"


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "CANCEL_REQUESTED"])
def test_what_a_live_job_owns_stays(bench: Bench, state: str) -> None:
    artifact_id = bench.written(b"x", owner_type="job", owner_id=job(bench, state))

    assert bench.artifacts.sweep() == SweepResult()
    assert exists(bench, artifact_id)


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED", None])
def test_what_an_ended_job_still_owns_goes_open_or_closed(bench: Bench, state: str | None) -> None:
    owner = new_id() if state is None else job(bench, state)
    bench.written(b"x", owner_type="job", owner_id=owner)
    opened = bench.create("job", owner)
    with bench.artifacts.writer(opened) as writer:
        writer.write_part(b"remains")

    assert bench.artifacts.sweep() == SweepResult(of_ended_jobs=2, artifacts=2, objects=2)
    assert bench.names() == []


def test_what_a_resource_adopted_outlives_the_job(bench: Bench) -> None:
    artifact_id = bench.written(b"x", owner_type="job", owner_id=job(bench, "COMPLETED"))
    expires_at = utc_now() + timedelta(days=7)
    with bench.db.transaction() as session:
        bench.artifacts.adopt(session, artifact_id, "export", new_id(), expires_at)

    assert bench.artifacts.sweep() == SweepResult()
    assert bench.artifacts.reader(artifact_id).artifact.expires_at == expires_at


def test_an_incomplete_artifact_cannot_be_adopted(bench: Bench) -> None:
    artifact_id = bench.create("job")
    with pytest.raises(FailedPrecondition, match="ARTIFACT_NOT_CLOSED"), bench.db.transaction() as session:
        bench.artifacts.adopt(session, artifact_id, "export", new_id(), None)
    with pytest.raises(NotFound, match="ARTIFACT_GONE"), bench.db.transaction() as session:
        bench.artifacts.adopt(session, new_id(), "export", new_id(), None)


def test_objects_without_a_row_go_only_after_an_hour(bench: Bench) -> None:
    artifact_id = bench.written(b"keep")
    bench.memory.put("parts/ab/orphan", b"x")
    bench.memory.put("keys/other", b"x")

    bench.clock.ahead = timedelta(minutes=59)
    assert bench.artifacts.sweep() == SweepResult()
    bench.clock.ahead = timedelta(minutes=61)
    assert bench.artifacts.sweep() == SweepResult(orphans=1)
    assert "parts/ab/orphan" not in bench.names()
    assert "keys/other" in bench.names()
    assert b"".join(bench.artifacts.reader(artifact_id).read()) == b"keep"


def test_a_part_that_is_being_written_survives_the_sweep(bench: Bench) -> None:
    artifact_id = bench.create()
    during: list[SweepResult] = []

    def sweep(_session, _part) -> None:
        # On another thread: the object is stored and its row is not committed yet.
        assert len(bench.names()) == 1
        thread = Thread(target=lambda: during.append(bench.artifacts.sweep()))
        thread.start()
        thread.join(60)

    with bench.artifacts.writer(artifact_id, sweep) as writer:
        writer.write(b"being written")
        writer.close()

    assert during == [SweepResult()]
    assert b"".join(bench.artifacts.reader(artifact_id).read()) == b"being written"


def test_a_sweep_that_failed_half_way_is_finished_by_the_next(bench: Bench) -> None:
    artifact_id = bench.written(b"x")
    with bench.db.transaction() as session:
        bench.artifacts.discard(session, artifact_id)
    bench.failing.failing = {"delete"}
    with pytest.raises(Unavailable):
        bench.artifacts.sweep()
    bench.failing.failing = set()

    assert exists(bench, artifact_id)
    assert bench.artifacts.sweep() == SweepResult(artifacts=1, objects=1)
    assert bench.names() == []
