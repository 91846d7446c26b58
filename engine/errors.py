"""The tree of errors. Every class has a stable `reason`, a neutral kind and a message a caller may read.

    DataOpsError
    ├── InvalidRequest        the request itself is wrong, whatever the state
    │   └── OffsetMismatch    an upload or download offset that does not fit
    ├── Unauthenticated       no caller, or one that cannot be believed
    ├── PermissionDenied      a known caller who may not
    ├── NotFound              no such resource, or none the caller may know of
    ├── AlreadyExists         a request id or name that is taken by something else
    ├── FailedPrecondition    the state forbids it now
    │   ├── DataInvalid       a file's content forbids it
    │   └── PlatformNotPrepared
    ├── Aborted               another actor won: a newer stream, a moved row
    ├── ResourceExhausted     a limit of size, rate or room
    ├── Unavailable           try again later
    ├── NotBuilt              in the contract, not in this release
    ├── DataLoss              what was stored cannot be opened or is not what was stored
    └── InternalError         a defect of ours

Flow control of jobs (`JobCancelled`, `LeaseLost`, `WorkerStopping`) lives in `engine.jobs.interrupts`: these are no
errors. A message is lowercase, without a full stop, and says what was found and what was expected. `metadata` holds
short strings for programs. Neither may carry a row's secret value, a DSN or a driver's text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

MAX_VIOLATIONS = 20
"""A status with 150 violations overflows the 8 KiB metadata limit of HTTP/2 peers and is lost; 20 stay under 4 KiB."""


class ErrorKind(Enum):
    """Neutral kinds; the server maps each to one gRPC status code."""

    INVALID_ARGUMENT = "invalid_argument"
    OUT_OF_RANGE = "out_of_range"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    FAILED_PRECONDITION = "failed_precondition"
    ABORTED = "aborted"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    UNAVAILABLE = "unavailable"
    UNIMPLEMENTED = "unimplemented"
    DATA_LOSS = "data_loss"
    INTERNAL = "internal"


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong: `subject` is a field path of the request, or what a precondition is about."""

    subject: str
    description: str


@dataclass
class DataOpsError(Exception):
    """The root. `retryable`: the same attempt may succeed later without anybody changing anything."""

    message: str
    reason: str = "INTERNAL"
    metadata: dict[str, str] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    retry_after: float | None = None

    kind = ErrorKind.INTERNAL
    retryable = False

    def __post_init__(self) -> None:
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"

    def as_record(self) -> dict[str, object]:
        """The form that job and resource rows keep: `{"reason", "message", "metadata", "violations"}`."""
        return {
            "reason": self.reason,
            "message": _keepable(self.message),
            "metadata": {name: _keepable(value) for name, value in self.metadata.items()},
            "violations": [[_keepable(v.subject), _keepable(v.description)] for v in self.violations[:MAX_VIOLATIONS]],
        }


def _keepable(text: str) -> str:
    """`text` as PostgreSQL's jsonb can hold it. What a file's own header is quoted in may hold a NUL, and an error that
    cannot be kept would leave its job without an end."""
    return text.replace("\0", "\ufffd")


class InvalidRequest(DataOpsError):
    kind = ErrorKind.INVALID_ARGUMENT


class OffsetMismatch(InvalidRequest):
    kind = ErrorKind.OUT_OF_RANGE


class Unauthenticated(DataOpsError):
    kind = ErrorKind.UNAUTHENTICATED


class PermissionDenied(DataOpsError):
    kind = ErrorKind.PERMISSION_DENIED


class NotFound(DataOpsError):
    kind = ErrorKind.NOT_FOUND


class AlreadyExists(DataOpsError):
    kind = ErrorKind.ALREADY_EXISTS


class FailedPrecondition(DataOpsError):
    kind = ErrorKind.FAILED_PRECONDITION


class DataInvalid(FailedPrecondition):
    """A file, or a stored plan, cannot be used as it is."""


class PlatformNotPrepared(FailedPrecondition):
    """The platform database lacks something we may not make; the message carries the SQL to run."""


class Aborted(DataOpsError):
    kind = ErrorKind.ABORTED


class ResourceExhausted(DataOpsError):
    kind = ErrorKind.RESOURCE_EXHAUSTED
    retryable = True


class Unavailable(DataOpsError):
    kind = ErrorKind.UNAVAILABLE
    retryable = True


class NotBuilt(DataOpsError):
    kind = ErrorKind.UNIMPLEMENTED


class DataLoss(DataOpsError):
    kind = ErrorKind.DATA_LOSS


class InternalError(DataOpsError):
    kind = ErrorKind.INTERNAL
