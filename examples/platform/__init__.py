"""The sample platform: schema, catalog and a seeded generator of any size."""
