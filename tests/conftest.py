"""Fixtures of the whole suite; the servers' are in fix_stack."""

pytest_plugins = ["tests.fix_stack"]
