"""What a call can end in, as exceptions with the server's stable reason.

    DataOpsError                  the root: code, reason, message, metadata, violations, retry_delay
    ├── InvalidRequest            the request itself is wrong (INVALID_ARGUMENT, OUT_OF_RANGE)
    ├── NotAuthenticated          no token, or one the server does not believe
    ├── PermissionDenied          a known caller who may not
    ├── NotFound                  no such resource
    ├── AlreadyExists             a request id used with another body, a name that is taken
    ├── FailedPrecondition        the state forbids it now: an expired plan, a file that cannot be used
    ├── Aborted                   another caller won: a newer upload stream, a moved row
    ├── ResourceExhausted         a limit of size, rate or room; retry_delay says when to try again
    ├── NotBuilt                  in the contract, not in this server
    ├── Cancelled                 this side ended the call
    ├── Unavailable               no server, or one that drains; the same call may succeed later
    ├── DeadlineExceeded          no answer in time; it is not known whether the call took effect
    ├── ServerError               a defect or a damaged file at the server (INTERNAL, UNKNOWN, DATA_LOSS)
    ├── TransferError             bytes did not arrive as they left, or the file changed meanwhile
    └── JobFailed                 a job ended FAILED or CANCELLED; `job` is its last state

All can be pickled. A message is safe to show: it never holds a secret value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, cast

import grpc
from dataops.v1 import jobs_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong: `subject` is a field of the request, or what a precondition is about."""

    subject: str
    description: str


@dataclass
class DataOpsError(Exception):
    """The root. `retry_delay` is in seconds, None if the server named none."""

    message: str
    reason: str = "UNKNOWN"
    metadata: dict[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()
    retry_delay: float | None = None
    code: grpc.StatusCode | None = None

    transient: ClassVar[bool] = False
    """True if the very same call may succeed later."""

    def __post_init__(self) -> None:
        super().__init__(self.message)

    def __reduce__(self) -> tuple[object, ...]:
        values = (self.message, self.reason, self.metadata, self.violations, self.retry_delay, self.code)
        return type(self), values

    def __str__(self) -> str:
        firsts = {v.description: v for v in reversed(self.violations)}  # the one that a message speaks of
        new = [v for v in self.violations if v.description not in self.message or v is not firsts[v.description]]
        named = "; ".join(f"{v.subject}: {v.description}" if v.subject else v.description for v in new)
        return f"{self.reason}: {self.message}" + (f" ({named})" if named else "")


class InvalidRequest(DataOpsError):
    """The request itself is wrong, whatever the state."""


class NotAuthenticated(DataOpsError):
    """No token, or one the server does not believe."""


class PermissionDenied(DataOpsError):
    """A known caller who may not."""


class NotFound(DataOpsError):
    """No such resource, or none the caller may know of."""


class AlreadyExists(DataOpsError):
    """A request id or name that is taken by something else."""


class FailedPrecondition(DataOpsError):
    """The state forbids it now."""


class Aborted(DataOpsError):
    """Another caller won."""


class ResourceExhausted(DataOpsError):
    """A limit of size, rate or room."""


class NotBuilt(DataOpsError):
    """In the contract, not in this server."""


class Cancelled(DataOpsError):
    """This side ended the call."""


class Unavailable(DataOpsError):
    """No server, or one that drains."""

    transient = True


class DeadlineExceeded(DataOpsError):
    """No answer in time."""

    transient = True


class ServerError(DataOpsError):
    """A defect or a damaged file at the server."""


class TransferError(DataOpsError):
    """Bytes did not arrive as they left, or the file changed meanwhile."""


class JobFailed(DataOpsError):
    """A job ended FAILED or CANCELLED; `job` is its last state."""

    job: jobs_pb2.Job

    @classmethod
    def of(cls, job: jobs_pb2.Job) -> JobFailed:
        """The error of a job that has ended without success."""
        state = jobs_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
        message = job.error.message or f"job {job.job_id} is {state}"
        violations = tuple(Violation(v.subject, v.description) for v in job.error.violations)
        failed = cls(message, job.error.reason or f"JOB_{state.upper()}", dict(job.error.metadata), violations)
        failed.job = job
        return failed

    def __reduce__(self) -> tuple[object, ...]:
        return JobFailed.of, (self.job,)


_BY_CODE: dict[grpc.StatusCode, type[DataOpsError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: NotAuthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNIMPLEMENTED: NotBuilt,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def from_rpc_error(error: grpc.RpcError) -> DataOpsError:
    """The typed error of a failed call, synchronous or aio."""
    code = error.code()
    reason, metadata = code.name, {}
    violations: list[Violation] = []
    retry_delay = None
    for detail in _status_of(error).details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        unmet, retry = error_details_pb2.PreconditionFailure(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            violations += [Violation(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(unmet):
            violations += [Violation(v.subject, v.description) for v in unmet.violations]
        elif detail.Unpack(retry):
            retry_delay = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    text = error.details() or ""
    kind = Unavailable if _is_broken_stream(text) else _BY_CODE.get(code, ServerError)
    return kind(text, reason, metadata, tuple(violations), retry_delay, code)


def _is_broken_stream(text: str) -> bool:
    """True for grpc's own words for a connection that a proxy or a dying server cut: INTERNAL or UNKNOWN by code."""
    return text.startswith(("Received RST_STREAM", "Stream removed"))


@contextmanager
def typed_errors() -> Iterator[None]:
    """Turn the grpc errors of the block into typed ones."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error


def _status_of(error: grpc.RpcError) -> status_pb2.Status:
    """The details of the status; empty if the far side sent none, as a proxy or grpc itself does."""
    trailer = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    for key, value in trailer:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()
