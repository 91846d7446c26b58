"""When a schedule comes due: pure arithmetic, without database or clock.

Times are computed in the schedule's zone and given in UTC. A spec that names hours goes by the clock on the wall: a
time that a change of the clocks leaves out comes at the change (several of them once), one that it repeats comes the
first time only. A spec of every hour goes by time that passes, so that no change makes a hole or a crowd.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from cronsim.cronsim import Field

from engine.errors import InvalidRequest, Violation

WORDS = {"@daily": "0 2 * * *", "@weekly": "0 2 * * 0", "@monthly": "0 2 1 * *"}
"""At 02:00 of the zone; Sunday is 0."""

FIELDS = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of month": "1 to 31 or L",
    "month": "1 to 12 or jan to dec",
    "day of week": "0 to 7 or sun to sat",
}
"""Each with what it may be."""

EXPECTED = "expected five fields (minute, hour, day of month, month, day of week) or one of " + ", ".join(WORDS)

_ANY_DAY = datetime(2024, 1, 1, tzinfo=UTC)
_PART = re.compile(r"[0-9A-Za-z*/#-]+")
_PARSERS = (Field.MINUTE, Field.HOUR, Field.DAY, Field.MONTH, Field.DOW)
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Times:
    """All times of one spec in one zone."""

    fields: str
    zone: ZoneInfo
    every_hour: bool

    def after(self, moment: datetime) -> datetime | None:
        """The first time behind `moment`; None when there is none in 50 years."""
        return next(self.following(moment), None)

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """The times behind `start`, `end` included, in order."""
        return takewhile(lambda time: time <= end, self.following(start))

    def next(self, moment: datetime, count: int) -> list[datetime]:
        """The first `count` times behind `moment`."""
        return list(islice(self.following(moment), count))

    def following(self, moment: datetime) -> Iterator[datetime]:
        """The times behind `moment`, each later than the one before."""
        last = moment
        for found in self._passing(moment) if self.every_hour else self._on_the_wall(moment):
            if found > last:
                yield found
                last = found

    def _passing(self, moment: datetime) -> Iterator[datetime]:
        return (found.astimezone(UTC) for found in CronSim(self.fields, moment.astimezone(self.zone)))

    def _on_the_wall(self, moment: datetime) -> Iterator[datetime]:
        """In no order where the clock goes back: what comes then lies before what was given already."""
        wall = moment.astimezone(self.zone).replace(tzinfo=None, fold=0)
        return (self._moment_of(found) for found in CronSim(self.fields, wall))

    def _moment_of(self, wall: datetime) -> datetime:
        """When the clock on the wall shows this first, or is put past it."""
        while (found := wall.replace(tzinfo=self.zone).astimezone(UTC)).astimezone(self.zone).replace(
            tzinfo=None, fold=0
        ) != wall:
            wall += _MINUTE
        return found


def parse_times(cron: str, time_zone: str) -> Times:
    """The times of five fields of cron, or of a word with an @, in the zone of this IANA name; UTC if empty.

    Raises:
        InvalidRequest: SCHEDULE_INVALID, naming what is wrong.
    """
    zone = _zone(time_zone or "UTC")
    fields = WORDS.get(cron.strip().lower(), cron).split()
    if len(fields) != len(FIELDS):
        raise invalid("cron", f"found {_counted(fields)}, {EXPECTED}")
    for (name, values), field, text in zip(FIELDS.items(), _PARSERS, fields, strict=True):
        if (wrong := _wrong(field, text)) is not None:
            raise invalid("cron", f"found {wrong[:40]!r} as its {name}, expected {values} with * , - /")
    try:
        hours = CronSim(" ".join(fields), _ANY_DAY).hours
    except CronSimError:  # each field is one: no month of these has such a day
        raise _never(fields) from None
    except (AssertionError, TypeError, ValueError):  # what it does not expect
        raise invalid("cron", f"found {' '.join(fields)!r}, {EXPECTED}") from None
    every_hour = len(hours) == 24
    if every_hour:
        fields[1] = "*"  # by which the library tells that it is to go by time that passes
    times = Times(" ".join(fields), zone, every_hour)
    if times.after(_ANY_DAY) is None:
        raise _never(fields)
    return times


def invalid(field: str, wrong: str) -> InvalidRequest:
    """What is said of a spec that cannot be one."""
    return InvalidRequest(
        f"{field}: {wrong}", reason="SCHEDULE_INVALID", violations=[Violation(f"spec.{field}", wrong)]
    )


def _never(fields: list[str]) -> InvalidRequest:
    return invalid("cron", f"found {' '.join(fields)!r}, a day that never comes")


def _wrong(field: Field, text: str) -> str | None:
    """The part of a field that is none, None where all are."""
    for part in text.split(","):
        try:
            if not _PART.fullmatch(part):
                return part
            field.parse(part.upper())
        except (CronSimError, AssertionError, TypeError, ValueError):  # the latter are what it does not expect
            return part
    return None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise invalid("time_zone", f"found {name[:60]!r}, expected an IANA name like Europe/Berlin") from None


def _counted(fields: list[str]) -> str:
    if fields and fields[0].startswith("@"):
        return repr(fields[0][:40])
    return f"{len(fields)} field{'' if len(fields) == 1 else 's'}"
