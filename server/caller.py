"""The call in hand: set by the interceptors, asked for by the services."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, replace
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
    caller: Caller | None = None
    token_expires_at: datetime | None = None

    def describe(self, *, request_id: str = "", reason: str = "") -> None:
        """Take what the request itself says of the call into its context, and the caller's."""
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
