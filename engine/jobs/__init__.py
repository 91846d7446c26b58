"""Background work: jobs, their queue, their events, and the engine that runs them exactly once."""
