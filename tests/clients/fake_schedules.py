"""Schedules of the fake server: one, over one World; and what a test says that retention decides."""

from __future__ import annotations

import grpc
from dataops.v1 import backups_pb2, schedules_pb2, schedules_pb2_grpc

from tests.clients.fake_world import BACKUP_ID, JOB_ID, SCHEDULE_ID, World, page, refuse


class Schedules(schedules_pb2_grpc.ScheduleServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def CreateSchedule(self, request, context):
        self.world.started.append(request)
        self.world.schedule.spec.CopyFrom(request.spec)
        return schedules_pb2.CreateScheduleResponse(schedule=self.world.schedule)

    def GetSchedule(self, request, context):
        if request.schedule_id != self.world.schedule.schedule_id:
            refuse(context, grpc.StatusCode.NOT_FOUND, "SCHEDULE_UNKNOWN", "schedule: found none with this id")
        return schedules_pb2.GetScheduleResponse(schedule=self.world.schedule)

    def ListSchedules(self, request, context):
        self.world.asked.append(request)
        return schedules_pb2.ListSchedulesResponse(schedules=[self.world.schedule])

    def UpdateSchedule(self, request, context):
        self.world.started.append(request)
        if request.revision != self.world.schedule.revision or request.spec.name == "theirs":
            refuse(context, grpc.StatusCode.ABORTED, "SCHEDULE_CHANGED", "schedule: found it at revision 4, expected 3")
        self.world.schedule.spec.CopyFrom(request.spec)
        self.world.schedule.revision += 1
        return schedules_pb2.UpdateScheduleResponse(schedule=self.world.schedule)

    def PauseSchedule(self, request, context):
        self.world.started.append(request)
        self.world.schedule.paused = True
        del self.world.schedule.next_runs[:]
        return schedules_pb2.PauseScheduleResponse(schedule=self.world.schedule)

    def ResumeSchedule(self, request, context):
        self.world.started.append(request)
        self.world.schedule.paused = False
        return schedules_pb2.ResumeScheduleResponse(schedule=self.world.schedule)

    def TriggerSchedule(self, request, context):
        self.world.started.append(request)
        return schedules_pb2.TriggerScheduleResponse(backup=self.world.backup)

    def DeleteSchedule(self, request, context):
        self.world.started.append(request)
        return schedules_pb2.DeleteScheduleResponse()

    def PreviewRetention(self, request, context):
        self.world.asked.append(request)
        found = [d for d in self.world.retained if d.remove or not request.removals_only]
        decisions, token = page(found, min(request.page_size, 2), request.page_token)
        freeable = sum(d.freeable_size_bytes for d in self.world.retained)
        return schedules_pb2.PreviewRetentionResponse(
            decisions=decisions, next_page_token=token, freeable_size_bytes=freeable
        )


def make_schedule(world: World) -> schedules_pb2.Schedule:
    """A schedule of which nearly everything must be said."""
    schedule = world.schedule
    schedule.schedule_id, schedule.revision, schedule.last_backup_id = SCHEDULE_ID, 3, BACKUP_ID
    schedule.spec.name, schedule.spec.cron, schedule.spec.time_zone = "nightly", "30 2 * * *", "Europe/Berlin"
    schedule.spec.backup_type = backups_pb2.BACKUP_TYPE_FULL
    schedule.spec.verify_level = backups_pb2.VERIFY_LEVEL_DECODED
    schedule.spec.overlap_policy = schedules_pb2.OVERLAP_POLICY_BUFFER_ONE
    schedule.spec.entity_types.extend(["users", "points"])
    schedule.spec.retention.FromSeconds(30 * 86400)
    schedule.spec.catch_up_window.FromSeconds(86400)
    schedule.principal.subject = "ada"
    schedule.missed_runs, schedule.skipped_runs, schedule.failed_runs = 2, 0, 1
    schedule.last_run_at.FromJsonString("2026-11-26T01:30:02Z")
    for day in (27, 28):
        schedule.next_runs.add().FromJsonString(f"2026-11-{day}T01:30:00Z")
    schedule.last_error.reason, schedule.last_error.message = "DATABASE_LOST", "the database: lost the connection"
    waiting = schedule.recent_runs.add(
        outcome=schedules_pb2.SCHEDULE_RUN_OUTCOME_WAITING, backup_id=BACKUP_ID, attempts=1
    )
    waiting.due_at.FromJsonString("2026-11-26T01:30:00Z")
    waiting.retry_at.FromJsonString("2026-11-26T01:36:00Z")
    waiting.error.CopyFrom(schedule.last_error)
    schedule.recent_runs.add(outcome=schedules_pb2.SCHEDULE_RUN_OUTCOME_MISSED).due_at.FromJsonString(
        "2026-11-25T01:30:00Z"
    )
    world.backup.job_id = JOB_ID
    return schedule
