"""The overview of the fake server."""

from __future__ import annotations

from dataops.v1 import overview_pb2_grpc

from tests.clients.fake_world import World


class Overviews(overview_pb2_grpc.OverviewServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def GetOverview(self, request, context):
        self.world.asked.append(request)
        return self.world.overview
