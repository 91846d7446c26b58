"""Fixtures of the whole suite; the servers' are in fix_stack."""

import os

# grpc reads it once, when it is first imported; a server of ours in this process refuses to start without it.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-PSK-AES256-CBC-SHA"

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.fix_stack", "tests.fix_jobs", "tests.fix_workers", "tests.fix_world"]

# No deadline: two cores are shared with databases. `make fuzz` loads the second profile.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", parent=settings.get_profile("default"), max_examples=5_000)
settings.load_profile("default")
