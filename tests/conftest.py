"""Fixtures of the whole suite; the servers' are in fix_stack."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.fix_stack", "tests.fix_jobs"]

# No deadline: two cores are shared with databases. `make fuzz` loads the second profile.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", parent=settings.get_profile("default"), max_examples=5_000)
settings.load_profile("default")
