"""Random sequences of imports in all modes, among writers and triggers, against a model in plain Python."""

from __future__ import annotations

import logging
import os
import time
import traceback

import pytest
import structlog

from tests.engine.imports.checker import Checker
from tests.engine.imports.lively import lively_scenario
from tests.engine.imports.model import DDL
from tests.engine.imports.scenarios import Scenario, shrink

FEW, MANY = 12, 1_500
SHRINK_SECONDS = 60


@pytest.fixture
def checker(made):
    world = made(DDL)
    checker = Checker(world)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield checker
    structlog.reset_defaults()
    checker.close()


def failure(checker: Checker, tried: Scenario) -> tuple[str, str] | None:
    """None, or the failure in a line and at length."""
    try:
        checker.run(tried)
    except Exception as error:
        return f"{type(error).__name__} {error}"[:60], traceback.format_exc()
    return None


def run(checker: Checker, seeds: range) -> None:
    for seed in seeds:
        if (found := failure(checker, tried := lively_scenario(seed))) is None:
            continue
        head = found[0][:25]

        def fails(less: Scenario, head: str = head) -> bool:
            return (again := failure(checker, less)) is not None and again[0][:25] == head

        least = shrink(tried, fails, time.monotonic() + SHRINK_SECONDS)
        _, told = failure(checker, least) or found
        pytest.fail(f"seed {seed}, made as small as {SHRINK_SECONDS} seconds let:\n\n{least}\n\n{told}", pytrace=False)


def test_imports_do_what_the_model_does(checker):
    start = int(os.environ.get("MODEL_SEED", "0"))
    run(checker, range(start, start + FEW))


@pytest.mark.long
def test_imports_do_what_the_model_does_many_times(checker):
    run(checker, range(10_000, 10_000 + MANY))
    print(checker.seen)
