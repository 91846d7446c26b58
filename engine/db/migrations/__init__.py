"""The control schema's history; `engine.db.migrate` runs it."""
