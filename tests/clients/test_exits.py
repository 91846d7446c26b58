"""The exit code of a failed job: that of its reason in docs/errors.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dataops.v1 import common_pb2, jobs_pb2
from dataops_client.cli import exits
from dataops_client.errors import JobFailed

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
OF_JOBS = (
    "Catalog",
    "Imports",
    "Backups",
    "Restores",
    "Comparing and extracting",
    "Jobs",
    "Platform database",
)
BY_CALL_ALONE = {
    "JOB_UNKNOWN",
    "JOB_NOT_RETRYABLE",
    "SEQUENCE_UNKNOWN",
    "REPORT_PART_BEING_MADE",
    "REPORT_PART_MISSING",
    "BACKUP_UNKNOWN",
    "DIFF_UNKNOWN",
    "RESTORE_UNKNOWN",
    "APPROVAL_BY_ANOTHER",
    "APPROVAL_NOT_NEEDED",
    "OUTCOME_UNKNOWN",  # of dataops-admin, as the next
    "PLATFORM_ROLE_UNKNOWN",
}
EXITS = {
    "PERMISSION_DENIED": exits.DENIED,
    "INVALID_ARGUMENT": exits.REFUSED,
    "FAILED_PRECONDITION": exits.REFUSED,
    "ABORTED": exits.REFUSED,
    "NOT_FOUND": exits.REFUSED,  # it was there when the work was asked for
    "UNAVAILABLE": exits.UNAVAILABLE,
    "RESOURCE_EXHAUSTED": exits.UNAVAILABLE,
    "INTERNAL": exits.FAILED,
    "DATA_LOSS": exits.FAILED,
}
LISTED = [
    (reason, code)
    for section in OF_JOBS
    for reason, code in re.findall(r"^\| `(\w+)` \| (\w+)", SECTIONS[section], re.MULTILINE)
    if reason not in BY_CALL_ALONE
]


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        *LISTED,
        ("PERMISSION_MISSING", "PERMISSION_DENIED"),
        ("UPLOAD_GONE", "FAILED_PRECONDITION"),
        ("FIELD_UNKNOWN", "FAILED_PRECONDITION"),
        ("FILTER_VALUE_INVALID", "INVALID_ARGUMENT"),
        ("TEXT_NOT_UTF8", "FAILED_PRECONDITION"),
        ("STORAGE_FULL", "RESOURCE_EXHAUSTED"),
        ("EXPORT_GONE", "INTERNAL"),
        ("KEY_WRONG", "DATA_LOSS"),
        ("INTERNAL", "INTERNAL"),
    ],
)
def test_a_jobs_reason_has_the_exit_code_of_the_table(reason: str, code: str):
    job = jobs_pb2.Job(state=jobs_pb2.JOB_STATE_FAILED, error=common_pb2.OperationError(reason=reason))

    assert exits.code_of(JobFailed.of(job)) == EXITS[code]


def test_a_cancelled_job_and_an_unknown_reason_are_failures():
    cancelled = jobs_pb2.Job(state=jobs_pb2.JOB_STATE_CANCELLED)
    unknown = jobs_pb2.Job(state=jobs_pb2.JOB_STATE_FAILED, error=common_pb2.OperationError(reason="NEVER_HEARD_OF"))

    assert exits.code_of(JobFailed.of(cancelled)) == exits.FAILED
    assert exits.code_of(JobFailed.of(unknown)) == exits.FAILED
