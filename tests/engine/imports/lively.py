"""Chooses scenarios in which something happens: most random files are refused for one dull reason or change little.

A run against a server takes a second, making a scenario a millisecond: so the liveliest of many is run.
"""

from __future__ import annotations

import random

from tests.engine.imports.checker import something_refers
from tests.engine.imports.justify import Judged, judge, waits_for
from tests.engine.imports.model import BAD, REFERENCES, changed, own_violations
from tests.engine.imports.scenarios import Scenario, scenario

CANDIDATES = 12


def lively_scenario(seed: int) -> Scenario:
    """The scenario of a seed: always the same."""
    rng = random.Random(seed)
    found = [scenario(seed * 1_000 + n) for n in range(CANDIDATES)]
    return max(found, key=lambda one: _score(one) + rng.uniform(0, 5))


def _score(one: Scenario) -> float:
    step = one.steps[0]
    judged = judge(step, one.rows, [])
    if step.mode == "REPLACE" and any(judged.key_of(r) is None for r in judged.records.values()):
        return -4
    if something_refers(judged):
        return -3
    fit = {n for n, r in judged.records.items() if BAD not in r.values()}
    fit = {n for n in fit if not own_violations(judged.table, judged.would_be(n))}
    score = min(len(fit), 6) / 2 + (1 if step.moves else 0) + (1 if step.trigger else 0)
    score += min(3, len(judged.records) - len(fit)) + len({n for n in judged.matches if n not in fit})
    score += 2 * min(3, sum(len(waits_for(judged, n)) for n in fit))
    score += 2 * min(2, _freed(judged, fit)) + min(3, _family(judged, fit))
    score += 3 * len(changed(one.rows, judged.change(frozenset(judged.records)))[1])
    if step.trigger in ("null", "raise", "raise late"):
        score += 3 * any(judged.would_be(n)["note"] == "n" for n in fit)
    return score


def _freed(judged: Judged, fit: set[int]) -> int:
    """Records that want a unique value of a row that goes."""
    gone = [r for r in judged.state[judged.step.table] if judged.key_of(r) in judged.gone]
    return sum(
        1 for n in fit for u in judged.table.uniques
        if (value := u.value(judged.would_be(n))) is not None and value in map(u.value, gone)
    )  # fmt: skip


def _family(judged: Judged, fit: set[int]) -> int:
    """Records that refer to new rows of the file."""
    own = [r for r in REFERENCES if r.source == r.target == judged.step.table]
    new = [judged.would_be(n) for n in fit if n not in judged.matches]
    known = [r.referred(row) for r in own for row in new]
    return len([n for n in fit for r in own if r.value(judged.would_be(n)) in known])
