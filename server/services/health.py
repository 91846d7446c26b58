"""grpc.health.v1: whether this server takes calls. Anonymous, and about the server only, not about what is behind it:
a database that is away for a second is answered with UNAVAILABLE and a time to come back, not by taking every server
out of its balancer at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from engine.errors import NotFound
from server.contract import SERVICES
from server.drain import Drain

Response = health_pb2.HealthCheckResponse
KNOWN = frozenset({"", *(service.full_name for service in SERVICES)})


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """SERVING until the drain begins."""

    def __init__(self, drain: Drain) -> None:
        self._drain = drain

    async def Check(self, request: Any, context: Any) -> Any:
        if request.service not in KNOWN:
            raise NotFound("service: found none of this name", reason="SERVICE_UNKNOWN")
        return Response(status=self._status())

    async def Watch(self, request: Any, context: Any) -> AsyncGenerator[Any, None]:
        """The state now and at its one change; an unknown service is told as such and may never come to be."""
        if request.service not in KNOWN:
            yield Response(status=Response.SERVICE_UNKNOWN)
            await asyncio.Event().wait()
        stopping = asyncio.Event()
        with self._drain.waking(stopping.set):
            yield Response(status=self._status())
            if not self._drain.begun:
                await stopping.wait()
                yield Response(status=self._status())

    def _status(self) -> Any:
        return Response.NOT_SERVING if self._drain.begun else Response.SERVING
