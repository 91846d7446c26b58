"""How many examples a property test takes that needs a whole engine for each: few by default, many in `make fuzz`."""

from __future__ import annotations

from hypothesis import settings


def examples(few: int, many: int) -> settings:
    """To decorate the test with, above `@given`."""
    return settings(max_examples=many if settings.get_current_profile_name() == "fuzz" else few)
