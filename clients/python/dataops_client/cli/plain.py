"""Messages as plain values: what `--json` prints and what tables show."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

# The descriptors of the C++ implementation and of the pure Python one are two families of types.
_Descriptor = Any


def plain(message: Message) -> Any:
    """A message as JSON values under its field names.

    Enums are their bare words, numbers are numbers (protobuf's own JSON makes 64 bit ones text), times are ISO
    8601 in UTC, durations seconds, bytes hexadecimal; what is absent is null, so that every key is always there.
    """
    if isinstance(message, Timestamp):
        return message.ToJsonString()
    if isinstance(message, Duration):
        return message.seconds + message.nanos / 1e9
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields if _shown(message, field)}


def word(enum: _Descriptor, number: int) -> str:
    """The bare word of an enum's value: COMPLETED for EXPORT_STATUS_COMPLETED; the number if it is unknown."""
    value = enum.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in enum.name).lstrip("_") + "_"
    return str(value.name).removeprefix(prefix)


def enum_word(message: Message, field: str) -> str:
    """The bare word of an enum field."""
    return word(message.DESCRIPTOR.fields_by_name[field].enum_type, getattr(message, field))


def size_text(size: float) -> str:
    """Bytes for a person."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _shown(message: Message, field: _Descriptor) -> bool:
    """Of a oneof only what is set."""
    oneof = field.containing_oneof
    return oneof is None or len(oneof.fields) == 1 or message.HasField(field.name)


def _field(message: Message, field: _Descriptor) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return dict(value)
        return [_value(item, field) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _value(value, field)


def _value(value: Any, field: _Descriptor) -> Any:
    if field.enum_type is not None:
        return word(field.enum_type, value)
    if field.message_type is not None:
        return plain(value)
    return value.hex() if isinstance(value, bytes) else value
