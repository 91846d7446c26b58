"""JobService over a real channel: looking, listing, watching, cancelling, trying again."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from dataops.v1 import jobs_pb2, jobs_pb2_grpc
from sqlalchemy import select

from engine.db.models import AuditEventRow, JobRow
from engine.jobs import states
from engine.jobs.calls import Jobs
from engine.jobs.model import Claim, ClaimMode, JobKind, JobState
from engine.jobs.service import create_job
from server.feed import Feed
from server.feed_store import FeedStore
from server.services.jobs import JobService, WatchRendering
from server.standing import Standings
from tests.server.journal import Journal
from tests.server.rpc import Edge, error_info, retry_seconds

NOBODY = (("subject", "nobody"),)


class Quiet:
    """A kind of job that does nothing and minds nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


@pytest.fixture
def edge(control_dsn: str, tmp_path) -> Iterator[Edge]:
    edge = Edge(control_dsn, tmp_path)
    yield edge
    edge.close()


@pytest.fixture
def journal(control_dsn: str) -> Iterator[Journal]:
    with Journal(control_dsn) as journal:
        yield journal


@pytest.fixture
async def stub(edge: Edge, control_dsn: str) -> AsyncIterator[jobs_pb2_grpc.JobServiceAsyncStub]:
    resources = edge.resources
    kinds = ("EXPORT", "RESTORE_PLAN", "RESTORE")
    jobs = Jobs(resources.db, resources.bell, resources.clock, dict.fromkeys(kinds, Quiet()))
    rendering = WatchRendering(jobs, edge.offload, resources.clock)
    feed = Feed(FeedStore(control_dsn), rendering, edge.drain, heartbeat_seconds=0.2)
    standings = Standings(resources.db, edge.offload, resources.clock, jobs.entities, every=0.2)
    service = JobService(jobs, feed, edge.offload, standings)
    async with (
        edge.serving((jobs_pb2_grpc.add_JobServiceServicer_to_server, service)) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield jobs_pb2_grpc.JobServiceStub(channel)
    await feed.close()


def job(edge: Edge, *entities: str, resource: uuid.UUID | None = None, kind: str = "EXPORT") -> uuid.UUID:
    """A pending job that reads these entities."""
    with edge.db.transaction() as session:
        return create_job(
            session,
            kind=JobKind(kind),
            resource_type="exports" if kind == "EXPORT" else "restores",
            resource_id=resource or uuid.uuid4(),
            claims=[Claim(entity, ClaimMode.EXCLUSIVE) for entity in entities],
            caller=edge.caller(),
            intent_id=None,
            now=edge.resources.clock(),
        ).id


def fail(edge: Edge, job_id: uuid.UUID, *, retryable: bool) -> None:
    with edge.db.transaction() as session:
        row, now = session.get_one(JobRow, job_id), edge.resources.clock()
        states.change(session, row, JobState.RUNNING, now)
        states.change(session, row, JobState.FAILED, now)
        row.error = {"reason": "BROKEN", "message": "it broke", "metadata": {}, "retryable": retryable}


def audited(edge: Edge, operation: str) -> list[str]:
    with edge.db.transaction() as session:
        found = select(AuditEventRow.kind).where(AuditEventRow.operation == operation)
        return list(session.scalars(found.order_by(AuditEventRow.sequence)))


async def refusal(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), error_info(caught.value).reason


async def test_a_job_is_shown_with_what_it_waits_for(stub, edge):
    first, second = job(edge, "users"), job(edge, "users", "points")
    shown = (await stub.GetJob(jobs_pb2.GetJobRequest(job_id=str(second)))).job

    assert (shown.kind, shown.state) == (jobs_pb2.JOB_KIND_EXPORT, jobs_pb2.JOB_STATE_PENDING)
    assert list(shown.blocked_by) == [str(first)]
    assert sorted(shown.entity_types) == ["points", "users"]
    assert shown.resource.startswith("exports/")
    assert shown.context.principal.subject == "admin"
    assert not shown.HasField("error")
    assert not shown.HasField("progress")


async def test_jobs_are_listed_newest_first_by_state_and_resource(stub, edge):
    resource = uuid.uuid4()
    made = [str(job(edge, "users", resource=resource if number == 2 else None)) for number in range(5)]
    listed, token = [], ""
    while True:
        page = await stub.ListJobs(jobs_pb2.ListJobsRequest(page_size=2, page_token=token))
        listed += [shown.job_id for shown in page.jobs]
        if not (token := page.next_page_token):
            break

    assert listed == made[::-1]
    found = await stub.ListJobs(jobs_pb2.ListJobsRequest(resource=f"exports/{resource}"))
    assert [shown.job_id for shown in found.jobs] == [made[2]]
    none = await stub.ListJobs(jobs_pb2.ListJobsRequest(states=[jobs_pb2.JOB_STATE_FAILED]))
    assert not none.jobs
    wrong = stub.ListJobs(jobs_pb2.ListJobsRequest(resource="nonsense"))
    assert await refusal(wrong) == (grpc.StatusCode.INVALID_ARGUMENT, "RESOURCE_INVALID")


async def test_a_page_token_of_another_filter_is_refused(stub, edge):
    for _ in range(3):
        job(edge, "users")
    page = await stub.ListJobs(jobs_pb2.ListJobsRequest(page_size=1))
    other = jobs_pb2.ListJobsRequest(page_size=1, page_token=page.next_page_token, kinds=[jobs_pb2.JOB_KIND_EXPORT])

    assert (await refusal(stub.ListJobs(other)))[1] == "PAGE_TOKEN_INVALID"


async def test_events_are_listed_by_pages_in_their_order(stub, journal):
    job_id = str(journal.job(events=7))
    listed, token = [], ""
    while True:
        request = jobs_pb2.ListJobEventsRequest(job_id=job_id, after_sequence=2, page_size=2, page_token=token)
        page = await stub.ListJobEvents(request)
        listed += [event.sequence for event in page.events]
        if not (token := page.next_page_token):
            break

    assert listed == [3, 4, 5, 6, 7]


async def test_jobs_of_an_entity_are_seen_by_those_who_may_read_it(stub, edge):
    edge.grant("pete", "jobs.read:points")
    pete = (("subject", "pete"),)
    mine, other, both = job(edge, "points"), job(edge, "users"), job(edge, "points", "users")

    for hidden in map(str, (other, both)):
        watched = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=hidden), metadata=pete).read()
        shown = stub.GetJob(jobs_pb2.GetJobRequest(job_id=hidden), metadata=pete)
        events = stub.ListJobEvents(jobs_pb2.ListJobEventsRequest(job_id=hidden), metadata=pete)
        for call in (shown, events, watched):
            assert await refusal(call) == (grpc.StatusCode.NOT_FOUND, "JOB_UNKNOWN")

    assert (await stub.GetJob(jobs_pb2.GetJobRequest(job_id=str(mine)), metadata=pete)).job.job_id == str(mine)
    watch = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=str(mine)), metadata=pete)
    assert (await watch.read()).event.job_id == str(mine)
    watch.cancel()
    listed = await stub.ListJobs(jobs_pb2.ListJobsRequest(), metadata=pete)
    assert [found.job_id for found in listed.jobs] == [str(mine)]
    assert len((await stub.ListJobs(jobs_pb2.ListJobsRequest())).jobs) == 3


async def test_every_kind_of_event_reaches_a_watcher_as_what_it_is(stub, journal):
    job_id = journal.job()
    journal.event(job_id, "STATE", old_state="PENDING", new_state="RUNNING", attempt=1)
    journal.event(job_id, "STAGE", old_stage="", new_stage="copy")
    journal.event(job_id, "PROGRESS", stage="copy", rows_done=5, rows_estimated=10, rows_per_second=2.5, eta_seconds=2)
    journal.event(job_id, "NOTICE", code="LOOK", message="at this", severity="WARNING", metadata={"rows": 3})
    error = {"reason": "BROKEN", "message": "it broke", "metadata": {"a": "b"}, "retryable": True}
    journal.event(job_id, "STATE", "FAILED", old_state="RUNNING", new_state="FAILED", attempt=1, error=error)
    request = jobs_pb2.WatchJobRequest(job_id=str(job_id))
    events = [answer.event async for answer in stub.WatchJob(request)]

    assert [event.sequence for event in events] == [1, 2, 3, 4, 5]
    assert {event.job_id for event in events} == {str(job_id)}
    began, stage, progress, notice, ended = events
    assert began.state_change.new_state == jobs_pb2.JOB_STATE_RUNNING
    assert stage.stage_change.new_stage == "copy"
    assert (progress.progress.rows_done, progress.progress.rows_estimated) == (5, 10)
    assert progress.progress.eta.seconds == 2
    assert not progress.progress.HasField("bytes_estimated")
    assert (notice.notice.code, notice.notice.metadata["rows"]) == ("LOOK", "3")
    assert (ended.state_change.error.reason, ended.state_change.error.retryable) == ("BROKEN", True)


async def test_a_thinned_history_is_shown_as_a_snapshot(stub, journal):
    job_id = journal.job(events=9)
    journal.thin(job_id, 2, 8)
    journal.end(job_id)
    watched = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=str(job_id), after_sequence=4))
    snapshot, *rest = [answer.event async for answer in watched]

    assert (snapshot.sequence, snapshot.snapshot.state) == (8, jobs_pb2.JOB_STATE_RUNNING)
    assert (snapshot.snapshot.job_id, snapshot.snapshot.last_sequence) == (str(job_id), 8)
    assert [event.sequence for event in rest] == [9, 10]


async def test_events_that_are_gone_altogether_are_a_snapshot_of_the_job_now(stub, journal):
    job_id = journal.job(events=3)
    journal.end(job_id)
    journal.lose(job_id, 1, 4)
    (only,) = [answer.event async for answer in stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=str(job_id)))]

    assert (only.sequence, only.snapshot.state) == (4, jobs_pb2.JOB_STATE_COMPLETED)


async def test_an_idle_watch_beats_with_the_place_to_resume_from(stub, journal):
    job_id = journal.job(events=2)
    call = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=str(job_id), after_sequence=2))
    beat = (await call.read()).event
    call.cancel()

    assert (beat.sequence, beat.heartbeat.last_sequence) == (0, 2)


async def test_a_watch_of_nothing_is_refused(stub, journal):
    unknown = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=str(uuid.uuid4())))
    assert await refusal(unknown.read()) == (grpc.StatusCode.NOT_FOUND, "JOB_UNKNOWN")
    ahead = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=str(journal.job(events=2)), after_sequence=3))
    assert await refusal(ahead.read()) == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_UNKNOWN")


async def test_a_drain_ends_a_watch_with_the_time_to_come_back(stub, edge, journal):
    call = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=str(journal.job(events=1))))
    await call.read()
    edge.drain.begin()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while await asyncio.wait_for(call.read(), 10):
            pass
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert retry_seconds(caught.value)


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("kept", [(), ("jobs.read:points",), ("exports.read",)])
async def test_a_watch_ends_soon_after_the_right_to_it(stub, edge, journal, kept, busy):
    edge.grant("gina", "jobs.read")
    job_id = job(edge, "users")
    call = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=str(job_id)), metadata=(("subject", "gina"),))
    await call.read()
    await asyncio.to_thread(edge.regrant, "gina", *kept)

    async def rest() -> None:
        while await call.read():
            if busy:  # so many events that no heartbeat ever comes
                await asyncio.to_thread(journal.event, job_id)

    assert await refusal(asyncio.wait_for(rest(), 60)) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")


async def test_a_watch_goes_on_for_who_may_no_longer_read_all_but_still_these_entities(stub, edge):
    edge.grant("hugo", "jobs.read")
    job_id = job(edge, "users")
    call = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=str(job_id)), metadata=(("subject", "hugo"),))
    await call.read()
    await asyncio.to_thread(edge.regrant, "hugo", "jobs.read:users")

    for _ in range(4):
        assert (await call.read()).event.HasField("heartbeat")
    call.cancel()


async def test_cancelling_is_idempotent_audited_once_and_lets_the_next_go_on(stub, edge):
    first, second = job(edge, "users"), job(edge, "users")
    for _ in range(2):
        answer = await stub.CancelJob(jobs_pb2.CancelJobRequest(job_id=str(first), reason="enough"))
        assert answer.job.state == jobs_pb2.JOB_STATE_CANCELLED

    shown = (await stub.GetJob(jobs_pb2.GetJobRequest(job_id=str(second)))).job
    assert not shown.blocked_by
    assert await asyncio.to_thread(audited, edge, "jobs.cancel") == ["INTENT", "OUTCOME"]


async def test_a_failed_job_is_tried_again_once_per_request(stub, edge):
    job_id = job(edge, "users")
    fail(edge, job_id, retryable=True)
    request = jobs_pb2.RetryJobRequest(job_id=str(job_id), request_id=str(uuid.uuid4()))

    assert (await stub.RetryJob(request)).job.state == jobs_pb2.JOB_STATE_PENDING
    fail(edge, job_id, retryable=True)
    assert (await stub.RetryJob(request)).job.state == jobs_pb2.JOB_STATE_FAILED, "the same request again does nothing"
    request.reason = "another body"
    assert (await refusal(stub.RetryJob(request)))[1] == "REQUEST_ID_REUSED"


async def test_a_job_whose_error_stays_is_not_tried_again(stub, edge):
    job_id = job(edge, "users")
    fail(edge, job_id, retryable=False)
    request = jobs_pb2.RetryJobRequest(job_id=str(job_id), request_id=str(uuid.uuid4()))

    assert await refusal(stub.RetryJob(request)) == (grpc.StatusCode.FAILED_PRECONDITION, "JOB_NOT_RETRYABLE")


@pytest.mark.parametrize("kind", ["RESTORE_PLAN", "RESTORE"])
async def test_a_restores_job_is_tried_again_only_by_who_may_restore(stub, edge, kind):
    """An admin has every right on jobs, and none on restores."""
    edge.grant("alex", "jobs.*", "backups.*", "restores.read")
    edge.grant("ruth", "jobs.read", "jobs.retry", "restores.create")
    job_id = job(edge, "users", kind=kind)
    fail(edge, job_id, retryable=True)

    def retry(subject: str):
        request = jobs_pb2.RetryJobRequest(job_id=str(job_id), request_id=str(uuid.uuid4()))
        return stub.RetryJob(request, metadata=(("subject", subject),))

    assert await refusal(retry("alex")) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
    edge.grant("olga", "jobs.retry:points", "jobs.read:points", "restores.create")
    assert await refusal(retry("olga")) == (grpc.StatusCode.NOT_FOUND, "JOB_UNKNOWN")
    assert (await retry("ruth")).job.state == jobs_pb2.JOB_STATE_PENDING


async def test_a_restores_job_is_stopped_only_by_who_may_stop_restores(stub, edge):
    edge.grant("alex", "jobs.*", "backups.*", "restores.read")
    edge.grant("ruth", "jobs.read", "jobs.cancel", "restores.cancel")
    request = jobs_pb2.CancelJobRequest(job_id=str(job(edge, "users", kind="RESTORE_PLAN")))

    refused = await refusal(stub.CancelJob(request, metadata=(("subject", "alex"),)))

    assert refused == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
    answer = await stub.CancelJob(request, metadata=(("subject", "ruth"),))
    assert answer.job.state == jobs_pb2.JOB_STATE_CANCELLED


async def test_a_restores_job_is_seen_by_who_may_see_its_entities_jobs(stub, edge):
    edge.grant("carol", "jobs.read:users")
    own, other = str(job(edge, "users", kind="RESTORE")), str(job(edge, "users", "points", kind="RESTORE"))
    carol = (("subject", "carol"),)

    listed = await stub.ListJobs(jobs_pb2.ListJobsRequest(kinds=[jobs_pb2.JOB_KIND_RESTORE]), metadata=carol)
    assert [shown.job_id for shown in listed.jobs] == [own]
    hidden = stub.GetJob(jobs_pb2.GetJobRequest(job_id=other), metadata=carol)
    assert await refusal(hidden) == (grpc.StatusCode.NOT_FOUND, "JOB_UNKNOWN")


async def test_a_caller_without_a_role_sees_and_stops_nothing(stub, edge, journal):
    job_id = str(job(edge, "users"))
    for call in (
        stub.GetJob(jobs_pb2.GetJobRequest(job_id=job_id), metadata=NOBODY),
        stub.CancelJob(jobs_pb2.CancelJobRequest(job_id=job_id), metadata=NOBODY),
        stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id), metadata=NOBODY).read(),
    ):
        assert await refusal(call) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")


async def test_a_role_for_one_entity_stops_no_job_on_another(stub, edge):
    edge.grant("carol", "jobs.read", "jobs.cancel:points")
    users, points = str(job(edge, "users")), str(job(edge, "points"))
    carol = (("subject", "carol"),)

    refused = stub.CancelJob(jobs_pb2.CancelJobRequest(job_id=users), metadata=carol)
    assert await refusal(refused) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
    answer = await stub.CancelJob(jobs_pb2.CancelJobRequest(job_id=points), metadata=carol)
    assert answer.job.state == jobs_pb2.JOB_STATE_CANCELLED


async def test_a_job_that_may_not_be_seen_is_unknown_to_who_would_stop_or_retry_it(stub, edge):
    edge.grant("dora", "jobs.read:points", "jobs.cancel:points", "jobs.retry:points")
    hidden, dora = str(job(edge, "users", "points")), (("subject", "dora"),)
    again = jobs_pb2.RetryJobRequest(job_id=hidden, request_id=str(uuid.uuid4()))

    for call in (
        stub.CancelJob(jobs_pb2.CancelJobRequest(job_id=hidden), metadata=dora),
        stub.RetryJob(again, metadata=dora),
    ):
        assert await refusal(call) == (grpc.StatusCode.NOT_FOUND, "JOB_UNKNOWN")


async def test_a_repeated_retry_is_answered_only_while_it_is_permitted(stub, edge):
    edge.grant("emil", "jobs.read", "jobs.retry")
    job_id, emil = job(edge, "users"), (("subject", "emil"),)
    fail(edge, job_id, retryable=True)
    request = jobs_pb2.RetryJobRequest(job_id=str(job_id), request_id=str(uuid.uuid4()))
    await stub.RetryJob(request, metadata=emil)
    edge.regrant("emil", "jobs.read", "jobs.retry:points")

    assert (await refusal(stub.RetryJob(request, metadata=emil)))[1] == "PERMISSION_MISSING"


async def test_listing_leaves_out_what_may_not_be_seen_before_it_cuts_pages(stub, edge):
    edge.grant("fred", "jobs.read:points", "jobs.cancel:users")
    fred, mine = (("subject", "fred"),), []
    for _ in range(4):
        mine.append(str(job(edge, "points")))
        job(edge, "users")
    pages, token = list[list[str]](), ""
    while not pages or token:
        request = jobs_pb2.ListJobsRequest(page_size=2, page_token=token)
        page = await stub.ListJobs(request, metadata=fred)
        pages.append([found.job_id for found in page.jobs])
        token = page.next_page_token

    assert pages == [mine[:1:-1], mine[1::-1]]
