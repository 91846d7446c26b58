"""Export: one snapshot, streamed through compression and sealing into an artifact."""
