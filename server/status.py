"""Errors on the wire: a `google.rpc.Status` with `ErrorInfo` always, the other details where they apply.

grpc carries the status in HTTP/2 trailers, whose usual limit is 8 KiB: a status with 150 violations overflows it and is
lost, code and all. So details stay under 4 KiB (5.4 KiB in base64) and the message under 500 characters.
"""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from sqlalchemy import exc as sqlalchemy_errors

from engine.errors import MAX_VIOLATIONS, DataOpsError, ErrorKind, ResourceExhausted, Unavailable, Violation

DOMAIN = "dataops"
DETAILS_KEY = "grpc-status-details-bin"
MAX_DETAILS = 4_096
MAX_MESSAGE = 500
MAX_VALUE = 200

CODES: dict[ErrorKind, grpc.StatusCode] = {
    ErrorKind.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorKind.OUT_OF_RANGE: grpc.StatusCode.OUT_OF_RANGE,
    ErrorKind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorKind.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    ErrorKind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorKind.ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    ErrorKind.FAILED_PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorKind.ABORTED: grpc.StatusCode.ABORTED,
    ErrorKind.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorKind.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    ErrorKind.DATA_LOSS: grpc.StatusCode.DATA_LOSS,
    ErrorKind.INTERNAL: grpc.StatusCode.INTERNAL,
}


def status_of(error: DataOpsError) -> status_pb2.Status:
    """The error as a status whose details are under 4 KiB, whatever the error holds."""
    metadata = {name[:64]: value[:MAX_VALUE] for name, value in error.metadata.items()}
    if len(error.violations) > 0:
        metadata["violations_total"] = str(len(error.violations))
    shown = error.violations[:MAX_VIOLATIONS]
    while True:
        details: list[Message] = [
            error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata),
            *_violations(error, shown),
        ]
        if error.retry_after is not None:
            details.append(error_details_pb2.RetryInfo(retry_delay=_duration(error.retry_after)))
        if sum(detail.ByteSize() for detail in details) <= MAX_DETAILS - 256:  # 256: type names of the Any wrappers
            break
        if shown:
            shown = shown[:-1]
        else:
            metadata.popitem()
    status = status_pb2.Status(code=CODES[error.kind].value[0], message=error.message[:MAX_MESSAGE])
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def from_foreign(error: Exception) -> DataOpsError | None:
    """A domain error for the libraries' errors that have one meaning everywhere; None: a defect of ours.

    None of the library's own text goes along: it may hold a host, a user or a statement.
    """
    if isinstance(error, sqlalchemy_errors.TimeoutError):
        return ResourceExhausted(
            "no connection to the control database is free now", reason="SERVER_BUSY", retry_after=1.0
        )
    if isinstance(error, sqlalchemy_errors.OperationalError):
        return Unavailable("the control database cannot answer now", reason="CONTROL_UNREACHABLE", retry_after=1.0)
    return None


def _violations(error: DataOpsError, shown: list[Violation]) -> list[Message]:
    if not shown:
        return []
    if error.kind is ErrorKind.FAILED_PRECONDITION:
        failure = error_details_pb2.PreconditionFailure
        return [
            failure(
                violations=[
                    failure.Violation(
                        type=error.reason, subject=v.subject[:MAX_VALUE], description=v.description[:MAX_VALUE]
                    )
                    for v in shown
                ]
            )
        ]
    bad = error_details_pb2.BadRequest
    return [
        bad(
            field_violations=[
                bad.FieldViolation(field=v.subject[:MAX_VALUE], description=v.description[:MAX_VALUE]) for v in shown
            ]
        )
    ]


def _duration(seconds: float) -> duration_pb2.Duration:
    whole = int(seconds)
    return duration_pb2.Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))
