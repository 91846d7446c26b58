"""Who may do what: callers, permissions, roles, grants, and the request ids that make starting work idempotent."""

from engine.access.caller import SYSTEM_CONTEXT, CallContext, Caller, system_caller
from engine.access.idempotency import once
from engine.access.service import bootstrap, caller_of, principals, resolve_caller

__all__ = [
    "SYSTEM_CONTEXT",
    "CallContext",
    "Caller",
    "bootstrap",
    "caller_of",
    "once",
    "principals",
    "resolve_caller",
    "system_caller",
]
