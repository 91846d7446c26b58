"""What retention decides, on the wire."""

from __future__ import annotations

from dataops.v1 import schedules_pb2

from engine.retention.model import Decision


def decision(found: Decision) -> schedules_pb2.RetentionDecision:
    return schedules_pb2.RetentionDecision(
        resource=found.resource,
        remove=found.remove,
        code=found.code,
        message=found.message,
        freeable_size_bytes=found.size,
    )
