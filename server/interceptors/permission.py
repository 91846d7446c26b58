"""What the caller may: the rpc's permission option, before any byte of the request is parsed.

The option names the operation alone. On which entity and in which mode is in the request; the service asks for that
beside its work, and again at the moment of effect.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.errors import InternalError
from server.caller import Call, current_caller
from server.contract import AUTHENTICATED, PACKAGE, RPCS
from server.interceptors.base import Context, Interceptor


class Permissions(Interceptor):
    """Refuses callers none of whose roles permits the rpc's operation on any entity."""

    @asynccontextmanager
    async def around(self, call: Call, context: Context) -> AsyncIterator[None]:
        if call.method.startswith(PACKAGE) and (rpc := RPCS.get(call.method)) is not None:
            if not rpc.permission:  # a test keeps this from happening; if it does, nobody gets in
                raise InternalError("this rpc does not say what permits it", reason="INTERNAL")
            if rpc.permission != AUTHENTICATED:
                current_caller().require(rpc.permission)
        yield
