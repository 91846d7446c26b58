"""What retention knows of the clock."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from engine.db.base import Model


class RetentionClockRow(Model):
    """One row: the time that the last sweep saw, and since when that has gone on evenly."""

    __tablename__ = "retention_clock"
    __table_args__ = (CheckConstraint("id = 1", name="only"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seen_at: Mapped[datetime]
    even_since: Mapped[datetime]
