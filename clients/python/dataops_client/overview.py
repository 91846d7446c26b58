"""The overview for a program. Part of `DataOps`."""

from __future__ import annotations

from dataops.v1 import overview_pb2, overview_pb2_grpc

from dataops_client.errors import typed_errors


class OverviewCalls:
    """The call that is about everything."""

    overview: overview_pb2_grpc.OverviewServiceStub

    def get_overview(self, recent: int = 0) -> overview_pb2.GetOverviewResponse:
        """The state of backups, schedules, exports, imports and jobs as far as the caller may see them; of the newest
        exports and imports `recent` each, at most 50, 5 for 0."""
        with typed_errors():
            return self.overview.GetOverview(overview_pb2.GetOverviewRequest(recent=recent))
