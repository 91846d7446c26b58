"""What backups and restores need of whoever does them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from engine.db.platform import Connection


class Work(Protocol):
    """What a piece of work tells and hears: a job's run, or a terminal's."""

    def check(self) -> None: ...
    def stage(self, name: str, *, rows: int | None = None, bytes: int | None = None) -> None: ...  # noqa: A002
    def progress(self, *, rows: int | None = None, bytes: int | None = None) -> None: ...  # noqa: A002
    def platform(self, purpose: str, **settings: Any) -> AbstractContextManager[Connection]: ...
