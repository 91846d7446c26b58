"""Shows schedules, and what became of their times."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dataops_client.cli import output as out
from dataops_client.cli.plain import enum_word
from dataops_client.cli.plan import minute
from dataops_client.cli.schedule_options import span_text

if TYPE_CHECKING:
    from dataops.v1 import common_pb2, schedules_pb2


def show_schedules(found: Iterable[schedules_pb2.Schedule]) -> None:
    """Schedules, one a line."""
    out.table(
        ("schedule", "name", "cron", "time zone", "entities", "next", "last", "missed", "skipped", "failed", "error"),
        (
            (
                s.schedule_id,
                s.spec.name,
                s.spec.cron,
                s.spec.time_zone,
                _scope(s),
                _next(s),
                minute(s.last_run_at),
                s.missed_runs,
                s.skipped_runs,
                s.failed_runs,
                s.last_error.reason,
            )
            for s in found
        ),
    )


def show_schedule(schedule: schedules_pb2.Schedule) -> None:
    """One schedule, its next times, and what became of the last ones."""
    spec = schedule.spec
    level = enum_word(spec, "verify_level")
    out.facts(
        [
            ("schedule", schedule.schedule_id),
            ("name", spec.name),
            ("cron", spec.cron),
            ("time zone", spec.time_zone),
            ("entities", _scope(schedule)),
            ("type", enum_word(spec, "backup_type")),
            (
                "kept",
                span_text(spec.retention.ToSeconds()) if spec.HasField("retention") else "as the server keeps them",
            ),
            ("proven", "no" if level == "UNSPECIFIED" else level),
            ("overlap", enum_word(spec, "overlap_policy")),
            ("catch up", span_text(spec.catch_up_window.ToSeconds())),
            ("made as", schedule.principal.subject),
            ("revision", schedule.revision),
            ("last", minute(schedule.last_run_at)),
            ("last backup", schedule.last_backup_id),
            *((name, getattr(schedule, f"{name}_runs")) for name in ("missed", "skipped", "failed")),
            ("error", _error(schedule.last_error) if schedule.HasField("last_error") else ""),
            *(("next", minute(time)) for time in schedule.next_runs),
            ("next", "none: it is paused" if schedule.paused else ""),
        ]
    )
    if schedule.recent_runs:
        print()
        out.table(
            ("time", "outcome", "tries", "backup", "again at", "error"),
            (
                (
                    minute(run.due_at),
                    enum_word(run, "outcome"),
                    run.attempts,
                    run.backup_id,
                    minute(run.retry_at),
                    _error(run.error) if run.HasField("error") else "",
                )
                for run in schedule.recent_runs
            ),
        )


def _scope(schedule: schedules_pb2.Schedule) -> str:
    return ", ".join(schedule.spec.entity_types) or "all"


def _next(schedule: schedules_pb2.Schedule) -> str:
    return "paused" if schedule.paused else minute(schedule.next_runs[0]) if schedule.next_runs else ""


def _error(error: common_pb2.OperationError) -> str:
    return f"{error.reason}: {error.message}"
