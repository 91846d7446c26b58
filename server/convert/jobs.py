"""Jobs and their events, from rows to the wire."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dataops.v1 import common_pb2, jobs_pb2

from engine.db.models import JobRow
from engine.errors import InvalidRequest
from engine.ids import parse_id
from engine.jobs.calls import JobFacts, entity_types
from engine.jobs.service import JobFilter
from server.convert.common import call_context, duration, number_of, operation_error, texts, timestamp, word_of
from server.feed_store import JobHead, StoredEvent


def job(row: JobRow, facts: JobFacts) -> jobs_pb2.Job:
    waits = row.state == "PENDING" and row.run_at > row.created_at
    return jobs_pb2.Job(
        job_id=str(row.id),
        kind=number_of(jobs_pb2.JobKind, row.kind),
        state=number_of(jobs_pb2.JobState, row.state),
        resource=resource_name(row.resource_type, row.resource_id),
        stage=row.stage,
        progress=progress(row.progress),
        attempt=row.attempt,
        blocked_by=[str(other) for other in facts.blocked_by.get(row.id, [])],
        error=operation_error(row.error),
        created_at=timestamp(row.created_at),
        started_at=timestamp(row.started_at),
        finished_at=timestamp(row.finished_at),
        last_sequence=row.last_sequence,
        context=call_context(row.principal_id, row.context, facts.principals.get(row.principal_id)),
        run_at=timestamp(row.run_at) if waits else None,
        entity_types=entity_types(row),
    )


def progress(record: Mapping[str, Any]) -> common_pb2.Progress | None:
    """Absent before a stage has begun to count."""
    if not record:
        return None
    eta = record.get("eta_seconds")
    return common_pb2.Progress(
        stage=record.get("stage", ""),
        rows_done=record.get("rows_done", 0),
        rows_estimated=record.get("rows_estimated"),
        bytes_done=record.get("bytes_done", 0),
        bytes_estimated=record.get("bytes_estimated"),
        rows_per_second=record.get("rows_per_second", 0),
        bytes_per_second=record.get("bytes_per_second", 0),
        eta=None if eta is None else duration(eta),
    )


def notice(record: Mapping[str, Any]) -> common_pb2.Notice:
    return common_pb2.Notice(
        code=record.get("code", ""),
        message=record.get("message", ""),
        severity=number_of(common_pb2.NoticeSeverity, record.get("severity", "")),
        metadata=texts(record.get("metadata") or {}),
    )


def event(head: JobHead, stored: StoredEvent) -> jobs_pb2.JobEvent:
    """One stored event. `head` is what a snapshot repeats of its job."""
    made = jobs_pb2.JobEvent(job_id=str(head.id), sequence=stored.sequence, time=timestamp(stored.at))
    payload = stored.payload
    match stored.kind:
        case "STATE":
            made.state_change.CopyFrom(_state_change(payload))
        case "STAGE":
            change = jobs_pb2.JobStageChange(
                old_stage=payload.get("old_stage") or "", new_stage=payload.get("new_stage") or ""
            )
            made.stage_change.CopyFrom(change)
        case "PROGRESS":
            made.progress.CopyFrom(progress(payload) or common_pb2.Progress())
        case "NOTICE":
            made.notice.CopyFrom(notice(payload))
        case "SNAPSHOT":
            made.snapshot.CopyFrom(_snapshot(head, stored))
    return made


def snapshot(made: jobs_pb2.Job, sequence: int, now: datetime) -> jobs_pb2.JobEvent:
    """A job as it stands now, in place of events that are no longer kept."""
    made.last_sequence = sequence
    return jobs_pb2.JobEvent(job_id=made.job_id, sequence=sequence, time=timestamp(now), snapshot=made)


def heartbeat(job_id: uuid.UUID, last_sequence: int, now: datetime) -> jobs_pb2.JobEvent:
    return jobs_pb2.JobEvent(
        job_id=str(job_id), time=timestamp(now), heartbeat=jobs_pb2.JobHeartbeat(last_sequence=last_sequence)
    )


def head_of(row: JobRow) -> JobHead:
    return JobHead(row.id, row.kind, row.resource_type, row.resource_id, row.created_at)


def resource_name(kind: str, resource_id: uuid.UUID) -> str:
    """`imports/<id>`."""
    return f"{kind}/{resource_id}"


def filter_of(request: jobs_pb2.ListJobsRequest) -> JobFilter:
    """What to list.

    Raises:
        InvalidRequest: RESOURCE_INVALID when `resource` is not `<collection>/<id>`.
    """
    kind, slash, resource_id = request.resource.partition("/")
    if request.resource and not (kind and slash and resource_id):
        raise InvalidRequest(
            f"resource: expected `<collection>/<id>`, found {request.resource[:60]!r}", reason="RESOURCE_INVALID"
        )
    return JobFilter(
        states=tuple(word_of(jobs_pb2.JobState, number) for number in request.states),
        kinds=tuple(word_of(jobs_pb2.JobKind, number) for number in request.kinds),
        resource_type=kind,
        resource_id=parse_id(resource_id, "resource") if resource_id else None,
    )


def _state_change(payload: Mapping[str, Any]) -> jobs_pb2.JobStateChange:
    return jobs_pb2.JobStateChange(
        old_state=number_of(jobs_pb2.JobState, payload.get("old_state") or ""),
        new_state=number_of(jobs_pb2.JobState, payload.get("new_state") or ""),
        attempt=payload.get("attempt", 0),
        error=operation_error(payload.get("error")),
        blocked_by=payload.get("blocked_by") or [],
    )


def _snapshot(head: JobHead, stored: StoredEvent) -> jobs_pb2.Job:
    payload = stored.payload
    return jobs_pb2.Job(
        job_id=str(head.id),
        kind=number_of(jobs_pb2.JobKind, head.kind),
        state=number_of(jobs_pb2.JobState, payload.get("state") or ""),
        resource=resource_name(head.resource_type, head.resource_id),
        stage=payload.get("stage") or "",
        progress=progress(payload.get("progress") or {}),
        attempt=payload.get("attempt", 0),
        created_at=timestamp(head.created_at),
        last_sequence=stored.sequence,
    )
