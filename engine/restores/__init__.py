"""Restores: back to a backup, planned, backed up first, confirmed, in one transaction, proven before it commits."""
