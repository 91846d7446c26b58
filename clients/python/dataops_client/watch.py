"""Follows a job to its end over any number of broken connections: no event lost, none told twice."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator

import grpc
from dataops.v1 import jobs_pb2, jobs_pb2_grpc

from dataops_client.errors import Cancelled, JobFailed, Unavailable, from_rpc_error, typed_errors
from dataops_client.patience import DEFAULT_PATIENCE, Patience

SILENCE_SECONDS = 45.0
"""A stream that says nothing for three of the server's heartbeats is dead, whatever the connection claims."""

FINISHED = frozenset({jobs_pb2.JOB_STATE_COMPLETED, jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_CANCELLED})
"""The states a job does not leave by itself."""


def watch_job(
    jobs: jobs_pb2_grpc.JobServiceStub,
    job_id: str,
    after_sequence: int = 0,
    *,
    patience: float = DEFAULT_PATIENCE,
    silence: float = SILENCE_SECONDS,
) -> Iterator[jobs_pb2.JobEvent]:
    """The job's events after `after_sequence`, in order, until the job has ended; heartbeats are not among them.

    A connection that breaks or falls silent for `silence` seconds is made again from the last event, for up to
    `patience` seconds without an answer.

    Raises:
        DataOpsError: what the server refused, or why it could not be reached.
    """
    last = after_sequence
    waiting = Patience(patience)
    while True:
        request = jobs_pb2.WatchJobRequest(job_id=job_id, after_sequence=last)
        call = jobs.WatchJob(request)
        watchdog = _Watchdog(call, silence)
        try:
            for place, answer in enumerate(call):
                # the greeting of a server that breaks off each time after it is no progress
                if place or answer.event.sequence > last:
                    waiting.progressed()
                if answer.event.sequence > last:
                    last = answer.event.sequence
                    watchdog.rest()
                    yield answer.event
                watchdog.fed()
            if _is_over(jobs, job_id, last):
                return
            # a clean end before the job's: a server that drained without saying so
            waiting.pause_or_raise(Unavailable("the stream ended before the job", "STREAM_ENDED"))
        except grpc.RpcError as failure:
            error = from_rpc_error(failure)
            if watchdog.barked and isinstance(error, Cancelled):
                error = Unavailable(f"the stream said nothing for {silence:g} s", "STREAM_SILENT")
            waiting.pause_or_raise(error)
        finally:
            watchdog.stop()
            call.cancel()


def wait_for_job(
    jobs: jobs_pb2_grpc.JobServiceStub,
    job_id: str,
    on_event: Callable[[jobs_pb2.JobEvent], None] = lambda _event: None,
    *,
    patience: float = DEFAULT_PATIENCE,
) -> jobs_pb2.Job:
    """Watch a job to its end and return it COMPLETED.

    Raises:
        JobFailed: it ended FAILED or CANCELLED; the reason is its error's.
    """
    for event in watch_job(jobs, job_id, patience=patience):
        on_event(event)
    with typed_errors():
        job = jobs.GetJob(jobs_pb2.GetJobRequest(job_id=job_id)).job
    if job.state != jobs_pb2.JOB_STATE_COMPLETED:
        raise JobFailed.of(job)
    return job


def _is_over(jobs: jobs_pb2_grpc.JobServiceStub, job_id: str, last: int) -> bool:
    """True if the job has ended and its last event has been told."""
    job = jobs.GetJob(jobs_pb2.GetJobRequest(job_id=job_id)).job
    return job.state in FINISHED and job.last_sequence <= last


class _Watchdog:
    """Cancels a call that stays silent: a synchronous stream has no time limit for its next message."""

    def __init__(self, call: grpc.Call, silence: float) -> None:
        self._call = call
        self._silence = silence
        self._fed_at = time.monotonic()
        self._stopped = threading.Event()
        self.barked = False
        threading.Thread(target=self._watch, name="dataops-watchdog", daemon=True).start()

    def fed(self) -> None:
        self._fed_at = time.monotonic()

    def rest(self) -> None:
        """Whoever reads the events may take any time with one."""
        self._fed_at = math.inf

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self._silence / 4):
            if time.monotonic() - self._fed_at > self._silence:
                self.barked = True
                self._call.cancel()
                return
