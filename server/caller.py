"""The call in hand: filled by the interceptors, asked for by the services."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from engine.access import CallContext, Caller
from engine.errors import Unauthenticated


@dataclass
class Call:
    """One rpc under way. The interceptors fill it from the outside in."""

    method: str
    """As the wire has it: `/dataops.v1.ImportService/CreateImport`."""
    context: CallContext
    started: float = 0.0
    caller: Caller | None = None
    token_expires_at: datetime | None = None
    resource_id: str = ""
    """What the request speaks of, where it names one resource."""
    facts: dict[str, str] = field(default_factory=dict)
    """What a service wants the access log to show beside its own fields: `bytes`, `job`."""

    def describe(self, *, request_id: str = "", reason: str = "") -> None:
        """Take what the request itself says of the call into its context, and the caller's."""
        if not request_id and not reason:
            return
        self.context = replace(
            self.context, request_id=request_id or self.context.request_id, reason=reason or self.context.reason
        )
        if self.caller is not None:
            self.caller = replace(self.caller, context=self.context)


CURRENT_CALL: ContextVar[Call] = ContextVar("current_call")


def current_call(context: Any = None) -> Call:
    """The call this task serves. `context` is grpc's and is not looked at: it stands for "I am in an rpc"."""
    return CURRENT_CALL.get()


def current_caller(context: Any = None) -> Caller:
    """Who calls.

    Raises:
        Unauthenticated: TOKEN_MISSING in an rpc that lets callers in without one.
    """
    caller = CURRENT_CALL.get().caller
    if caller is None:
        raise Unauthenticated("this call needs a caller, found none", reason="TOKEN_MISSING")
    return caller
