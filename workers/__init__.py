"""The processes that run jobs. A Dramatiq message only rings; PostgreSQL says what there is to do."""
