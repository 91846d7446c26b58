"""The one place that answers for rpcs of the contract which this version does not do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.errors import NotBuilt
from server.caller import Call
from server.interceptors.base import Context, Interceptor
from server.not_built import NOT_BUILT


class Unbuilt(Interceptor):
    """Answers UNIMPLEMENTED, reason NOT_BUILT."""

    @asynccontextmanager
    async def around(self, call: Call, context: Context) -> AsyncIterator[None]:
        if call.method in NOT_BUILT:
            raise NotBuilt(
                f"{call.method.rpartition('/')[2]} is in the contract and not in this version",
                reason="NOT_BUILT",
                metadata={"method": call.method},
            )
        yield
