"""Retention for a program: what it would remove now. Part of `DataOps`."""

from __future__ import annotations

from dataops.v1 import schedules_pb2, schedules_pb2_grpc

from dataops_client.paging import pages


class RetentionCalls:
    """The calls that are about retention."""

    schedules: schedules_pb2_grpc.ScheduleServiceStub

    def preview_retention(self, *, removals_only: bool = False) -> tuple[list[schedules_pb2.RetentionDecision], int]:
        """The decision over each thing that is kept for a time, and the bytes that all removals would free. Nothing is
        removed by asking. What the caller could not list is not among it."""
        decisions: list[schedules_pb2.RetentionDecision] = []
        freeable = 0
        request = schedules_pb2.PreviewRetentionRequest(page_size=1000, removals_only=removals_only)
        for page in pages(self.schedules.PreviewRetention, request):
            decisions += page.decisions
            freeable = page.freeable_size_bytes
        return decisions, freeable
