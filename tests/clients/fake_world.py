"""What the fake server holds, where it breaks, and what it saw."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar

import grpc
from dataops.v1 import (
    backups_pb2,
    catalog_pb2,
    exports_pb2,
    imports_pb2,
    jobs_pb2,
    overview_pb2,
    restores_pb2,
    schedules_pb2,
    uploads_pb2,
)
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

JOB_ID = "0197a000-0000-7000-8000-00000000000b"
IMPORT_ID = "0197a000-0000-7000-8000-00000000000c"
EXPORT_ID = "0197a000-0000-7000-8000-00000000000d"
OTHER_JOB_ID = "0197a000-0000-7000-8000-00000000000e"
BACKUP_ID = "0197a000-0000-7000-8000-00000000000f"
RESTORE_ID = "0197a000-0000-7000-8000-000000000010"
SCHEDULE_ID = "0197a000-0000-7000-8000-000000000011"
DIGEST = bytes(range(32))

_Item = TypeVar("_Item")

TOKEN = "secret-token"
PART = 2 * 1024 * 1024
"""The server's part border; 8 MiB at the real one."""


def refuse(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    reason: str,
    message: str,
    *,
    metadata: dict[str, str] | None = None,
    violations: dict[str, str] | None = None,
    retry_after: float | None = None,
) -> NoReturn:
    """End the call as the real server does: a status with details."""
    details = [error_details_pb2.ErrorInfo(reason=reason, domain="dataops", metadata=metadata or {})]
    if violations:
        bad = error_details_pb2.BadRequest()
        for name, text in violations.items():
            bad.field_violations.add(field=name, description=text)
        details.append(bad)
    if retry_after is not None:
        delay = duration_pb2.Duration(nanos=int(retry_after * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code.value[0], message=message, details=packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)
    raise AssertionError


@dataclass
class Held:
    """One upload and what came of it."""

    upload: uploads_pb2.Upload
    data: bytearray = field(default_factory=bytearray)


@dataclass
class World:
    """What the server holds, where it breaks, and what it saw."""

    uploads: dict[str, Held] = field(default_factory=dict)
    break_upload_at: list[int] = field(default_factory=list)
    lose_finish_answer: bool = False
    damage_upload: bool = False
    stall_upload_at: int | None = None
    """The bytes after which the next stream stands still until its client goes away."""
    upload_streams: list[int] = field(default_factory=list)

    export: bytes = b""
    break_export_at: list[int] = field(default_factory=list)
    end_export_without_footer: bool = False
    export_digest: bytes | None = None
    next_export: bytes | None = None
    tells_restart: bool = False
    export_offsets: list[int] = field(default_factory=list)
    stall_export_at: int | None = None
    created_exports: list[exports_pb2.CreateExportRequest] = field(default_factory=list)
    export_fails: bool = False
    export_status: exports_pb2.ExportStatus.ValueType = exports_pb2.EXPORT_STATUS_COMPLETED

    events: list[jobs_pb2.JobEvent] = field(default_factory=list)
    job: jobs_pb2.Job = field(default_factory=jobs_pb2.Job)
    break_watch_after: list[int] = field(default_factory=list)
    silent_watches: int = 0
    stall_watch: bool = False
    other_jobs: dict[str, jobs_pb2.Job] = field(default_factory=dict)
    watches: list[int] = field(default_factory=list)

    imported: imports_pb2.Import = field(default_factory=imports_pb2.Import)
    row_errors: list[imports_pb2.ImportRowError] = field(default_factory=list)
    changes: list[imports_pb2.ImportChange] = field(default_factory=list)
    created_imports: list[imports_pb2.CreateImportRequest] = field(default_factory=list)
    parts: dict[int, bytes] = field(default_factory=dict)
    """The files of the report."""
    being_made: int = 0
    """How often the report's file is still being made when it is asked for."""
    being_made_as: grpc.StatusCode = grpc.StatusCode.FAILED_PRECONDITION
    being_made_says_when: bool = True
    entities: dict[str, catalog_pb2.Entity] = field(default_factory=dict)
    """Those that GetEntity knows."""
    asked: list[Message] = field(default_factory=list)
    """Requests of lists, as they came."""
    applied_with: list[imports_pb2.ApplyImportRequest] = field(default_factory=list)
    backup: backups_pb2.Backup = field(default_factory=backups_pb2.Backup)
    differences: list[backups_pb2.BackupDifference] = field(default_factory=list)
    difference_counts: list[backups_pb2.EntityDifference] = field(default_factory=list)
    restore: restores_pb2.Restore = field(default_factory=restores_pb2.Restore)
    retained: list[schedules_pb2.RetentionDecision] = field(default_factory=list)
    losses: list[restores_pb2.RestoreLoss] = field(default_factory=list)
    needs_approval: bool = False
    overview: overview_pb2.GetOverviewResponse = field(default_factory=overview_pb2.GetOverviewResponse)
    schedule: schedules_pb2.Schedule = field(default_factory=schedules_pb2.Schedule)
    started: list[Message] = field(default_factory=list)
    """Requests about backups, restores and schedules that start or change something, as they came."""
    user_agents: set[str] = field(default_factory=set)
    unavailable_calls: int = 0

    def stall(self, context: grpc.ServicerContext) -> None:
        """Stand still until the client goes away, or half a minute."""
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait(30)

    def lists(self, method: type[Message]) -> list[Message]:
        """The requests of one kind among `asked`."""
        return [request for request in self.asked if isinstance(request, method)]


def page(items: Sequence[_Item], size: int, token: str) -> tuple[Sequence[_Item], str]:
    """One page of a list and the token of the next."""
    at, size = int(token or 0), size or 50
    return items[at : at + size], str(at + size) if at + size < len(items) else ""
