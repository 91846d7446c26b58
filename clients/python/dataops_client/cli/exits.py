"""Which exit code an error has. Scripts rely on them: they are listed in the package's docstring."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataops_client.errors import DataOpsError

FAILED = 1
USAGE = 2
DENIED = 3
NOT_FOUND = 4
REFUSED = 5
UNAVAILABLE = 6
ROWS_REFUSED = 8
NOT_APPLIED = 9
INTERRUPTED = 130

# By name, so that `dataops --help` does not wait for the import of grpc.
_CODES = {
    "NotAuthenticated": DENIED,
    "PermissionDenied": DENIED,
    "NotFound": NOT_FOUND,
    "InvalidRequest": REFUSED,
    "AlreadyExists": REFUSED,
    "FailedPrecondition": REFUSED,
    "Aborted": REFUSED,
    "NotBuilt": REFUSED,
    "ResourceExhausted": UNAVAILABLE,
    "Unavailable": UNAVAILABLE,
    "DeadlineExceeded": UNAVAILABLE,
}


_DENIED_JOBS = frozenset({"PERMISSION_MISSING", "PRINCIPAL_UNKNOWN"})
_UNAVAILABLE_JOBS = re.compile(
    r"(WORKER_LOST|FENCE_HELD|DEADLOCK|SERIALIZATION_CONFLICT|LOCK_TIMEOUT|DATABASE_(LOST|BUSY)|PLATFORM_UNREACHABLE"
    r"|STORAGE_(FULL|FAILED)|CONTROL_UNREACHABLE|BACKUP_FAILED)$"
)
_REFUSED_JOBS = re.compile(
    r"(BUNDLE|CASCADE|COLUMNS?|DELETES|ENTITY|EXPORT|FIELD|FILE|FILTER|IMPORT|KEY|MAPPING|OPTION|SECRET|TEXT|UNIQUE"
    r"|UPLOAD)_(?!GONE$|WRONG$|SUM$)"
    r"|(BACKUP_(STATE|IN_USE)|DIFF_NOT_READY|RESTORE_(REFUSED|STATE|WOULD_ORPHAN)|DEFINITIONS_(MOVED|NOT_EQUAL)"
    r"|APPROVAL_NEEDED|LOSSES_MOVED|PHRASE_WRONG|ROWS_NOT_IN_BACKUP|SCHEMA_INCOMPATIBLE)$"
    r"|(CATALOG_MOVED|CHECKSUM_MISMATCH|DISK_FULL|ERROR_BUDGET_EXCEEDED|OUT_OF_MEMORY|POOLER_REFUSED|RIGHTS?_MISSING"
    r"|PLAN_(STALE|EXPIRED|DIGEST_MISMATCH)|PLATFORM_(TOO_OLD|NOT_PREPARED)|ROWS_(REFERENCED|UNACCOUNTED)|ROW_REFUSED"
    r"|SEQUENCE_NOT_OWNED|SIZE_MISMATCH|STATEMENT_TIMEOUT|TOO_MANY_ERRORS|UPLOAD_GONE)$"
)
"""Reasons that speak of the file, the request or the state: docs/errors.md has them under the codes refused above."""


def code_of(error: DataOpsError) -> int:
    """The exit code for an error; a job's goes by its reason, as the same word in a call would."""
    kind = type(error).__name__
    if kind != "JobFailed":
        return _CODES.get(kind, FAILED)
    if error.reason in _DENIED_JOBS:
        return DENIED
    if _UNAVAILABLE_JOBS.match(error.reason):
        return UNAVAILABLE
    return REFUSED if _REFUSED_JOBS.match(error.reason) else FAILED
