"""Which exit code an error has. Scripts rely on them: they are listed in the package's docstring."""

from __future__ import annotations

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


def code_of(error: DataOpsError) -> int:
    """The exit code for an error."""
    return _CODES.get(type(error).__name__, FAILED)
