"""Random histories of writes, migrations, imports, backups, restores and retention: whatever happened, every backup
that is there gives the rows of its own moment, and nothing else is left."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Iterator

import pytest
import structlog

from tests.engine.backups.historian import Historian
from tests.engine.backups.histories import History, history, shrink
from tests.world import World

FEW, MANY = 20, 200
LITTLE, MUCH = 4, 12
"""Work of the engine in a history."""
SHRINK_SECONDS = 60


@pytest.fixture
def historian(shared_world: World) -> Iterator[Historian]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield Historian(shared_world)
    structlog.reset_defaults()


def failure(historian: Historian, tried: History, *, thorough: bool) -> tuple[str, str] | None:
    """None, or the failure's kind, and all of it with the history."""
    try:
        historian.run(tried, thorough=thorough)
    except (Exception, pytest.fail.Exception) as error:  # an error that did not come is none of Exception's
        return type(error).__name__, "\n".join([*historian.log, "", traceback.format_exc()])
    return None


def run(historian: Historian, seeds: range, work: int, *, thorough: bool = False) -> None:
    for seed in seeds:
        if (found := failure(historian, tried := history(seed, work), thorough=thorough)) is None:
            continue

        def fails(less: History, kind: str = found[0]) -> bool:
            again = failure(historian, less, thorough=thorough)
            return again is not None and again[0] == kind

        least = shrink(tried, fails, time.monotonic() + SHRINK_SECONDS)
        _, told = failure(historian, least, thorough=thorough) or found
        pytest.fail(f"seed {seed}, made as small as {SHRINK_SECONDS} seconds let:\n\n{told}", pytrace=False)


def test_every_backup_gives_the_rows_of_its_moment(historian: Historian):
    start = int(os.environ.get("MODEL_SEED", "0"))
    run(historian, range(start, start + FEW), LITTLE)


@pytest.mark.long
def test_every_backup_gives_the_rows_of_its_moment_many_times(historian: Historian):
    run(historian, range(10_000, 10_000 + MANY), MUCH, thorough=True)
    print(historian.seen)
