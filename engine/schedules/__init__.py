"""Schedules of backups: their times, what becomes of each time, and what a schedule hears of its backups."""
