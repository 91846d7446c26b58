"""JobService: the work behind everything, seen and steered."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from dataops.v1 import jobs_pb2, jobs_pb2_grpc

from engine.clock import Clock
from engine.db.models import JobEventRow
from engine.ids import parse_id
from engine.jobs.calls import Jobs
from server.caller import current_call, current_caller
from server.convert import jobs as convert
from server.convert.common import body_sha256, page_of, paging_of
from server.feed import Feed
from server.feed_store import JobHead, StoredEvent
from server.offload import Offload
from server.standing import Standings

Watched = jobs_pb2.WatchJobResponse


class JobService(jobs_pb2_grpc.JobServiceServicer):
    """One per server."""

    def __init__(self, jobs: Jobs, feed: Feed[Watched], offload: Offload, standings: Standings) -> None:
        self._jobs, self._feed, self._offload, self._standings = jobs, feed, offload, standings

    async def GetJob(self, request: jobs_pb2.GetJobRequest, context: Any) -> jobs_pb2.GetJobResponse:
        job_id = parse_id(request.job_id, "job_id")
        row, facts = await self._offload.call(self._jobs.get, current_caller(context), job_id)
        return jobs_pb2.GetJobResponse(job=convert.job(row, facts))

    async def ListJobs(self, request: jobs_pb2.ListJobsRequest, context: Any) -> jobs_pb2.ListJobsResponse:
        caller = current_caller(context)
        paging = paging_of(request, caller)
        page, facts = await self._offload.call(self._jobs.list, caller, convert.filter_of(request), paging)
        jobs, token = page_of(page, lambda row: convert.job(row, facts))
        return jobs_pb2.ListJobsResponse(jobs=jobs, next_page_token=token)

    async def ListJobEvents(
        self, request: jobs_pb2.ListJobEventsRequest, context: Any
    ) -> jobs_pb2.ListJobEventsResponse:
        caller, job_id = current_caller(context), parse_id(request.job_id, "job_id")
        paging = paging_of(request, caller)
        job, page = await self._offload.call(self._jobs.events, caller, job_id, request.after_sequence, paging)
        head = convert.head_of(job)

        def converted(row: JobEventRow) -> jobs_pb2.JobEvent:
            return convert.event(head, StoredEvent(row.sequence, row.at, row.kind, row.payload))

        events, token = page_of(page, converted)
        return jobs_pb2.ListJobEventsResponse(events=events, next_page_token=token)

    async def WatchJob(self, request: jobs_pb2.WatchJobRequest, context: Any) -> AsyncGenerator[Watched, None]:
        caller, job_id = current_caller(context), parse_id(request.job_id, "job_id")
        await self._offload.call(self._jobs.permit, caller, job_id)
        standing = self._standings.of(current_call(context), caller, job_id)
        async with aclosing(self._feed.watch(job_id, request.after_sequence)) as events:
            async for event in events:
                await standing.check()
                yield event

    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, context: Any) -> jobs_pb2.CancelJobResponse:
        job_id = parse_id(request.job_id, "job_id")
        row, facts = await self._offload.call(self._jobs.cancel, current_caller(context), job_id)
        return jobs_pb2.CancelJobResponse(job=convert.job(row, facts))

    async def RetryJob(self, request: jobs_pb2.RetryJobRequest, context: Any) -> jobs_pb2.RetryJobResponse:
        caller, job_id = current_caller(context), parse_id(request.job_id, "job_id")
        row, facts = await self._offload.call(
            lambda: self._jobs.retry(caller, job_id, request.request_id, body_sha256(request))
        )
        return jobs_pb2.RetryJobResponse(job=convert.job(row, facts))


class WatchRendering:
    """What the feed shows watchers: finished responses, made once and shared by all of them."""

    def __init__(self, jobs: Jobs, offload: Offload, clock: Clock) -> None:
        self._jobs, self._offload, self._clock = jobs, offload, clock

    def event(self, job: JobHead, event: StoredEvent) -> Watched:
        return Watched(event=convert.event(job, event))

    def heartbeat(self, job_id: uuid.UUID, last_sequence: int) -> Watched:
        return Watched(event=convert.heartbeat(job_id, last_sequence, self._clock()))

    async def snapshot(self, job_id: uuid.UUID, sequence: int) -> Watched:
        row, facts = await self._offload.call(self._jobs.shown, job_id)
        return Watched(event=convert.snapshot(convert.job(row, facts), sequence, self._clock()))
