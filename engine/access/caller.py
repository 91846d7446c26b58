"""The caller as the engine knows it: who, from where, and what it may."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Self

from engine.access.permission import permitted
from engine.errors import PermissionDenied


@dataclass(frozen=True)
class CallContext:
    """From where and why something was asked for. It stands on every job and audit row."""

    peer: str = ""
    client: str = ""
    request_id: str = ""
    """The request's own id where it has one, else the correlation id that the server gave the call."""
    reason: str = ""
    rpc: str = ""

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> Self:
        """From what a row keeps; a name that this release does not know is left out."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: str(value) for name, value in record.items() if name in known})

    def as_record(self) -> dict[str, str]:
        """The form that rows keep."""
        return asdict(self)


SYSTEM_CONTEXT = CallContext(client="dataops")
"""Of what DataOps does by itself: bootstrap, sweeps, a worker's re-check."""

SYSTEM_ISSUER = "dataops"
SYSTEM_ID = uuid.UUID(int=0)
"""Of no principal: nobody can call by it."""


@dataclass(frozen=True)
class Caller:
    """A principal with the roles it held when it was looked up. Look it up again before an effect that comes later."""

    principal_id: uuid.UUID
    issuer: str
    subject: str
    kind: str
    roles: tuple[str, ...]
    permissions: tuple[str, ...]
    context: CallContext = field(default_factory=CallContext)

    def may(self, operation: str, entity: str | None = None, mode: str | None = None) -> bool:
        """Whether the roles permit it. Without an entity: whether they permit it on some entity; likewise the mode."""
        return permitted(self.permissions, operation, entity, mode)

    def require(self, operation: str, entity: str | None = None, mode: str | None = None) -> None:
        """Return when the roles permit it.

        Raises:
            PermissionDenied: PERMISSION_MISSING, metadata operation, entity, mode.
        """
        if self.may(operation, entity, mode):
            return
        asked = {"operation": operation, "entity": entity or "", "mode": mode or ""}
        on = f" on {entity}" if entity else ""
        as_mode = f" as {mode}" if mode else ""
        raise PermissionDenied(
            f"{operation}{on}{as_mode}: none of the caller's roles permits it",
            reason="PERMISSION_MISSING",
            metadata={name: value for name, value in asked.items() if value},
        )


def system_caller(part: str) -> Caller:
    """DataOps itself, as the audit log names who removed something that nobody asked to be removed."""
    return Caller(SYSTEM_ID, SYSTEM_ISSUER, part, "SYSTEM", (), (), SYSTEM_CONTEXT)
