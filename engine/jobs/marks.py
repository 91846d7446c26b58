"""Marks live as long as their job, and a day longer: an attempt that was frozen at the worst moment and wakes later
must still meet a fence higher than its own."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select

from engine.db.models import JobRow

if TYPE_CHECKING:
    from engine.resources import Resources

KEEP = timedelta(days=1)


def sweep(resources: Resources, now: datetime) -> int:
    """Remove marks of jobs of ours that ended more than a day ago; returns how many.

    Marks of unknown jobs stay: another installation may share the platform database.
    """
    with resources.platform.connect("sweep of marks", autocommit=True) as connection:
        there = connection.execute("SELECT pg_catalog.to_regclass('dataops_work.applied') IS NOT NULL").fetchone()
        if there is None or not there[0]:
            return 0
        query = "SELECT job_id FROM dataops_work.applied WHERE changed_at < %s"
        old = [row[0] for row in connection.execute(query, (now - KEEP,))]
        if not old:
            return 0
        with resources.db.transaction() as session:
            wanted = select(JobRow.id).where(JobRow.id.in_(old), JobRow.finished_at < now - KEEP)
            ended = session.scalars(wanted).all()
        return connection.execute("DELETE FROM dataops_work.applied WHERE job_id = ANY(%s)", (list(ended),)).rowcount
