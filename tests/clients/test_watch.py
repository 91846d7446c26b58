"""A job is followed to its end: every event once and in order, whatever happens to the connection."""

from __future__ import annotations

import pickle
import time

import pytest
from dataops.v1 import common_pb2, jobs_pb2
from dataops_client import DataOps
from dataops_client.channel import open_channel
from dataops_client.errors import JobFailed, NotFound, Unavailable
from dataops_client.watch import watch_job

from tests.clients.fake_server import TOKEN, FakeServer, World

JOB_ID = "0197a000-0000-7000-8000-00000000000b"


@pytest.fixture(autouse=True)
def job(world: World) -> jobs_pb2.Job:
    world.job = jobs_pb2.Job(job_id=JOB_ID, state=jobs_pb2.JOB_STATE_COMPLETED, last_sequence=9)
    world.events = [
        jobs_pb2.JobEvent(job_id=JOB_ID, sequence=n, progress=common_pb2.Progress(rows_done=n)) for n in range(1, 10)
    ]
    return world.job


def test_every_event_comes_once_and_in_order_and_heartbeats_do_not(client: DataOps):
    assert [event.sequence for event in client.watch(JOB_ID)] == list(range(1, 10))


def test_a_watch_resumes_after_a_sequence(client: DataOps):
    assert [event.sequence for event in client.watch(JOB_ID, 7)] == [8, 9]


def test_a_broken_watch_goes_on_without_gap_or_repeat(client: DataOps, world: World):
    world.break_watch_after = [2, 3, 7]

    assert [event.sequence for event in client.watch(JOB_ID)] == list(range(1, 10))
    assert world.watches == [0, 2, 3, 7]


def test_a_stream_that_falls_silent_is_made_again(client: DataOps, world: World):
    world.silent_watches = 1

    got = [event.sequence for event in watch_job(client.jobs, JOB_ID, silence=1)]

    assert got == list(range(1, 10))
    assert world.watches == [0, 0]


def test_a_slow_reader_is_not_taken_for_a_silent_stream(client: DataOps, world: World):
    reader = watch_job(client.jobs, JOB_ID, silence=1)
    got = [next(reader).sequence]
    time.sleep(2)
    got += [event.sequence for event in reader]

    assert got == list(range(1, 10))
    assert world.watches == [0]


def test_a_stream_that_ends_before_the_job_is_taken_up_until_patience_ends(client: DataOps, world: World):
    world.job.last_sequence = 10

    with pytest.raises(Unavailable, match="STREAM_ENDED"):
        list(watch_job(client.jobs, JOB_ID, patience=0.3))


def test_an_unknown_job_is_an_error_at_once(client: DataOps, world: World):
    with pytest.raises(NotFound, match="JOB_UNKNOWN"):
        list(client.watch("0197a000-0000-7000-8000-0000000000ff"))

    assert len(world.watches) == 1


def test_waiting_gives_the_completed_job_and_tells_each_event(client: DataOps):
    told: list[int] = []

    job = client.wait(JOB_ID, on_event=lambda event: told.append(event.sequence))

    assert job.state == jobs_pb2.JOB_STATE_COMPLETED
    assert told == list(range(1, 10))


def test_waiting_for_a_job_that_failed_raises_its_reason(client: DataOps, world: World):
    world.job.state = jobs_pb2.JOB_STATE_FAILED
    world.job.error.reason = "PLAN_STALE"
    world.job.error.message = "3 rows have moved since the plan"

    with pytest.raises(JobFailed) as caught:
        client.wait(JOB_ID)

    assert str(caught.value) == "PLAN_STALE: 3 rows have moved since the plan"
    assert pickle.loads(pickle.dumps(caught.value)).job == world.job


@pytest.mark.timeout(60)
def test_ctrl_c_right_when_a_watch_begins_lets_the_client_close(
    server: FakeServer, world: World, monkeypatch: pytest.MonkeyPatch
):
    """gRPC has begun the call and not yet the thread that learns of its end: its own close waits for that for ever."""
    world.stall_watch = True

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("grpc._channel._run_channel_spin_thread", interrupted)
    with pytest.raises(KeyboardInterrupt), DataOps(open_channel(server.address, ca=server.ca, token=TOKEN)) as client:
        next(iter(client.watch(JOB_ID)))
