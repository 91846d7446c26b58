"""What every conversion needs: times, words of enums, principals, errors, pages and digests of requests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from dataops.v1 import common_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from engine.access import Caller
from engine.errors import InvalidRequest
from engine.paging import MAX_BYTES, Page, Paging, binding_of

T = TypeVar("T")
M = TypeVar("M", bound=Message)


class EnumType(Protocol):
    """A generated enum, as its module has it."""

    DESCRIPTOR: Any


class PrincipalLike(Protocol):
    """A principal's row, or a caller."""

    @property
    def issuer(self) -> str: ...

    @property
    def subject(self) -> str: ...

    @property
    def kind(self) -> str: ...


def timestamp(moment: datetime | None) -> Timestamp | None:
    """None stays absent: a message's constructor leaves a field given as None unset."""
    if moment is None:
        return None
    made = Timestamp()
    made.FromDatetime(moment.astimezone(UTC))
    return made


def duration(seconds: float) -> Duration:
    made = Duration()
    made.FromTimedelta(timedelta(seconds=seconds))
    return made


def moment(message: Message, field: str) -> datetime | None:
    """The time in a Timestamp field; None when it is not set.

    Raises:
        InvalidRequest: INVALID_REQUEST for one outside the years 1 to 9999.
    """
    if not message.HasField(field):
        return None
    try:
        found: datetime = getattr(message, field).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"{field}: expected a time in the years 1 to 9999", reason="INVALID_REQUEST") from None
    return found


def word_of(enum: EnumType, number: int) -> str:
    """The bare word of an enum's number: `ADDITIVE` of IMPORT_TYPE_ADDITIVE; empty for the unspecified one."""
    if number == 0:
        return ""
    name: str = enum.DESCRIPTOR.values_by_number[number].name
    return name.removeprefix(_prefix(enum))


def number_of(enum: EnumType, word: str) -> Any:
    """The number of a bare word; 0, unspecified, for one that the contract does not have."""
    value = enum.DESCRIPTOR.values_by_name.get(_prefix(enum) + word)
    return value.number if value is not None else 0


def _prefix(enum: EnumType) -> str:
    zero: str = enum.DESCRIPTOR.values_by_number[0].name
    return zero.removesuffix("UNSPECIFIED")


def principal(principal_id: object, row: PrincipalLike | None = None) -> common_pb2.Principal:
    """A principal; where only its id is known, the id."""
    if row is None:
        return common_pb2.Principal(principal_id=str(principal_id))
    return common_pb2.Principal(
        principal_id=str(principal_id),
        issuer=row.issuer,
        subject=row.subject,
        kind=number_of(common_pb2.PrincipalKind, row.kind),
    )


def call_context(
    principal_id: object, record: Mapping[str, Any], row: PrincipalLike | None = None
) -> common_pb2.CallContext:
    """The context that a job's or an audit event's row keeps."""
    return common_pb2.CallContext(
        principal=principal(principal_id, row) if principal_id else None,
        peer=record.get("peer", ""),
        client_name=record.get("client", ""),
        request_id=record.get("request_id", ""),
        reason=record.get("reason", ""),
    )


def operation_error(record: Mapping[str, Any] | None, *, retryable: bool = False) -> common_pb2.OperationError | None:
    """What `DataOpsError.as_record` kept; absent when nothing went wrong."""
    if not record:
        return None
    return common_pb2.OperationError(
        reason=str(record.get("reason", "INTERNAL")),
        message=str(record.get("message", "")),
        metadata=texts(record.get("metadata") or {}),
        retryable=bool(record.get("retryable", retryable)),
        violations=[
            common_pb2.OperationViolation(subject=subject, description=description)
            for subject, description in record.get("violations") or ()
        ],
    )


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """A map<string, string> of facts: numbers and lists as text, what is None left out."""
    return {
        str(name): ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for name, value in values.items()
        if value is not None
    }


def body_sha256(request: Message) -> bytes:
    """Digest of what was asked for: two requests with the same request_id must agree in it."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


def paging_of(request: Any, caller: Caller) -> Paging:
    """The page a list request asks for; its token is bound to the caller, the rpc and every other field."""
    rest = type(request)()
    rest.CopyFrom(request)
    rest.ClearField("page_size")
    rest.ClearField("page_token")
    bound = binding_of(caller.principal_id, request.DESCRIPTOR.full_name, rest.SerializeToString(deterministic=True))
    return Paging(request.page_size, request.page_token, bound)


def page_of(page: Page[T], convert: Callable[[T], M]) -> tuple[list[M], str]:
    """The page converted, cut where the answer would pass 1 MiB, and the token of what follows."""
    return page.fitted(convert, lambda message: message.ByteSize())


def placed_page(
    items: Sequence[tuple[int, T]], paging: Paging, token: str, convert: Callable[[T], M]
) -> tuple[list[M], str]:
    """The same for items that come with their places in a stored list, which is what their tokens hold."""
    shown: list[M] = []
    used = 0
    for place, item in items:
        message = convert(item)
        used += message.ByteSize()
        if shown and used > MAX_BYTES:
            return shown, paging.token_at((place,))
        shown.append(message)
    return shown, token
