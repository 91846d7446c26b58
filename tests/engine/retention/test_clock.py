"""The clock: what jumps is not believed at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from engine.retention.clock import judge

DAY, NOW = timedelta(days=1), datetime(2026, 11, 26, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seen", "since", "until"),
    [
        (None, NOW, NOW + DAY),  # the first look
        ((NOW - timedelta(minutes=1), NOW - DAY), NOW - DAY, None),
        ((NOW - timedelta(minutes=1), NOW - timedelta(hours=23)), NOW - timedelta(hours=23), NOW + timedelta(hours=1)),
        ((NOW - DAY, NOW - 2 * DAY), NOW - 2 * DAY, None),  # all was switched off over night
        ((NOW - DAY - timedelta(seconds=1), NOW - 9 * DAY), NOW, NOW + DAY),  # ahead, or long down
        ((NOW + timedelta(minutes=5), NOW - 2 * DAY), NOW - 2 * DAY, None),  # another host's clock
        ((NOW + timedelta(minutes=6), NOW - 2 * DAY), NOW, NOW + DAY),  # back
    ],
)
def test_removals_begin_when_it_was_even_for_a_day(
    seen: tuple[datetime, datetime] | None, since: datetime, until: datetime | None
) -> None:
    found = judge(seen, NOW, DAY)

    assert (found.since, found.until, found.steady) == (since, until, until is None)
    assert bool(found.why) == (until is not None)


def test_with_nothing_to_wait_for_it_is_believed_at_once() -> None:
    assert judge(None, NOW, timedelta(0)).steady
    assert judge((NOW - 900 * DAY, NOW - 900 * DAY), NOW, timedelta(0)).steady
