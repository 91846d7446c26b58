"""What uploads and downloads share."""

from __future__ import annotations

from collections.abc import Callable

MESSAGE_BYTES = 1024 * 1024
"""The most a message may carry."""

OnBytes = Callable[[int, int | None], None]
"""Told as bytes move: bytes so far, and in all if known. Called from any thread."""


def no_bytes(_done: int, _size: int | None) -> None:
    """Progress that nobody looks at."""
