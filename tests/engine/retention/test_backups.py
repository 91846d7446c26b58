"""Backups past their time: what goes, in which order, and what no sweep takes, whatever it comes across."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from engine.backups.model import Trigger, VerifyLevel
from engine.backups.record import new_backup
from engine.db.models import AuditEventRow, BackupRow
from engine.errors import FailedPrecondition, Unavailable
from engine.restores.model import RestoreRequest
from engine.restores.service import Restores
from tests.engine.retention.kit import DAY, Bench
from tests.world import World

THINGS = "CREATE TABLE public.things (id int PRIMARY KEY); INSERT INTO public.things VALUES (1)"


@pytest.fixture
def bench(made: Callable[..., World]) -> Bench:
    """With a floor of one: what a test is not about needs one newer backup."""
    return Bench(made(THINGS), retention_floor=1)


def test_a_hundred_days_of_failing_backups_leave_the_floor(made: Callable[..., World]) -> None:
    bench = Bench(made(THINGS))
    good = [bench.backup() for _ in range(4)]
    with bench.resources.db.transaction() as session:
        for day in range(100):
            now = bench.clock() + day * DAY
            row = new_backup(bench.world.caller, Trigger.SCHEDULED, ["things"], "", now)
            row.status, row.expires_at = "FAILED", now + 90 * DAY
            session.add(row)
    for day in (89, 91, 100, 400):
        bench.clock.ahead = day * DAY
        bench.sweep()
        bench.sweep_bytes()

    assert bench.statuses(*good) == ["EXPIRED", "COMPLETED", "COMPLETED", "COMPLETED"]
    assert bench.told() == [f"backups/{good[0]}"]
    for backup_id in good[1:]:
        bench.backups.archive(bench.backups.get(bench.world.caller, backup_id)).require_present()


def test_what_a_schedule_says_wins_and_safety_backups_go_without_a_floor(bench: Bench) -> None:
    imported = bench.world.load("things", b"id\n2\n")
    assert imported.pre_import_backup_id is not None
    asked = [bench.backup(), bench.backup()]
    bench.change(asked[0], expires_at=bench.clock() + 7 * DAY, retention_seconds=7 * 86_400.0, trigger_type="SCHEDULED")
    bench.clock.ahead = 8 * DAY
    assert bench.sweep().backups == 1
    bench.clock.ahead = 31 * DAY
    assert bench.sweep().backups == 1

    assert bench.statuses(imported.pre_import_backup_id, *asked) == ["EXPIRED", "EXPIRED", "COMPLETED"]


def test_a_chain_stays_whole_or_goes_last_first(bench: Bench) -> None:
    base, middle, last = bench.chain(of=3)
    newer = bench.backup()
    bench.clock.ahead = 100 * DAY
    bench.change(last, held=True)
    resources = [f"backups/{backup_id}" for backup_id in (base, middle, last)]
    assert [bench.preview()[r] for r in resources] == ["CHAIN_NEEDS_IT", "CHAIN_NEEDS_IT", "HELD"]
    assert bench.sweep().backups == 0

    bench.change(last, held=False)
    with bench.resources.db.transaction() as session:
        session.scalars(select(BackupRow).filter_by(id=last).with_for_update()).one()
        assert bench.sweep().backups == 0, "somebody works with it just now, so what it builds on waits too"
    assert bench.sweep().backups == 3
    assert bench.told() == resources[::-1]
    artifacts = {bench.backups.get(bench.world.caller, one).artifact_id.hex: one for one in (base, middle, last)}  # type: ignore[union-attr]
    assert bench.sweep_bytes() == 3
    manifests = [name.split("/")[1] for name in bench.storage.deleted if name.endswith("/0")]
    assert [artifacts[name] for name in manifests] == [last, middle, base]
    assert bench.statuses(base, middle, last, newer) == [*["EXPIRED"] * 3, "COMPLETED"]


def test_an_increment_that_is_being_made_keeps_what_it_builds_on(bench: Bench) -> None:
    base, _newer = bench.backup(), bench.backup()
    made = bench.backup(status="PENDING", manifest_sha256=None, parent_id=base)
    bench.clock.ahead = 100 * DAY

    assert bench.preview()[f"backups/{base}"] == "IN_USE"
    assert bench.sweep().backups == 0
    bench.change(made, status="FAILED")
    assert bench.sweep().backups == 1


def test_a_base_is_not_deleted_while_others_build_on_it(bench: Bench) -> None:
    base, middle, last = bench.chain(of=3)
    for backup_id, words in ((base, "2 increments build on it"), (middle, "1 increment builds on it")):
        with pytest.raises(FailedPrecondition, match=words) as caught:
            bench.backups.delete(bench.world.caller, backup_id)
        assert caught.value.reason == "BACKUP_IN_USE"
    assert bench.backups.parents_among([base, middle, last]) == {base, middle}

    for backup_id in (last, middle, base):
        assert bench.backups.delete(bench.world.caller, backup_id).status == "DELETED"
    assert bench.sweep_bytes() == 3


def test_a_proof_keeps_one_behind_the_floor_until_a_newer_is_proven(bench: Bench) -> None:
    proven, newer, _newest = (bench.backup() for _ in range(3))
    bench.backups.verify(bench.world.caller, proven, VerifyLevel.DECODED, *bench.world.request())
    bench.world.work()
    bench.clock.ahead = 100 * DAY
    assert bench.preview()[f"backups/{proven}"] == "NEWEST_PROVEN"

    bench.backups.verify(bench.world.caller, newer, VerifyLevel.RESTORED, *bench.world.request())
    assert bench.preview()[f"backups/{newer}"] == "IN_USE"
    bench.world.work()
    assert bench.removals() == {f"backups/{proven}"}


# --- while others work


def test_a_sweep_during_a_backup_takes_nothing_of_it(bench: Bench) -> None:
    old = [bench.backup(), bench.backup()]
    swept: list[int] = []

    def sweep() -> None:
        swept.append(bench.retention.sweep(bench.clock() + 400 * DAY).backups)
        swept.append(bench.sweep_bytes())

    bench.at_the_next_put(sweep)
    made = bench.backup()

    assert swept == [1, 1]
    assert bench.statuses(*old, made) == ["EXPIRED", "COMPLETED", "COMPLETED"]
    bench.backups.archive(bench.backups.get(bench.world.caller, made)).require_present()


def test_a_sweep_during_a_restore_takes_neither_its_backup_nor_the_one_before_it(bench: Bench) -> None:
    old, *_newer = (bench.backup() for _ in range(3))
    restores = Restores(bench.resources)
    during: list[int] = []
    bench.world.sql("INSERT INTO public.things VALUES (7)")
    row = restores.create(bench.world.caller, RestoreRequest(old), *bench.world.request())
    bench.world.work()
    row = restores.get(bench.world.caller, row.id)

    def sweep() -> None:
        swept = bench.retention.sweep(bench.clock() + 400 * DAY)
        during.extend((swept.backups, swept.files, bench.sweep_bytes()))

    bench.at_the_next_put(sweep)
    phrase, digest = row.confirmation_phrase, row.plan_digest or b""
    restores.confirm(bench.world.caller, row.id, digest, phrase, *bench.world.request())
    bench.world.work()
    row = restores.get(bench.world.caller, row.id)

    assert during == [1, 0, 1], "the second oldest went, which is past its time, behind the floor and nobody's"
    assert (row.status, row.error) == ("COMPLETED", None)
    assert row.pre_restore_backup_id is not None
    assert bench.statuses(old, row.pre_restore_backup_id) == ["RESTORED", "COMPLETED"]
    assert bench.world.sql("SELECT id FROM public.things") == [(1,)]
    bench.clock.ahead = 31 * DAY
    assert bench.removals() >= {f"backups/{row.pre_restore_backup_id}"}


# --- accidents


def test_killed_between_unpublishing_and_deleting_the_next_sweep_ends_it(bench: Bench) -> None:
    going, _newer = bench.backup(), bench.backup()
    bench.clock.ahead = 100 * DAY
    bench.sweep()
    artifact_id = bench.backups.get(bench.world.caller, going).artifact_id
    deletes = iter(range(100))

    def die(act: str, _name: str) -> None:
        if act == "delete" and next(deletes) == 1:
            raise Unavailable("gone", reason="STORAGE_FAILED")

    bench.storage.before = die
    with pytest.raises(Unavailable):
        bench.sweep_bytes()

    assert artifact_id is not None
    assert not bench.resources.repository.exists(artifact_id)
    assert any(artifact_id.hex in name for name in bench.stored())
    assert (bench.statuses(going), bench.sweep().backups) == (["EXPIRED"], 0)
    bench.storage.before = lambda _act, _name: None
    assert bench.sweep_bytes() == 1
    assert not any(artifact_id.hex in name for name in bench.stored())
    _require_told(bench, going)


def _require_told(bench: Bench, going: uuid.UUID) -> None:
    """One removal, by whom, of what, and why."""
    (intent,) = bench.audited()
    with bench.resources.db.transaction() as session:
        outcome = session.scalars(select(AuditEventRow).filter_by(intent_id=intent.id)).one()

    assert (intent.resource_type, intent.resource_id) == ("backups", str(going))
    assert (intent.issuer, intent.subject, intent.principal_id) == ("dataops", "retention", uuid.UUID(int=0))
    assert (intent.details["why"], intent.details["entity_types"]) == ("EXPIRED", ["things"])
    assert intent.details["size_bytes"] == bench.backups.get(bench.world.caller, going).file_size_bytes > 0
    assert (outcome.outcome, outcome.details["entity_types"]) == ("COMPLETED", ["things"])


def test_the_bytes_of_a_base_wait_for_those_of_its_increments(bench: Bench) -> None:
    base, last = bench.chain(of=2)
    bench.backup()
    bench.clock.ahead = 100 * DAY
    bench.sweep()
    stuck, below = (bench.backups.get(bench.world.caller, one).artifact_id for one in (last, base))
    assert stuck is not None and below is not None

    def refuse(act: str, name: str) -> None:
        if act == "delete" and stuck.hex in name:
            raise Unavailable("read-only", reason="STORAGE_FAILED")

    bench.storage.before = refuse
    with pytest.raises(Unavailable):
        bench.sweep_bytes()
    assert bench.resources.repository.exists(below)
    bench.storage.before = lambda _act, _name: None
    bench.sweep_bytes()
    assert not [name for name in bench.stored() if stuck.hex in name or below.hex in name]


def test_sweeps_at_once_remove_and_tell_each_thing_once(bench: Bench) -> None:
    backups = [*bench.chain(of=3), bench.backup(), bench.backup()]
    bench.clock.ahead = 100 * DAY

    with ThreadPoolExecutor(3) as pool:
        swept = list(pool.map(lambda _: bench.sweep(), range(3)))

    assert sum(one.backups for one in swept) == 4
    assert sorted(bench.told()) == sorted(f"backups/{backup_id}" for backup_id in backups[:4])
    assert bench.statuses(backups[4]) == ["COMPLETED"]


def test_a_clock_that_jumps_takes_nothing_until_it_has_stood_for_a_day(made: Callable[..., World]) -> None:
    bench = Bench(made(THINGS), retention_settle_seconds=86_400, retention_floor=1)
    backups = [bench.backup(), bench.backup()]
    going = f"backups/{backups[0]}"

    def at(days: float) -> tuple[int, str]:
        """How many a sweep removes then, and the preview before it."""
        bench.clock.ahead = days * DAY
        code = bench.preview()[going]
        return bench.sweep().backups, code

    assert at(0) == (0, "NOT_EXPIRED")
    assert at(0.6) == (0, "NOT_EXPIRED")
    assert at(1.2) == (0, "NOT_EXPIRED")  # even for more than a day: from now on it would be believed
    assert at(400) == (0, "CLOCK_NOT_STEADY")
    assert bench.sweep().waits.startswith("nothing is removed before")
    assert at(400.6) == (0, "CLOCK_NOT_STEADY")
    assert at(1.3) == (0, "NOT_EXPIRED")  # mended
    assert at(2) == (0, "NOT_EXPIRED")
    assert bench.statuses(*backups) == ["COMPLETED"] * 2

    assert at(400) == (0, "CLOCK_NOT_STEADY")
    assert at(400.6) == (0, "CLOCK_NOT_STEADY")
    assert at(401.2) == (1, "EXPIRED")  # it stands: so it was the right one
