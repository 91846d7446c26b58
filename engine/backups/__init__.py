"""Backups: consistent, sealed, provable snapshots of the platform's rows. Their bytes: `docs/archive-format.md`, 5."""
