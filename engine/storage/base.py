"""The storage interface. Every implementation and wrapper runs `tests/suites/storage_suite.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from engine.errors import InvalidRequest, NotFound

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as `list` shows it: `size` in bytes, `modified` by the storage's own clock, aware."""

    name: str
    size: int
    modified: datetime


class Storage(Protocol):
    """Immutable objects under names. All methods may be called from several threads and processes at once.

    Names are relative, `/` parts them, no segment starts with a dot: anything else is InvalidRequest
    OBJECT_NAME_INVALID. Transient trouble is Unavailable STORAGE_FAILED, no room ResourceExhausted STORAGE_FULL; after
    either a `put` may or may not have happened. No method is called on a thread with a running event loop.
    """

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Make `name` with exactly `data`, durable (file and folder flushed) when this returns.

        Create-only: an object of that name is never replaced. Nobody ever sees part of `data` under `name`. The
        buffer is not kept after the return.

        Raises:
            AlreadyExists: OBJECT_EXISTS; what is there stays as it was.
        """

    def get(self, name: str) -> bytes:
        """All of a small object.

        Raises:
            NotFound: OBJECT_MISSING.
        """

    def get_into(self, name: str, room: memoryview) -> int:
        """Fill `room` from the object's beginning; how many bytes, fewer than there is room where the object ends.

        Quickest into memory that begins at a page, with room for whole blocks of 4 KiB.

        Raises:
            NotFound: OBJECT_MISSING.
        """

    def delete(self, name: str) -> None:
        """Remove `name`; done already counts as done, so it may be repeated."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects whose name starts with `prefix`, in no order, each once.

        Objects made or deleted while it runs may be shown or not; all others are shown.
        """

    def tidy(self, before: datetime) -> int:
        """Remove what puts begun before `before` left when their process died; returns how many."""


def checked_name(name: str) -> str:
    """`name` itself when it is a legal object name.

    Raises:
        InvalidRequest: OBJECT_NAME_INVALID; nothing that could leave the storage's folder passes.
    """
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise InvalidRequest(f"object name {name[:60]!r} is not allowed", reason="OBJECT_NAME_INVALID")
    return name


def copied_into(room: memoryview, data: bytes) -> int:
    """`get_into` for those that have an object's bytes already."""
    fits = min(len(room), len(data))
    room[:fits] = data[:fits]
    return fits


def missing(name: str) -> NotFound:
    return NotFound(f"object {name!r} is not in the storage", reason="OBJECT_MISSING")
