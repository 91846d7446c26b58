"""OverviewService: what the admin page's first screen shows."""

from __future__ import annotations

import uuid
from typing import Any

from dataops.v1 import overview_pb2, overview_pb2_grpc

from engine.overview.service import Overview, OverviewPage
from server.caller import current_caller
from server.convert import overview as convert
from server.offload import Offload
from server.principals import Principals


class OverviewService(overview_pb2_grpc.OverviewServiceServicer):
    """One per server."""

    def __init__(self, overview: Overview, principals: Principals, offload: Offload) -> None:
        self._overview, self._principals, self._offload = overview, principals, offload

    async def GetOverview(
        self, request: overview_pb2.GetOverviewRequest, context: Any
    ) -> overview_pb2.GetOverviewResponse:
        page = await self._offload.call(self._overview.get, current_caller(context), request.recent)
        return convert.overview(page, await self._principals.of(_asked_by(page)))


def _asked_by(page: OverviewPage) -> set[uuid.UUID]:
    rows: list[Any] = [*page.exports, *page.imports, *([page.last_backup] if page.last_backup else [])]
    return {row.principal_id for row in rows}
