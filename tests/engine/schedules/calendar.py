"""Times computed another way than the engine does: day by day, from what the zone says of each minute."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

Days = Callable[[date], bool]


def daily(zone: str, at: time, start: datetime, end: datetime, days: Days = lambda _day: True) -> list[datetime]:
    """The moments behind `start`, `end` included, at which the wall clock of these days first shows `at` or more."""
    where = ZoneInfo(zone)
    day, last = start.astimezone(where).date() - timedelta(days=1), end.astimezone(where).date()
    found = []
    while day <= last:
        if days(day):
            moment = _first(where, datetime.combine(day, at))
            if start < moment <= end:
                found.append(moment)
        day += timedelta(days=1)
    return found


def _first(where: ZoneInfo, wall: datetime) -> datetime:
    """By looking, from hours before on, for the first quarter of an hour in UTC that shows `wall` or later."""
    moment = wall.replace(tzinfo=UTC)
    moment -= moment.astimezone(where).utcoffset() + timedelta(hours=3)  # type: ignore[operator]
    while _shown(moment, where) < wall:
        moment += timedelta(minutes=15)
    return moment


def _shown(moment: datetime, where: ZoneInfo) -> datetime:
    return moment.astimezone(where).replace(tzinfo=None, fold=0)
