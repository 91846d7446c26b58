"""The words of schedules, and what is asked for: plain values, without database or wire."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum

from engine.backups.model import BackupType, VerifyLevel
from engine.schedules.times import invalid, parse_times

SECONDS_OF_A_DAY = 86_400.0
CATCH_UP_SECONDS = SECONDS_OF_A_DAY
LEAST_CATCH_UP_SECONDS = 60.0
"""A time is never begun in its very second: a shorter window would miss some of them without any downtime."""

LEAST_RETENTION_SECONDS = 3_600.0
MOST_SECONDS = 36_525 * SECONDS_OF_A_DAY
"""100 years, of any duration: a moment behind the year 9999 cannot be kept."""

RETRY_AFTER = (timedelta(minutes=5), timedelta(minutes=15), timedelta(minutes=60))
"""Pauses before the second, third and fourth backup of one time, each of which tries by itself what a job tries."""


class Overlap(StrEnum):
    """What happens when a time comes while the run before it goes on."""

    SKIP = "SKIP"
    BUFFER_ONE = "BUFFER_ONE"


class Outcome(StrEnum):
    """What became of a time."""

    STARTED = "STARTED"
    WAITING = "WAITING"
    SKIPPED = "SKIPPED"
    MISSED = "MISSED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class ScheduleSpec:
    """When and what, parsed. Durations are seconds."""

    name: str
    cron: str
    time_zone: str = "UTC"
    backup_type: BackupType = BackupType.FULL
    entity_types: tuple[str, ...] = ()
    """Names of entities or groups; empty for all there are when it fires."""
    retention_seconds: float | None = None
    """None: as the installation keeps backups."""
    verify_level: VerifyLevel | None = None
    overlap_policy: Overlap = Overlap.SKIP
    catch_up_seconds: float = CATCH_UP_SECONDS

    def require_valid(self) -> None:
        """Return when a schedule can be made of it.

        Raises:
            InvalidRequest: SCHEDULE_INVALID.
        """
        parse_times(self.cron, self.time_zone)
        if self.retention_seconds is not None:
            _require("retention", self.retention_seconds, LEAST_RETENTION_SECONDS, "an hour")
        _require("catch_up_window", self.catch_up_seconds, LEAST_CATCH_UP_SECONDS, "a minute")

    def as_columns(self) -> dict[str, object]:
        """What the row keeps of it, by column: its fields have their names."""
        return asdict(self) | {"entity_types": list(self.entity_types)}


def _require(field: str, seconds: float, least: float, words: str) -> None:
    if not least <= seconds <= MOST_SECONDS:
        raise invalid(field, f"found {seconds:,.0f} s, expected {words} to 100 years")
