"""The overview on the wire."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping

from dataops.v1 import catalog_pb2, overview_pb2

from engine.backups.protection import Protection
from engine.db.models import PrincipalRow
from engine.overview.schedules import ScheduleSummary
from engine.overview.service import MAX_UNPROTECTED, OverviewPage
from engine.paging import MAX_BYTES, fitting
from server.convert.backups import backup
from server.convert.common import M, T, number_of, timestamp
from server.convert.exports import export
from server.convert.imports import data_import
from server.convert.jobs import job, notice

LIST_BYTES = MAX_BYTES // 2
"""Of each list that may hold long messages, three of them: with all else the answer stays below what a client takes."""


def overview(page: OverviewPage, principals: Mapping[uuid.UUID, PrincipalRow]) -> overview_pb2.GetOverviewResponse:
    shown = overview_pb2.GetOverviewResponse(
        last_backup=None if page.last_backup is None else backup(page.last_backup, principals),
        recent_exports=_fitted(page.exports, lambda row: export(row, principals)),
        recent_imports=_fitted(page.imports, lambda row: data_import(row, principals)),
        active_jobs=_fitted(page.jobs, lambda row: job(row, page.job_facts)),
        active_job_count=page.active_jobs,
        uncovered=[
            catalog_pb2.UncoveredRelation(relation=found.name, code=found.code, message=found.why)
            for found in page.uncovered
        ],
        uncovered_count=page.uncovered_count,
        as_of=timestamp(page.as_of),
        withheld=page.withheld,
        notices=[notice(found) for found in page.notices],
    )
    if page.protection is not None:
        shown.MergeFrom(_protection(page.protection))
    if page.schedules is not None:
        shown.MergeFrom(_schedules(page.schedules))
    return shown


def _fitted(rows: Iterable[T], convert: Callable[[T], M]) -> list[M]:
    return fitting(rows, convert, lambda made: made.ByteSize(), LIST_BYTES)


def _protection(found: Protection) -> overview_pb2.GetOverviewResponse:
    return overview_pb2.GetOverviewResponse(
        last_good_backup_at=timestamp(found.good_at),
        last_proven_backup_at=timestamp(found.proof_at),
        newest_proven_backup_at=timestamp(found.proven_at),
        all_entities_good_at=timestamp(found.all_good_at),
        all_entities_proven_at=timestamp(found.all_proven_at),
        available_backups=found.available,
        damaged_backups=found.damaged,
        unprotected_entities=(found.unprotected or ())[:MAX_UNPROTECTED],
        unprotected_entity_count=len(found.unprotected or ()),
    )


def _schedules(found: ScheduleSummary) -> overview_pb2.GetOverviewResponse:
    summary = overview_pb2.ScheduleSummary(
        schedules=found.schedules,
        paused=found.paused,
        overdue=found.overdue,
        missed_runs=found.missed_runs,
        skipped_runs=found.skipped_runs,
        failed_runs=found.failed_runs,
        concerns=[
            overview_pb2.ScheduleConcerns(
                schedule_id=str(one.schedule_id),
                name=one.name,
                concerns=[number_of(overview_pb2.ScheduleConcern, word) for word in one.concerns],
                next_run_at=timestamp(one.next_run_at),
                failed_runs=one.failed_runs,
            )
            for one in found.concerns
        ],
    )
    return overview_pb2.GetOverviewResponse(schedules=summary, next_scheduled_backup_at=timestamp(found.next_run_at))
