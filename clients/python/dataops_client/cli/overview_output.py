"""Shows the overview: what an administrator's first screen has, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dataops.v1 import backups_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from dataops_client.cli import output as out
from dataops_client.cli.plain import enum_word, word
from dataops_client.cli.plan import minute, notice_line

if TYPE_CHECKING:
    from dataops.v1 import exports_pb2, imports_pb2, overview_pb2

Overview = Any
"""An answer of GetOverview; its fields are asked for by name here."""

_NAMED = 5
"""Of a list of names that stands in one line."""
_GOOD = (backups_pb2.BACKUP_STATUS_COMPLETED, backups_pb2.BACKUP_STATUS_RESTORED)


def show_overview(found: overview_pb2.GetOverviewResponse) -> None:
    """Part by part; a part that may not be seen says so instead of looking empty."""
    print(f"Data operations, {minute(found.as_of)}")
    for notice in found.notices:
        print(notice_line(notice))
    _part("BACKUPS", found, "backups", _backups(found))
    _part("SCHEDULES", found, "schedules", _schedules(found))
    _listed("EXPORTS", found, "exports", ("export", "what", "status", "records", "size", "created"), _exports(found))
    _listed("IMPORTS", found, "imports", ("import", "entity", "mode", "status", "records", "created"), _imports(found))
    _listed("JOBS", found, "jobs", ("job", "kind", "state", "stage", "resource", "created"), _jobs(found))
    if (more := found.active_job_count - len(found.active_jobs)) > 0:
        print(f"and {more:,} more: dataops jobs list")
    _part("NO BACKUP COVERS", found, "catalog", [("", f"{u.relation}: {u.message}") for u in found.uncovered])
    if (more := found.uncovered_count - len(found.uncovered)) > 0:
        print(f"and {more:,} more")


def ago(now: Timestamp, moment: Timestamp) -> str:
    """How long before, or after, as people say it: 3 hours ago, in 2 days."""
    seconds = now.seconds - moment.seconds
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        count = abs(seconds) // size
        if count >= 2 or (size == 1 and count):
            span = _count(count, unit)
            return f"{span} ago" if seconds > 0 else f"in {span}"
    return "now"


def _part(title: str, found: Overview, noun: str, pairs: Sequence[tuple[str, Any]]) -> None:
    print(f"\n{title}")
    if noun in found.withheld:
        print(f"none of your roles permits {noun}.read")
    else:
        out.facts(pairs)


def _listed(title: str, found: Overview, noun: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    if noun in found.withheld or not rows:
        _part(title, found, noun, [("none", " ")])
    else:
        print(f"\n{title}")
        out.table(columns, rows)


def _backups(found: Overview) -> list[tuple[str, str]]:
    lost = found.unprotected_entity_count
    unscheduled = "" if "schedules" in found.withheld else "! none is scheduled"
    return [
        ("last backup", _last(found.last_backup) if found.HasField("last_backup") else "! there is none"),
        ("last good", _moment(found, "last_good_backup_at", "! there is none")),
        ("of every entity", _moment(found, "all_entities_good_at", "")),
        ("last proof", _moment(found, "last_proven_backup_at", "! none was ever proven restorable")),
        ("newest proven", _moment(found, "newest_proven_backup_at", "")),
        ("next scheduled", _moment(found, "next_scheduled_backup_at", unscheduled)),
        ("available", _count(found.available_backups, "backup")),
        ("damaged", f"! {_count(found.damaged_backups, 'backup')}" if found.damaged_backups else ""),
        ("in no good backup", f"! {_names(found.unprotected_entities, lost)}" if lost else ""),
    ]


def _last(backup: backups_pb2.Backup) -> str:
    mark = "" if backup.status in (*_GOOD, backups_pb2.BACKUP_STATUS_PENDING) else "! "
    why = f", {backup.error.reason}: {backup.error.message}" if backup.HasField("error") else ""
    kind = f"{enum_word(backup, 'trigger_type')} {enum_word(backup, 'status')}"
    return f"{mark}{minute(backup.created_at)}, {kind}, {backup.backup_id}{why}"


def _schedules(found: Overview) -> list[tuple[str, str]]:
    if not found.schedules.schedules:
        return [("schedules", "none")]
    told = found.schedules
    return [
        ("schedules", f"{told.schedules:,}, {told.paused:,} of them paused"),
        ("overdue", f"! {told.overdue:,}" if told.overdue else ""),
        ("failed", f"! {_count(told.failed_runs, 'time')} since the last good backup" if told.failed_runs else ""),
        ("missed", _count(told.missed_runs, "time") if told.missed_runs else ""),
        ("skipped", _count(told.skipped_runs, "time") if told.skipped_runs else ""),
        *(("!", _concern(one, found.as_of)) for one in told.concerns),
    ]


def _concern(one: overview_pb2.ScheduleConcerns, now: Timestamp) -> str:
    enum = one.DESCRIPTOR.fields_by_name["concerns"].enum_type
    words = ", ".join(word(enum, number) for number in one.concerns)
    failed = f", failed {_count(one.failed_runs, 'time')}" if one.failed_runs else ""
    due = f", due {ago(now, one.next_run_at)}" if one.HasField("next_run_at") else ""
    return f"{one.name}: {words}{failed}{due} ({one.schedule_id})"


def _exports(found: Overview) -> list[Sequence[Any]]:
    return [
        (
            e.export_id,
            _what(e),
            enum_word(e, "status"),
            f"{e.record_count:,}",
            out.size(e.file_size_bytes),
            minute(e.created_at),
        )
        for e in found.recent_exports
    ]


def _what(export: exports_pb2.Export) -> str:
    kind = enum_word(export, "export_type")
    return "all" if kind == "FULL" else _names(export.entity_types, len(export.entity_types))


def _imports(found: Overview) -> list[Sequence[Any]]:
    return [
        (
            i.import_id,
            i.entity_type or _names(i.entity_types, len(i.entity_types)),
            enum_word(i, "import_type"),
            enum_word(i, "status"),
            _records(i),
            minute(i.created_at),
        )
        for i in found.recent_imports
    ]


def _records(found: imports_pb2.Import) -> str:
    refused = f", {found.failed_records:,} refused" if found.failed_records else ""
    return f"{found.successful_records:,}{refused}"


def _jobs(found: Overview) -> list[Sequence[Any]]:
    return [
        (j.job_id, enum_word(j, "kind"), enum_word(j, "state"), j.stage, j.resource, minute(j.created_at))
        for j in found.active_jobs
    ]


def _moment(found: Overview, field: str, otherwise: str) -> str:
    if not found.HasField(field):
        return otherwise
    moment = getattr(found, field)
    return f"{minute(moment)}, {ago(found.as_of, moment)}"


def _names(names: Sequence[str], count: int) -> str:
    more = count - min(len(names), _NAMED)
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
