"""Which backups go: the rules one by one, and all of them over anything that there could be."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.retention.model import Code, Decision
from engine.retention.plan import Candidate, decide
from tests.fuzzing import examples

NOW = datetime(2026, 11, 26, 3, tzinfo=UTC)
DAY = timedelta(days=1)
FLOOR = 3


def made(days_ago: float, **values: Any) -> Candidate:
    """A backup of `users` that was kept for 90 days, or for `kept`."""
    taken_at = NOW - days_ago * DAY
    kept = values.pop("kept", 90) * DAY
    values.setdefault("entity_types", frozenset({"users"}))
    return Candidate(backup_id=uuid.uuid4(), taken_at=taken_at, expires_at=taken_at + kept, size=100, **values)


def codes(backups: Sequence[Candidate], floor: int = FLOOR) -> list[str]:
    """The code of each, in the order given."""
    found = {decision.resource_id: decision.code.value for decision in decide(backups, floor, NOW)}
    return [found[backup.backup_id] for backup in backups]


def many(*days_ago: float, **values: Any) -> list[Candidate]:
    return [made(days, **values) for days in days_ago]


def test_a_hundred_days_without_a_good_backup_leave_the_floor():
    """The failed ones are not even candidates: those that are there are the last good ones, all past their time."""
    assert codes(many(200, 190, 180, 170, 160)) == ["EXPIRED", "EXPIRED", "FLOOR", "FLOOR", "FLOOR"]


def test_what_is_not_past_its_time_stays_and_counts_for_the_floor():
    assert codes(many(100, 91, 89, 50, 1)) == ["EXPIRED", "EXPIRED", "NOT_EXPIRED", "NOT_EXPIRED", "NOT_EXPIRED"]


def test_it_goes_at_its_very_time_and_never_without_one():
    at, before = made(90), made(90 - 1e-6)
    never = replace(made(1000), expires_at=None)

    assert codes([at, before, never, *many(3, 2, 1)])[:3] == ["EXPIRED", "NOT_EXPIRED", "NOT_EXPIRED"]


def test_what_is_held_or_needed_stays_and_is_told_so():
    held, needed = made(200, held=True), made(200, in_use="a job works with it")

    decisions = {d.resource_id: d for d in decide([held, needed, *many(3, 2, 1)], FLOOR, NOW)}

    assert decisions[held.backup_id].code is Code.HELD
    assert (decisions[needed.backup_id].code, decisions[needed.backup_id].message) == (
        Code.IN_USE,
        "a job works with it",
    )


def test_safety_backups_are_no_floor_and_have_none():
    asked, safety = many(400, 390, 380, 370), many(50, 40, 35, 31, safety=True, kept=30)

    assert codes([*asked, *safety]) == ["EXPIRED", "FLOOR", "FLOOR", "FLOOR", *["EXPIRED"] * 4]


def test_each_scope_has_a_floor_of_its_own():
    users, both = many(200, 190, 180, 170), many(3, 2, 1, entity_types=frozenset({"users", "tokens"}))

    assert codes([*users, *both])[:4] == ["EXPIRED", "FLOOR", "FLOOR", "FLOOR"]


def test_the_newest_proven_one_stays_behind_a_floor_of_which_nothing_is_known():
    older, proven, *newer = many(300, 280, 260, proven=True)[:2] + many(200, 190, 180, 170)

    assert codes([older, proven, *newer]) == ["EXPIRED", "NEWEST_PROVEN", "EXPIRED", "FLOOR", "FLOOR", "FLOOR"]


def test_one_that_a_proof_found_damaged_does_not_take_a_sound_ones_place():
    sound, damaged = many(300, 290, 280, 270), many(200, 190, 180, damaged=True)

    assert codes([*sound, *damaged]) == ["EXPIRED", *["FLOOR"] * 6]


def test_an_increment_to_what_is_damaged_or_gone_is_not_sound():
    base = made(250, damaged=True)
    on_damaged = made(200, parent_id=base.backup_id)
    on_nothing = made(195, parent_id=uuid.uuid4())
    sound = made(300)

    assert codes([sound, base, on_damaged, on_nothing], 1) == ["FLOOR", "EXPIRED", "EXPIRED", "FLOOR"]


def test_a_chain_stays_as_long_as_its_last_increment_and_goes_with_it_last_first():
    base = made(200)
    middle = made(190, parent_id=base.backup_id)
    last = made(180, parent_id=middle.backup_id)
    newer = many(3, 2, 1)

    assert codes([base, middle, last, *newer])[:3] == ["EXPIRED"] * 3
    going = [d.resource_id for d in decide([base, middle, last, *newer], FLOOR, NOW) if d.remove]
    assert going == [last.backup_id, middle.backup_id, base.backup_id]
    assert codes([base, middle, replace(last, held=True), *newer])[:3] == ["CHAIN_NEEDS_IT", "CHAIN_NEEDS_IT", "HELD"]
    assert codes([base, replace(middle, held=True), last, *newer])[:3] == ["CHAIN_NEEDS_IT", "HELD", "EXPIRED"]


def test_a_member_of_the_floor_keeps_its_chain():
    base = made(300)
    first, second, third = (made(days, parent_id=base.backup_id) for days in (200, 190, 180))
    decisions = {d.resource_id: d for d in decide([base, first, second, third], FLOOR, NOW)}

    assert decisions[base.backup_id].code is Code.CHAIN_NEEDS_IT
    assert decisions[base.backup_id].message == "3 increments to it stay"


def test_a_circle_of_parents_ends():
    one, two = made(200), made(190)
    circle = [replace(one, parent_id=two.backup_id), replace(two, parent_id=one.backup_id), *many(3, 2, 1)]

    assert codes(circle)[:2] == ["EXPIRED", "EXPIRED"]


# --- all of it


@st.composite
def repositories(draw: st.DrawFn) -> list[Candidate]:
    """Any backups: chains, holds, ages, scopes, proofs."""
    backups: list[Candidate] = []
    for number in range(draw(st.integers(0, 14))):
        scope = draw(st.sampled_from([frozenset({"a"}), frozenset({"a", "b"}), frozenset[str]()]))
        before = [b for b in backups if b.entity_types == scope and not b.safety]
        increment: bool = draw(st.booleans())
        parent = draw(st.sampled_from(before)) if before and increment else None
        backups.append(
            Candidate(
                backup_id=uuid.UUID(int=number + 1),
                entity_types=scope,
                taken_at=NOW - timedelta(days=400 - 20 * number + draw(st.integers(0, 15))),
                expires_at=draw(st.none() | st.integers(-200, 60).map(lambda days: NOW + days * DAY)),
                size=draw(st.integers(0, 1000)),
                parent_id=parent.backup_id if parent else None,
                safety=parent is None and draw(st.booleans()),
                held=draw(st.integers(0, 5)) == 0,
                in_use="a job works with it" if draw(st.integers(0, 5)) == 0 else "",
                proven=draw(st.booleans()),
                damaged=draw(st.integers(0, 4)) == 0,
            )
        )
    return list(draw(st.permutations(backups)))


def _newest(backups: Sequence[Candidate], count: int) -> list[Candidate]:
    return sorted(backups, key=lambda b: (b.taken_at, b.backup_id))[-count:]


def _stays(backups: Sequence[Candidate], floor: int) -> set[uuid.UUID]:
    """What must stay, told another way: what has a reason of its own, and then parents until there are none more."""
    by_id = {b.backup_id: b for b in backups}

    def sound(b: Candidate | None) -> bool:
        return b is None or (not b.damaged and sound(by_id.get(b.parent_id) if b.parent_id else None))

    kept = {b.backup_id for b in backups if b.held or b.in_use or b.expires_at is None or b.expires_at > NOW}
    for scope in {b.entity_types for b in backups}:
        mine = [b for b in backups if b.entity_types == scope and not b.safety]
        good = [b for b in mine if sound(b)]
        for group in (_newest(mine, floor), _newest(good, floor), _newest([b for b in good if b.proven], 1)):
            kept |= {b.backup_id for b in group}
    while more := {b.parent_id for b in backups if b.backup_id in kept and b.parent_id} - kept:
        kept |= more
    return kept


@examples(60, 5_000)
@given(repositories(), st.integers(1, 4))
def test_nothing_that_must_stay_goes_and_all_else_does(backups: list[Candidate], floor: int) -> None:
    decisions = decide(backups, floor, NOW)
    going = [d for d in decisions if d.remove]
    by_id = {b.backup_id: b for b in backups}

    assert sorted(d.resource_id for d in decisions) == sorted(by_id)
    stays = _stays(backups, floor)
    assert {d.resource_id for d in going} == set(by_id) - stays
    assert all(d.size == (by_id[d.resource_id].size if d.remove else 0) for d in decisions)
    _require_order(going, by_id)
    for backup in backups:  # what stays can be restored
        if backup.backup_id in stays and backup.parent_id:
            assert backup.parent_id in stays
    for scope in {b.entity_types for b in backups}:
        asked = {b.backup_id for b in backups if b.entity_types == scope and not b.safety}
        assert len(asked & stays) >= min(floor, len(asked))


def _require_order(going: Sequence[Decision], by_id: dict[uuid.UUID, Candidate]) -> None:
    """Increments before what they build on."""
    gone: set[uuid.UUID] = set()
    for decision in going:
        assert not any(b.parent_id == decision.resource_id and b.backup_id not in gone for b in by_id.values())
        gone.add(decision.resource_id)


@pytest.mark.parametrize("ahead", [0, 1, 400])
def test_a_sweep_right_after_a_sweep_finds_nothing_more(ahead: int) -> None:
    """What a removal leaves keeps no less than it did: the floor is not eaten by one sweep after another."""
    backups = many(200, 190, 180, 170, 160, proven=True) + many(150, 140, 130, 120)
    now = NOW + ahead * DAY
    left = [b for b, d in zip(backups, _ordered(backups, now), strict=True) if not d.remove]

    assert not any(d.remove for d in decide(left, FLOOR, now))
    assert len(left) == 4


def _ordered(backups: Sequence[Candidate], now: datetime) -> list[Decision]:
    found = {d.resource_id: d for d in decide(backups, FLOOR, now)}
    return [found[b.backup_id] for b in backups]
