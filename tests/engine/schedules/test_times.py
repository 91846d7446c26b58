"""Times of schedules: words, five fields, zones, both changes of the clocks, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidRequest
from engine.schedules.times import parse_times
from tests.engine.schedules import calendar

START = datetime(2026, 1, 1, tzinfo=UTC)
ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/Havana", "Asia/Kathmandu")


def moments(cron: str, zone: str, start: str, count: int) -> list[str]:
    """The next times as the zone's clocks show them."""
    where = ZoneInfo(zone)
    begin = datetime.fromisoformat(start).replace(tzinfo=where)
    return [f"{found.astimezone(where):%d %H:%M %z}" for found in parse_times(cron, zone).next(begin, count)]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("@daily", ["2026-01-01 02", "2026-01-02 02"]),
        ("@Weekly", ["2026-01-04 02", "2026-01-11 02"]),
        ("@monthly", ["2026-01-01 02", "2026-02-01 02"]),
        ("30 2 29 2 *", ["2028-02-29 02", "2032-02-29 02"]),
        ("0 6 13 * 5", ["2026-01-02 06", "2026-01-09 06"]),  # the 13th, and each Friday
        ("0 6 L * *", ["2026-01-31 06", "2026-02-28 06"]),
        ("0 */6 * jan *", ["2026-01-01 06", "2026-01-01 12"]),
    ],
)
def test_words_and_five_fields(word: str, expected: list[str]) -> None:
    times = parse_times(word, "")

    assert [f"{found:%Y-%m-%d %H}" for found in times.next(START, 2)] == expected


@pytest.mark.parametrize(
    ("cron", "zone", "start", "expected"),
    [
        # left out in spring: at the change, and several of them once
        ("30 2 * * *", "America/New_York", "2026-03-07T12:00", ["08 03:00 -0400", "09 02:30 -0400"]),
        ("*/20 2 * * *", "America/New_York", "2026-03-07T12:00", ["08 03:00 -0400", "09 02:00 -0400"]),
        ("0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00", ["29 03:00 +0200", "30 02:00 +0200"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", ["04 02:30 +1100", "05 02:15 +1100"]),
        ("30 0 * * *", "America/Havana", "2026-03-07T12:00", ["08 01:00 -0400", "09 00:30 -0400"]),
        # repeated in autumn: once, the first time
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00", ["01 01:30 -0400", "02 01:30 -0500"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["25 02:30 +0200", "26 02:30 +0100"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00", ["05 01:45 +1100", "06 01:45 +1030"]),
        ("0 */2 * * *", "Europe/Berlin", "2026-10-25T01:00", ["25 02:00 +0200", "25 04:00 +0100"]),
        # every hour: no hole and no crowd
        ("0 * * * *", "America/New_York", "2026-03-08T00:30", ["08 01:00 -0500", "08 03:00 -0400"]),
        ("0 0-23 * * *", "America/New_York", "2026-11-01T00:30", ["01 01:00 -0400", "01 01:00 -0500"]),
    ],
)
def test_changes_of_the_clocks(cron: str, zone: str, start: str, expected: list[str]) -> None:
    assert moments(cron, zone, start, len(expected)) == expected


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("at", [time(0, 0), time(0, 30), time(1, 30), time(2, 0), time(2, 15), time(3, 0)])
def test_400_days_are_those_of_another_reckoning(zone: str, at: time) -> None:
    end = START + timedelta(days=400)
    found = parse_times(f"{at.minute} {at.hour} * * *", zone).between(START, end)

    assert list(found) == calendar.daily(zone, at, START, end)


def test_days_of_the_week_are_those_of_the_zone() -> None:
    end = START + timedelta(days=400)
    found = parse_times("30 2 * * 0", "Australia/Lord_Howe").between(START, end)

    sundays = calendar.daily("Australia/Lord_Howe", time(2, 30), START, end, lambda day: date.isoweekday(day) == 7)
    assert list(found) == sundays


@pytest.mark.parametrize("zone", ["America/New_York", "Australia/Lord_Howe"])
def test_the_next_time_is_the_same_from_any_moment_before_it(zone: str) -> None:
    times = parse_times("30 1,2 * * *", zone)
    all_of_them = list(times.between(START, START + timedelta(days=400)))
    for change in (date(2026, 3, 8), date(2026, 4, 5), date(2026, 10, 4), date(2026, 11, 1)):
        moment = datetime.combine(change, time(), UTC) - timedelta(hours=14)
        for _ in range(30 * 4):
            assert times.after(moment) == next(found for found in all_of_them if found > moment)
            moment += timedelta(minutes=15)


def test_a_time_that_has_come_is_not_the_next_one() -> None:
    times = parse_times("@daily", "UTC")
    due = datetime(2026, 1, 2, 2, tzinfo=UTC)

    assert times.after(due - timedelta(microseconds=1)) == due
    assert times.after(due) == times.after(due + timedelta(microseconds=1)) == due + timedelta(days=1)
    assert list(times.between(due, due + timedelta(days=1))) == [due + timedelta(days=1)]


@pytest.mark.parametrize(
    ("cron", "found"),
    [
        ("0 0 2 * * *", "found 6 fields"),
        ("0 2 * *", "found 4 fields"),
        ("", "found 0 fields"),
        ("@hourly", "found '@hourly'"),
        ("60 2 * * *", "found '60' as its minute, expected 0 to 59 with"),
        ("1,5-61,7 2 * * *", "found '5-61' as its minute"),
        ("0 24 * * *", "found '24' as its hour, expected 0 to 23 with"),
        ("0 2 32 * *", "found '32' as its day of month, expected 1 to 31 or L"),
        ("0 2 31 2 *", "found '0 2 31 2 *', a day that never comes"),
        ("0 2 * 13 *", "found '13' as its month, expected 1 to 12 or jan to dec"),
        ("0 2 * * 8", "found '8' as its day of week, expected 0 to 7 or sun to sat"),
        ("0 2 * * L", "found 'L' as its day of week"),
        ("0 2 15W * *", "found '15W' as its day of month"),
        ("0 2 ? * *", "found '?' as its day of month"),
        ("0 2 * * ;", "found ';' as its day of week"),
        ("0 2 */0 * *", "found '*/0' as its day of month"),
    ],
)
def test_what_is_no_spec_is_refused_with_what_was_found(cron: str, found: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_times(cron, "UTC")

    assert caught.value.reason == "SCHEDULE_INVALID"
    assert found in caught.value.message
    assert ("expected five fields" in caught.value.message) == (found.endswith("fields") or "@" in found)
    assert [v.subject for v in caught.value.violations] == ["spec.cron"]


@pytest.mark.parametrize("zone", ["Mars/Olympus", "America", "../etc/passwd", "/etc/localtime", "\0", "CET+1", " UTC"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidRequest, match="expected an IANA name") as caught:
        parse_times("@daily", zone)

    assert [v.subject for v in caught.value.violations] == ["spec.time_zone"]


@given(st.lists(st.text(alphabet="0123456789*/,-#LWMONFEBsun²;", min_size=1, max_size=5), min_size=4, max_size=6))
def test_any_text_is_a_spec_or_refused_by_its_reason(fields: list[str]) -> None:
    try:
        times = parse_times(" ".join(fields), "Europe/Berlin")
    except InvalidRequest as error:
        assert error.reason == "SCHEDULE_INVALID"
    else:
        found = times.next(START, 3)
        assert found == sorted(set(found))
