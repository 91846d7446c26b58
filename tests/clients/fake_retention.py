"""Retention of the fake server: what a test says it decides."""

from __future__ import annotations

from dataops.v1 import schedules_pb2, schedules_pb2_grpc

from tests.clients.fake_world import World, page


class Schedules(schedules_pb2_grpc.ScheduleServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def PreviewRetention(self, request, context):
        self.world.asked.append(request)
        found = [d for d in self.world.retained if d.remove or not request.removals_only]
        decisions, token = page(found, min(request.page_size, 2), request.page_token)
        freeable = sum(d.freeable_size_bytes for d in self.world.retained)
        return schedules_pb2.PreviewRetentionResponse(
            decisions=decisions, next_page_token=token, freeable_size_bytes=freeable
        )
