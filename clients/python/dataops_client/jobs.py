"""Jobs for a program: look, follow, stop, try again. Part of `DataOps`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence

from dataops.v1 import jobs_pb2, jobs_pb2_grpc

from dataops_client.errors import typed_errors
from dataops_client.watch import wait_for_job, watch_job

OnEvent = Callable[[jobs_pb2.JobEvent], None]
"""Told each event of a job as it happens."""


def no_event(_event: jobs_pb2.JobEvent) -> None:
    """Events that nobody looks at."""


class JobCalls:
    """The calls that are about jobs."""

    jobs: jobs_pb2_grpc.JobServiceStub

    def get_job(self, job_id: str) -> jobs_pb2.Job:
        """One job as it stands."""
        with typed_errors():
            return self.jobs.GetJob(jobs_pb2.GetJobRequest(job_id=job_id)).job

    def list_jobs(
        self,
        *,
        states: Sequence[jobs_pb2.JobState.ValueType] = (),
        kinds: Sequence[jobs_pb2.JobKind.ValueType] = (),
        resource: str = "",
        limit: int = 50,
    ) -> list[jobs_pb2.Job]:
        """The newest jobs, at most `limit` and at most 1,000; `resource` is written `imports/<id>`."""
        request = jobs_pb2.ListJobsRequest(states=states, kinds=kinds, resource=resource, page_size=limit)
        with typed_errors():
            return list(self.jobs.ListJobs(request).jobs)

    def watch(self, job_id: str, after_sequence: int = 0) -> Iterator[jobs_pb2.JobEvent]:
        """A job's events as they happen, over any number of broken connections; see `watch.watch_job`."""
        return watch_job(self.jobs, job_id, after_sequence)

    def wait(self, job_id: str, *, on_event: OnEvent = no_event) -> jobs_pb2.Job:
        """Wait until a job is COMPLETED; JobFailed if it ends otherwise."""
        return wait_for_job(self.jobs, job_id, on_event)

    def wait_until_begun(self, job_id: str, *, on_event: OnEvent = no_event) -> None:
        """Wait until a job is no longer PENDING, whatever it is then."""
        for event in self.watch(job_id):
            on_event(event)
            kind = event.WhichOneof("event")
            state = event.state_change.new_state if kind == "state_change" else event.snapshot.state
            waits = kind in ("state_change", "snapshot") and state == jobs_pb2.JOB_STATE_PENDING
            if not (waits or kind == "notice"):
                return

    def cancel_job(self, job_id: str, reason: str = "") -> jobs_pb2.Job:
        """Ask a job to stop."""
        with typed_errors():
            return self.jobs.CancelJob(jobs_pb2.CancelJobRequest(job_id=job_id, reason=reason)).job

    def retry_job(self, job_id: str, reason: str = "") -> jobs_pb2.Job:
        """Put a failed job back to PENDING."""
        request = jobs_pb2.RetryJobRequest(request_id=str(uuid.uuid4()), job_id=job_id, reason=reason)
        with typed_errors():
            return self.jobs.RetryJob(request).job
