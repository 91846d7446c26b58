"""AuditService: the log of who asked for what."""

from __future__ import annotations

from typing import Any

from dataops.v1 import audit_pb2_grpc
from dataops.v1.audit_pb2 import ListAuditEventsRequest, ListAuditEventsResponse

from engine.access import Caller
from engine.audit import list_events
from engine.db.models import AuditEventRow
from engine.paging import Page
from engine.resources import Resources
from server.caller import current_caller
from server.convert.audit import event_to_pb, filter_from_pb
from server.convert.common import page_of, paging_of
from server.offload import Offload


class AuditService(audit_pb2_grpc.AuditServiceServicer):
    """VerifyAuditLog and ExportAuditLog are not built: the interceptors answer for them."""

    def __init__(self, resources: Resources, offload: Offload) -> None:
        self._resources = resources
        self._offload = offload

    async def ListAuditEvents(self, request: ListAuditEventsRequest, context: Any) -> ListAuditEventsResponse:
        page = await self._offload.call(self._events, request, current_caller(context))
        events, token = page_of(page, event_to_pb)
        return ListAuditEventsResponse(events=events, next_page_token=token)

    def _events(self, request: ListAuditEventsRequest, caller: Caller) -> Page[AuditEventRow]:
        with self._resources.db.transaction() as session:
            return list_events(session, filter_from_pb(request), paging_of(request, caller))
