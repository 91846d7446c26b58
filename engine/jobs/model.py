"""The words of jobs: kinds, states, claim modes, event kinds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class JobKind(StrEnum):
    """Which phase a job is; each has one handler."""

    IMPORT_PLAN = "IMPORT_PLAN"
    IMPORT_APPLY = "IMPORT_APPLY"
    IMPORT_CHANGES = "IMPORT_CHANGES"
    EXPORT = "EXPORT"
    BACKUP = "BACKUP"
    BACKUP_VERIFY = "BACKUP_VERIFY"
    BACKUP_DIFF = "BACKUP_DIFF"
    RESTORE_PLAN = "RESTORE_PLAN"
    RESTORE = "RESTORE"


class JobState(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    CANCEL_REQUESTED = "CANCEL_REQUESTED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


ACTIVE = (JobState.RUNNING, JobState.CANCEL_REQUESTED)
"""States in which a worker holds, or held, the job."""

FINISHED = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class ClaimMode(StrEnum):
    """READ goes with READ and WRITE; WRITE goes with READ; EXCLUSIVE goes with none."""

    READ = "READ"
    WRITE = "WRITE"
    EXCLUSIVE = "EXCLUSIVE"


@dataclass(frozen=True)
class Claim:
    """What a job needs of one entity from its creation to its end."""

    entity: str
    mode: ClaimMode


class EventKind(StrEnum):
    """Kinds of job events; each comment names the payload's keys.

    `error` is an error record as on the job row; times and ids in payloads are text.
    """

    STATE = "STATE"  # old_state, new_state, attempt, error?, blocked_by?
    STAGE = "STAGE"  # old_stage, new_stage
    PROGRESS = "PROGRESS"  # stage, rows_done, rows_estimated?, bytes_done, bytes_estimated?, rates, eta_seconds?
    NOTICE = "NOTICE"  # code, message, severity, metadata
    SNAPSHOT = "SNAPSHOT"  # state, stage, attempt, progress: stands for the thinned events before it


class Severity(StrEnum):
    INFO = "INFO"
    WARNING = "WARNING"
