"""One place that turns the `artifacts` setting into a storage."""

from __future__ import annotations

import threading
from pathlib import Path

from engine.errors import InvalidRequest
from engine.storage.base import Storage
from engine.storage.local import LocalStorage
from engine.storage.memory import MemoryStorage

_shared: dict[str, MemoryStorage] = {}
_lock = threading.Lock()


def storage_from(setting: str, *, existing: bool = False) -> Storage:
    """The storage that `setting` names: a folder (made when missing), `memory:`, or `memory:<name>`.

    `memory:` is a new one each time; one with a name is shared by everything in this process that names it. With
    `existing` a folder must be there, and nothing is made in it.

    Raises:
        InvalidRequest: STORAGE_SETTING when it is empty or of a kind this release does not know.
    """
    if setting.startswith("memory:"):
        name = setting.removeprefix("memory:")
        if not name:
            return MemoryStorage()
        with _lock:
            return _shared.setdefault(name, MemoryStorage())
    if not setting or "://" in setting:
        raise InvalidRequest(
            f"artifacts: expected a folder or `memory:`, found {setting.partition('://')[0]!r}",
            reason="STORAGE_SETTING",
        )
    if existing and not Path(setting).is_dir():
        raise InvalidRequest("artifacts: found no such folder", reason="STORAGE_SETTING")
    return LocalStorage(Path(setting), make=not existing)
