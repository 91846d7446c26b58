"""Schedules of backups for a program. Part of `DataOps`."""

from __future__ import annotations

import uuid

from dataops.v1 import backups_pb2, schedules_pb2, schedules_pb2_grpc

from dataops_client.errors import typed_errors


class ScheduleCalls:
    """The calls that are about schedules; a backup that one makes is a backup as any other."""

    schedules: schedules_pb2_grpc.ScheduleServiceStub

    def create_schedule(self, spec: schedules_pb2.ScheduleSpec, *, reason: str = "") -> schedules_pb2.Schedule:
        """Make a schedule; its backups are made with what its maker may do when it fires."""
        request = schedules_pb2.CreateScheduleRequest(request_id=str(uuid.uuid4()), spec=spec, reason=reason)
        with typed_errors():
            return self.schedules.CreateSchedule(request).schedule

    def get_schedule(self, schedule_id: str) -> schedules_pb2.Schedule:
        """One schedule with its next times, and what became of its last ones."""
        with typed_errors():
            return self.schedules.GetSchedule(schedules_pb2.GetScheduleRequest(schedule_id=schedule_id)).schedule

    def list_schedules(self, *, limit: int = 50) -> list[schedules_pb2.Schedule]:
        """The newest schedules, at most `limit` and at most 1,000."""
        with typed_errors():
            return list(self.schedules.ListSchedules(schedules_pb2.ListSchedulesRequest(page_size=limit)).schedules)

    def update_schedule(
        self, seen: schedules_pb2.Schedule, spec: schedules_pb2.ScheduleSpec, *, reason: str = ""
    ) -> schedules_pb2.Schedule:
        """Give the schedule that was seen another spec; SCHEDULE_CHANGED if it is another one by now."""
        request = schedules_pb2.UpdateScheduleRequest(
            schedule_id=seen.schedule_id, revision=seen.revision, spec=spec, reason=reason
        )
        with typed_errors():
            return self.schedules.UpdateSchedule(request).schedule

    def pause_schedule(self, schedule_id: str, reason: str = "") -> schedules_pb2.Schedule:
        """Keep a schedule from firing; a backup that is being made goes on."""
        request = schedules_pb2.PauseScheduleRequest(schedule_id=schedule_id, reason=reason)
        with typed_errors():
            return self.schedules.PauseSchedule(request).schedule

    def resume_schedule(self, schedule_id: str, reason: str = "") -> schedules_pb2.Schedule:
        """Let a schedule fire again, from its next time on."""
        request = schedules_pb2.ResumeScheduleRequest(schedule_id=schedule_id, reason=reason)
        with typed_errors():
            return self.schedules.ResumeSchedule(request).schedule

    def trigger_schedule(self, schedule_id: str, reason: str = "") -> backups_pb2.Backup:
        """Fire a schedule now; the backup as it was recorded: its job goes on."""
        request = schedules_pb2.TriggerScheduleRequest(
            request_id=str(uuid.uuid4()), schedule_id=schedule_id, reason=reason
        )
        with typed_errors():
            return self.schedules.TriggerSchedule(request).backup

    def delete_schedule(self, schedule_id: str, reason: str = "") -> None:
        """Delete a schedule; its backups stay."""
        request = schedules_pb2.DeleteScheduleRequest(schedule_id=schedule_id, reason=reason)
        with typed_errors():
            self.schedules.DeleteSchedule(request)
