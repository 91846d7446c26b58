"""Hooks at which a test kills, stops or fails a process at an exact point. Nothing happens unless armed.

`DATAOPS_FAULT_AT="name=action[,name=action]"` with setting `fault_hooks` on; actions:

- `kill`: SIGKILL ourselves;
- `error`: raise `InjectedFault`;
- `wait:<path>`: make `<path>.reached`, then wait until `<path>` exists.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from engine.config import Settings

VARIABLE = "DATAOPS_FAULT_AT"

_actions: dict[str, str] = {}


class InjectedFault(RuntimeError):
    """What the action `error` raises: an exception nobody expects."""


def arm(settings: Settings) -> None:
    """Read the hooks from the environment; called once by a process's entry point, a no-op in production."""
    _actions.clear()
    if settings.fault_hooks:
        for item in filter(None, os.environ.get(VARIABLE, "").split(",")):
            name, _, action = item.partition("=")
            _actions[name] = action


def fault(name: str) -> None:
    """A named point: does what the test armed for it, normally nothing."""
    action = _actions.get(name)
    if action is None:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "error":
        raise InjectedFault(name)
    elif action.startswith("wait:"):
        path = Path(action.removeprefix("wait:"))
        path.with_name(path.name + ".reached").touch()
        while not path.exists():
            time.sleep(0.02)
