"""Whether the clock can be trusted with removals.

A clock that jumps a year ahead makes everything expire at once. So nothing is removed until the clock has gone on
evenly for a while: each sweep notes the time that it saw, and one that finds a gap of more than a day, or a time before
the last one, begins to wait anew. A jump of less than a day can only take what would have gone within that day. An
installation that was down for longer waits too, as does one that has just begun: there is time to look at the preview.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from engine.db.models import RetentionClockRow
from engine.retention.model import written

GAP = timedelta(days=1)
"""Sweeps come every minute; a night in which all is switched off is no jump."""

BACK = timedelta(minutes=5)
"""Hosts differ by so much without harm, and the sweep goes from one to another."""

_ONLY = 1


@dataclass(frozen=True)
class Steadiness:
    """`until`: when removals begin; None when they may be done now."""

    since: datetime
    until: datetime | None = None

    @property
    def steady(self) -> bool:
        return self.until is None

    @property
    def why(self) -> str:
        """The sentence for a person; empty when nothing keeps removals."""
        if self.until is None:
            return ""
        return f"nothing is removed before {written(self.until)}, as the clock is even since {written(self.since)} only"


def judge(seen: tuple[datetime, datetime] | None, now: datetime, settle: timedelta) -> Steadiness:
    """What follows from the (last time that was seen, time since which it is even) and the time that is seen now."""
    since = now
    if seen is not None and seen[0] - BACK <= now <= seen[0] + GAP:
        since = seen[1]
    return Steadiness(since) if now - since >= settle else Steadiness(since, since + settle)


def look(session: Session, now: datetime, settle: timedelta) -> Steadiness:
    """What a sweep would find now; nothing is noted."""
    return judge(_seen(session.get(RetentionClockRow, _ONLY)), now, settle)


def note(session: Session, now: datetime, settle: timedelta) -> Steadiness:
    """The same for a sweep: its time is noted. Of two at once the later one decides by what the other has noted."""
    row = session.get(RetentionClockRow, _ONLY, with_for_update=True, populate_existing=True)
    found = judge(_seen(row), now, settle)
    if row is None:
        first = insert(RetentionClockRow).values(id=_ONLY, seen_at=now, even_since=found.since)
        session.execute(first.on_conflict_do_nothing())
    else:
        row.seen_at, row.even_since = now, found.since
    return found


def _seen(row: RetentionClockRow | None) -> tuple[datetime, datetime] | None:
    return None if row is None else (row.seen_at, row.even_since)
