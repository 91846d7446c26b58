"""ScheduleService: backups that happen by themselves, and what retention will remove."""

from __future__ import annotations

from typing import Any

from dataops.v1 import schedules_pb2, schedules_pb2_grpc

from engine.db.models import ScheduleRow
from engine.ids import parse_id
from engine.retention.service import Retention
from engine.schedules.service import Schedules
from server.caller import current_caller
from server.convert import schedules as convert
from server.convert.backups import backup
from server.convert.common import body_sha256, page_of, paging_of
from server.convert.retention import decision
from server.offload import Offload
from server.principals import Principals


class ScheduleService(schedules_pb2_grpc.ScheduleServiceServicer):
    """One per server."""

    def __init__(self, schedules: Schedules, retention: Retention, principals: Principals, offload: Offload) -> None:
        self._schedules, self._retention, self._principals, self._offload = schedules, retention, principals, offload

    async def CreateSchedule(
        self, request: schedules_pb2.CreateScheduleRequest, context: Any
    ) -> schedules_pb2.CreateScheduleResponse:
        caller, spec = current_caller(context), convert.spec_of(request.spec)
        row = await self._offload.call(
            lambda: self._schedules.create(caller, spec, request.request_id, body_sha256(request))
        )
        return schedules_pb2.CreateScheduleResponse(schedule=await self._shown(row))

    async def GetSchedule(
        self, request: schedules_pb2.GetScheduleRequest, context: Any
    ) -> schedules_pb2.GetScheduleResponse:
        schedule_id = parse_id(request.schedule_id, "schedule_id")
        row, runs = await self._offload.call(self._schedules.get_with_runs, current_caller(context), schedule_id)
        principals = await self._principals.of([row.principal_id])
        return schedules_pb2.GetScheduleResponse(schedule=convert.schedule(row, principals, runs))

    async def ListSchedules(
        self, request: schedules_pb2.ListSchedulesRequest, context: Any
    ) -> schedules_pb2.ListSchedulesResponse:
        caller = current_caller(context)
        page = await self._offload.call(self._schedules.list, caller, paging_of(request, caller))
        principals = await self._principals.of(row.principal_id for row in page.items)
        schedules, token = page_of(page, lambda row: convert.schedule(row, principals))
        return schedules_pb2.ListSchedulesResponse(schedules=schedules, next_page_token=token)

    async def UpdateSchedule(
        self, request: schedules_pb2.UpdateScheduleRequest, context: Any
    ) -> schedules_pb2.UpdateScheduleResponse:
        caller, schedule_id = current_caller(context), parse_id(request.schedule_id, "schedule_id")
        spec = convert.spec_of(request.spec)
        row = await self._offload.call(self._schedules.update, caller, schedule_id, request.revision, spec)
        return schedules_pb2.UpdateScheduleResponse(schedule=await self._shown(row))

    async def DeleteSchedule(
        self, request: schedules_pb2.DeleteScheduleRequest, context: Any
    ) -> schedules_pb2.DeleteScheduleResponse:
        schedule_id = parse_id(request.schedule_id, "schedule_id")
        await self._offload.call(self._schedules.delete, current_caller(context), schedule_id)
        return schedules_pb2.DeleteScheduleResponse()

    async def PauseSchedule(
        self, request: schedules_pb2.PauseScheduleRequest, context: Any
    ) -> schedules_pb2.PauseScheduleResponse:
        schedule_id = parse_id(request.schedule_id, "schedule_id")
        row = await self._offload.call(self._schedules.pause, current_caller(context), schedule_id)
        return schedules_pb2.PauseScheduleResponse(schedule=await self._shown(row))

    async def ResumeSchedule(
        self, request: schedules_pb2.ResumeScheduleRequest, context: Any
    ) -> schedules_pb2.ResumeScheduleResponse:
        schedule_id = parse_id(request.schedule_id, "schedule_id")
        row = await self._offload.call(self._schedules.resume, current_caller(context), schedule_id)
        return schedules_pb2.ResumeScheduleResponse(schedule=await self._shown(row))

    async def TriggerSchedule(
        self, request: schedules_pb2.TriggerScheduleRequest, context: Any
    ) -> schedules_pb2.TriggerScheduleResponse:
        caller, schedule_id = current_caller(context), parse_id(request.schedule_id, "schedule_id")
        row = await self._offload.call(
            self._schedules.trigger, caller, schedule_id, request.request_id, body_sha256(request)
        )
        return schedules_pb2.TriggerScheduleResponse(backup=backup(row, await self._principals.of([row.principal_id])))

    async def PreviewRetention(
        self, request: schedules_pb2.PreviewRetentionRequest, context: Any
    ) -> schedules_pb2.PreviewRetentionResponse:
        caller = current_caller(context)
        paging = paging_of(request, caller)
        page, freeable = await self._offload.call(
            lambda: self._retention.preview(caller, paging, removals_only=request.removals_only)
        )
        decisions, token = page_of(page, decision)
        return schedules_pb2.PreviewRetentionResponse(
            decisions=decisions, next_page_token=token, freeable_size_bytes=freeable
        )

    async def _shown(self, row: ScheduleRow) -> schedules_pb2.Schedule:
        return convert.schedule(row, await self._principals.of([row.principal_id]))
