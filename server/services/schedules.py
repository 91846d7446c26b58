"""ScheduleService: what retention will remove."""

from __future__ import annotations

from typing import Any

from dataops.v1 import schedules_pb2, schedules_pb2_grpc

from engine.retention.service import Retention
from server.offload import Offload
from server.services.retention import preview_retention


class ScheduleService(schedules_pb2_grpc.ScheduleServiceServicer):
    """One per server."""

    def __init__(self, retention: Retention, offload: Offload) -> None:
        self._retention, self._offload = retention, offload

    async def PreviewRetention(
        self, request: schedules_pb2.PreviewRetentionRequest, context: Any
    ) -> schedules_pb2.PreviewRetentionResponse:
        return await preview_retention(self._retention, self._offload, request, context)
