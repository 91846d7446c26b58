"""Keys and sealing: what `docs/archive-format.md` sections 2 and 3 say, on bytes alone (no storage, no database)."""
