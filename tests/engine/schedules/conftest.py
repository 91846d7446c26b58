"""Schedules over two tables, at a time of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.engine.schedules.kit import TABLES, Bench
from tests.world import World

EMPTIED = [f"dataops.{table}" for table in ("schedules", "jobs", "backups", "backup_verifications")]

MakeBench = Callable[[str], Bench]


@pytest.fixture
def make_bench(fresh: Callable[[str], World]) -> Iterator[MakeBench]:
    """`make_bench("2026-01-01T00:00+00:00")`: the module's databases, without the schedules of the test before."""
    made: list[Bench] = []

    def make(start: str) -> Bench:
        made.append(Bench(fresh(TABLES.format("")), start))
        return made[-1]

    yield make
    for bench in made:
        with bench.resources.db.transaction() as session:
            session.connection().exec_driver_sql(f"TRUNCATE {', '.join(EMPTIED)} CASCADE")


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench("2026-01-01T00:00+00:00")
