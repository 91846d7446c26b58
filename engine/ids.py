"""Identifiers: UUIDv7, so that ids sort by the time they were made and index pages fill from one side."""

from __future__ import annotations

import os
import time
import uuid

from engine.errors import InvalidRequest


def new_id() -> uuid.UUID:
    """A fresh UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then 74 random bits."""
    millis = time.time_ns() // 1_000_000
    value = (millis & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


def parse_id(text: str, field: str) -> uuid.UUID:
    """The id in `text`.

    Raises:
        InvalidRequest: INVALID_ID when it is no UUID.
    """
    try:
        return uuid.UUID(text)
    except ValueError:
        raise InvalidRequest(f"{field}: expected a UUID, found {text[:40]!r}", reason="INVALID_ID") from None
