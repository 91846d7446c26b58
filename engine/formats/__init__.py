"""File formats: readers that yield raw text in batches, writers that yield bytes. They know bytes, not databases."""
