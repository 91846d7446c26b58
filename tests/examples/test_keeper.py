"""Workers that die under ``make up`` are started again, but not for ever."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.stack.keeper import MAX_RESTARTS, Keeper
from examples.stack.programs import Program


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Program]:
    """A program that stays."""
    (tmp_path / "stays.py").write_text("import time\ntime.sleep(300)\n")
    program = Program("worker-1", "stays", os.environ | {"PYTHONPATH": str(tmp_path)}, tmp_path / "log")
    program.start()
    yield program
    program.stop()


def test_a_worker_that_is_killed_is_started_again_and_said(sleeper: Program) -> None:
    said: list[str] = []
    keeper = Keeper(said.append)
    first = sleeper.pid

    assert keeper.look([sleeper]) is None
    assert not said
    sleeper.kill()
    assert keeper.look([sleeper]) is None

    assert sleeper.alive
    assert sleeper.pid != first
    assert said == ["worker-1 ended by itself with code -9; it is started again"]


def test_a_worker_that_dies_all_the_time_is_given_up_and_again_borne_after_a_minute(tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text("raise SystemExit(3)\n")
    worker = Program("worker-1", "dies", os.environ | {"PYTHONPATH": str(tmp_path)}, tmp_path / "log")
    said: list[str] = []
    now = 1000.0
    keeper = Keeper(said.append, lambda: now)

    worker.start()
    for _ in range(MAX_RESTARTS):
        worker.wait(60)
        assert keeper.look([worker]) is None
    worker.wait(60)
    assert keeper.look([worker]) is worker
    assert len(said) == MAX_RESTARTS
    assert not worker.alive

    now += 60
    assert keeper.look([worker]) is None
    worker.wait(60)
