"""ScheduleService's rpc of retention: what would be removed now, and what keeps the rest."""

from __future__ import annotations

from typing import Any

from dataops.v1 import schedules_pb2

from engine.retention.service import Retention
from server.caller import current_caller
from server.convert import retention as convert
from server.convert.common import page_of, paging_of
from server.offload import Offload


async def preview_retention(
    retention: Retention, offload: Offload, request: schedules_pb2.PreviewRetentionRequest, context: Any
) -> schedules_pb2.PreviewRetentionResponse:
    """One page of decisions; the bytes are those of all removals that the caller may know of."""
    caller = current_caller(context)
    paging = paging_of(request, caller)
    page, freeable = await offload.call(lambda: retention.preview(caller, paging, removals_only=request.removals_only))
    decisions, token = page_of(page, convert.decision)
    return schedules_pb2.PreviewRetentionResponse(
        decisions=decisions, next_page_token=token, freeable_size_bytes=freeable
    )
