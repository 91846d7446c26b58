"""Both databases: the control schema (models, migrations, sessions) and the pinned sessions of the platform."""
