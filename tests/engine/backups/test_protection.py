"""What counts as good and as proven, and what nothing hides: a failing schedule, an entity in no backup."""

from __future__ import annotations

import pytest

from engine.backups.model import VerifyLevel
from engine.backups.protection import Protection, read_failed_runs, read_protection
from engine.backups.run import remember
from engine.db.models import BackupRow
from engine.errors import DataLoss
from tests.engine.overview.kit import Rows, proof
from tests.world import World

ALL = ("tokens", "users")
DAMAGE = DataLoss("a part of it is damaged", reason="PART_DAMAGED")


@pytest.fixture
def rows(world: World) -> Rows:
    return Rows(world.resources)


def found(rows: Rows, **options) -> Protection:
    with rows.resources.db.transaction() as session:
        return read_protection(session, options.pop("entities", ALL), **options)


def failed(rows: Rows) -> dict[str, int]:
    with rows.resources.db.transaction() as session:
        return read_failed_runs(session)


def test_where_there_is_no_backup_nothing_is_protected(rows: Rows) -> None:
    empty = found(rows)

    assert (empty.available, empty.good_at, empty.all_good_at, empty.proof_at) == (0, None, None, None)
    assert empty.unprotected == ALL


def test_only_complete_backups_are_good(rows: Rows) -> None:
    rows.backup(5)
    rows.backup(4, status="RESTORED")
    for status in ("PENDING", "FAILED", "CANCELLED", "EXPIRED", "DELETED"):
        rows.backup(1, status=status)

    assert (found(rows).available, found(rows).good_at) == (2, rows.before(4))


def test_every_entity_is_as_old_as_its_own_newest_good_backup(rows: Rows) -> None:
    rows.backup(9, ["tokens", "users", "gone"])
    rows.backup(2)
    assert (found(rows).all_good_at, found(rows).unprotected) == (rows.before(9), ())

    rows.backup(1, ["tokens"])
    assert found(rows).all_good_at == rows.before(2)

    with_a_new_one = found(rows, entities=(*ALL, "new"))
    assert (with_a_new_one.all_good_at, with_a_new_one.unprotected) == (None, ("new",))
    unknown = found(rows, entities=None)
    assert (unknown.all_good_at, unknown.unprotected, unknown.good_at) == (None, None, rows.before(1))


@pytest.mark.parametrize(
    ("findings", "damaged", "proven"),
    [
        ([], False, False),
        ([("DECODED", True)], False, False),
        ([("RESTORED", True)], False, True),
        ([("RESTORED", False)], True, False),
        ([("RESTORED", False), ("PRESENT", True)], True, False),  # its rows are as wrong as they were
        ([("RESTORED", False), ("DECODED", True)], True, False),
        ([("RESTORED", True), ("PRESENT", False)], True, False),  # an object went away since
        ([("PRESENT", False), ("DECODED", True)], False, False),  # it came back: every byte was read
        ([("DECODED", False), ("RESTORED", True)], False, True),
        ([("RESTORED", True), ("DECODED", False)], True, False),
    ],
)
def test_a_finding_is_outdone_only_by_a_later_one_that_goes_as_far(rows, findings, damaged, proven) -> None:
    row = rows.backup(8, ALL)
    for level, good in findings:
        with rows.resources.db.transaction() as session:
            remember(session.get_one(BackupRow, row.id), VerifyLevel(level), None if good else DAMAGE, rows.now)
    told = found(rows)

    assert (told.damaged, told.available) == (int(damaged), int(not damaged))
    assert (told.proven_at, told.all_proven_at) == ((rows.before(8),) * 2 if proven else (None, None))
    assert told.unprotected == (ALL if damaged else ())
    assert (told.proof_at is not None) == proven


def test_what_builds_on_a_damaged_one_is_damaged_and_what_it_builds_on_is_not(rows: Rows) -> None:
    bad = {"DECODED": proof(rows.before(1), good=False)}
    full = rows.backup(9, ALL)
    base = rows.backup(8, ALL, parent_id=full.id, chain_id=full.id, verifications=bad)
    above = rows.backup(7, ALL, parent_id=base.id, chain_id=full.id)
    rows.backup(6, ALL, parent_id=above.id, chain_id=full.id, verifications={"RESTORED": proof(rows.before(5))})
    told = found(rows)

    assert (told.damaged, told.available, told.good_at, told.proven_at) == (3, 1, rows.before(9), None)


def test_a_proof_is_of_its_time_and_its_backup_of_its_own(rows: Rows) -> None:
    rows.backup(100, ALL, verifications={"RESTORED": proof(rows.before(1))})
    rows.backup(50, ALL, verifications={"RESTORED": proof(rows.before(30))})

    assert (found(rows).proof_at, found(rows).proven_at) == (rows.before(1), rows.before(50))


def test_who_may_read_some_entities_is_told_of_backups_of_those_alone(rows: Rows) -> None:
    rows.backup(1, ALL)
    rows.backup(3)

    mine = found(rows, entities=("users",), readable=("users",))
    assert (mine.available, mine.good_at) == (1, rows.before(3))


def test_failures_of_a_schedule_are_counted_until_its_own_next_good_backup(rows: Rows) -> None:
    nightly, weekly, gone = rows.schedule("nightly"), rows.schedule("weekly"), rows.schedule("gone")
    gone.deleted_at, gone.next_run_at = rows.now, None
    with rows.resources.db.transaction() as session:
        session.merge(gone)
    rows.scheduled(nightly, 50, status="FAILED")
    rows.scheduled(nightly, 40)
    rows.scheduled(gone, 1, status="FAILED")
    assert failed(rows) == {}

    rows.scheduled(nightly, 30, status="FAILED")
    rows.unstarted(nightly, 20)
    rows.unstarted(nightly, 45)  # before the good one
    rows.scheduled(weekly, 10, status="FAILED")
    rows.scheduled(weekly, 9, status="CANCELLED")  # somebody wanted that
    rows.backup(1, trigger_type="PRE_IMPORT")
    assert failed(rows) == {str(nightly.id): 2, str(weekly.id): 1}

    rows.scheduled(nightly, 5, verifications={"DECODED": proof(rows.before(4), good=False)})
    assert failed(rows)[str(nightly.id)] == 2
    rows.scheduled(nightly, 3)
    assert failed(rows) == {str(weekly.id): 1}
