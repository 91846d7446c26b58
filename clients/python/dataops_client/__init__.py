"""The client of DataOps."""
