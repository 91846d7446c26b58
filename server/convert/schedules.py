"""Schedules, between the wire and the engine."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from dataops.v1 import backups_pb2, schedules_pb2
from google.protobuf.message import Message

from engine.backups.model import BackupType, VerifyLevel
from engine.db.models import PrincipalRow, ScheduleRow, ScheduleRunRow
from engine.schedules.model import CATCH_UP_SECONDS, Overlap, ScheduleSpec
from engine.schedules.record import next_runs
from server.convert.common import duration, number_of, operation_error, principal, timestamp, word_of


def schedule(
    row: ScheduleRow, principals: Mapping[uuid.UUID, PrincipalRow], runs: Sequence[ScheduleRunRow] = ()
) -> schedules_pb2.Schedule:
    return schedules_pb2.Schedule(
        schedule_id=str(row.id),
        spec=_spec(row),
        revision=row.revision,
        paused=row.paused,
        next_runs=[made for time in next_runs(row) if (made := timestamp(time)) is not None],
        last_run_at=timestamp(row.last_run_at),
        last_backup_id=str(row.last_backup_id or ""),
        missed_runs=row.missed_runs,
        skipped_runs=row.skipped_runs,
        principal=principal(row.principal_id, principals.get(row.principal_id)),
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
        failed_runs=row.failed_runs,
        last_error=operation_error(row.last_error),
        recent_runs=[_run(run) for run in runs],
    )


def spec_of(spec: schedules_pb2.ScheduleSpec) -> ScheduleSpec:
    level = word_of(backups_pb2.VerifyLevel, spec.verify_level)
    window = _seconds(spec, "catch_up_window")
    return ScheduleSpec(
        name=spec.name,
        cron=spec.cron,
        time_zone=spec.time_zone or "UTC",
        backup_type=BackupType(word_of(backups_pb2.BackupType, spec.backup_type) or BackupType.FULL),
        entity_types=tuple(spec.entity_types),
        retention_seconds=_seconds(spec, "retention"),
        verify_level=VerifyLevel(level) if level else None,
        overlap_policy=Overlap(word_of(schedules_pb2.OverlapPolicy, spec.overlap_policy) or Overlap.SKIP),
        catch_up_seconds=CATCH_UP_SECONDS if window is None else window,
    )


def _spec(row: ScheduleRow) -> schedules_pb2.ScheduleSpec:
    return schedules_pb2.ScheduleSpec(
        name=row.name,
        cron=row.cron,
        time_zone=row.time_zone,
        backup_type=number_of(backups_pb2.BackupType, row.backup_type),
        entity_types=row.entity_types,
        retention=None if row.retention_seconds is None else duration(row.retention_seconds),
        verify_level=number_of(backups_pb2.VerifyLevel, row.verify_level or "UNSPECIFIED"),
        overlap_policy=number_of(schedules_pb2.OverlapPolicy, row.overlap_policy),
        catch_up_window=duration(row.catch_up_seconds),
    )


def _run(run: ScheduleRunRow) -> schedules_pb2.ScheduleRun:
    return schedules_pb2.ScheduleRun(
        due_at=timestamp(run.due_at),
        outcome=number_of(schedules_pb2.ScheduleRunOutcome, run.outcome),
        backup_id=str(run.backup_id or ""),
        attempts=run.attempts,
        retry_at=timestamp(run.retry_at),
        error=operation_error(run.error),
    )


def _seconds(spec: Message, field: str) -> float | None:
    """A Duration's seconds; None where it is absent."""
    return getattr(spec, field).ToNanoseconds() / 1e9 if spec.HasField(field) else None
