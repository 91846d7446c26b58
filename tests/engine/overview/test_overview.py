"""The overview: what it shows, to whom, and what it does not let pass unseen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from engine.access import Caller
from engine.db.models import JobRow, RoleRow
from engine.errors import Unavailable
from engine.jobs.model import Claim, ClaimMode
from engine.jobs.service import create_job
from engine.overview import service
from engine.overview.schedules import Concern
from engine.overview.service import NOUNS, Overview, OverviewPage
from tests.engine.overview.kit import Rows
from tests.world import World


@pytest.fixture
def rows(world: World) -> Rows:
    return Rows(world.resources)


def limited(world: World, *permissions: str) -> Caller:
    """Somebody who holds these permissions."""
    with world.resources.db.transaction() as session:
        session.add(RoleRow(name="limited", permissions=list(permissions), updated_at=world.resources.clock()))
    return world.caller_with("limited", "lim")


def seen(world: World, caller: Caller | None = None, recent: int = 0) -> OverviewPage:
    return Overview(world.resources).get(caller or world.caller, recent)


def job(world: World, entity: str, **values: object) -> JobRow:
    with world.resources.db.transaction() as session:
        made = create_job(
            session,
            kind="EXPORT",
            resource_type="exports",
            resource_id=world.caller.principal_id,
            claims=[Claim(entity, ClaimMode.READ)],
            caller=world.caller,
            intent_id=None,
            now=world.resources.clock(),
        )
        for name, value in values.items():
            setattr(made, name, value)
        return made


def test_an_installation_of_which_nothing_is_done_yet_shows_that_nothing_is(world: World) -> None:
    page = seen(world)

    assert (page.last_backup, page.withheld, page.notices) == (None, (), [])
    assert page.protection is not None
    assert page.protection.unprotected is not None
    assert "users" in page.protection.unprotected
    assert page.schedules is not None
    assert (page.schedules.schedules, page.schedules.next_run_at) == (0, None)
    assert [u.code for u in page.uncovered if u.name.startswith("definitions")] == ["ROWS_ONLY"]


def test_the_newest_backup_is_shown_whatever_became_of_it_beside_the_newest_good_one(rows: Rows, world: World) -> None:
    rows.backup(5)
    rows.backup(1, status="FAILED", error={"reason": "PLATFORM_UNREACHABLE", "message": "away"})
    page = seen(world)

    assert page.last_backup is not None
    assert page.protection is not None
    assert (page.last_backup.status, page.protection.good_at) == ("FAILED", rows.before(5))


def test_schedules_that_need_somebody_are_named_with_why(rows: Rows, world: World) -> None:
    due = rows.before(-3)
    rows.schedule("a good one", next_run_at=due, missed_runs=2)
    rows.schedule("late", next_run_at=rows.before(1), skipped_runs=3)
    rows.schedule("late by less than a worker may be", next_run_at=rows.now - timedelta(seconds=60))
    rows.schedule("paused", paused=True, next_run_at=None, missed_runs=5)
    rows.schedule("deleted", deleted_at=rows.now, next_run_at=None, missed_runs=100)
    failing = rows.schedule("z failing", next_run_at=due)
    rows.scheduled(failing, 4, status="FAILED")
    rows.unstarted(failing, 2)
    told = seen(world).schedules

    assert told is not None
    assert {c.name: (c.concerns, c.failed_runs) for c in told.concerns} == {
        "late": ((Concern.OVERDUE,), 0),
        "paused": ((Concern.PAUSED,), 0),
        "z failing": ((Concern.FAILING,), 2),
    }
    assert (told.schedules, told.paused, told.overdue, told.failed_runs) == (5, 1, 1, 2)
    assert (told.missed_runs, told.skipped_runs) == (7, 3)
    assert told.next_run_at == rows.before(1)


def test_each_part_shows_what_its_list_would(rows: Rows, world: World) -> None:
    rows.backup(2, ["users", "tokens"])
    rows.backup(9, ["tokens"])
    rows.schedule("everything")
    rows.schedule("of tokens", entity_types=["tokens"], next_run_at=rows.before(-7))
    rows.schedule("of a group", entity_types=["points"], next_run_at=rows.before(-2))
    world.begin_export("users")
    mine = world.begin_export("tokens")
    job(world, "users")
    nouns = ("backups", "exports", "imports", "jobs", "schedules")
    page = seen(world, limited(world, "overview.read", *(f"{noun}.read:tokens" for noun in nouns)))

    assert page.withheld == ("catalog",)
    assert page.last_backup is not None
    assert page.last_backup.entity_types == ["tokens"]
    assert page.protection is not None
    assert (page.protection.available, page.protection.good_at) == (1, rows.before(9))
    assert page.protection.unprotected == ()
    assert page.schedules is not None
    assert (page.schedules.schedules, page.schedules.next_run_at) == (1, rows.before(-7))
    assert [row.id for row in page.exports] == [mine.id]
    assert [row.id for row in page.jobs] == [mine.job_id]
    assert page.active_jobs == 1
    assert (list(page.uncovered), page.uncovered_count) == ([], 0)


def test_what_is_not_permitted_is_said_to_be_withheld_and_not_said_to_be_empty(rows: Rows, world: World) -> None:
    rows.backup(2)
    rows.schedule("nightly")
    page = seen(world, limited(world, "overview.read"))

    assert page.withheld == NOUNS
    assert (page.last_backup, page.protection, page.schedules) == (None,) * 3
    assert not any((page.exports, page.imports, page.jobs, page.active_jobs, page.uncovered))


def test_every_part_is_bounded_and_what_runs_stands_before_what_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_JOBS", 3)
    monkeypatch.setattr(service, "MAX_UNCOVERED", 1)
    world.sql("CREATE VIEW public.some_users AS SELECT id FROM public.users")
    running = job(world, "tokens", state="RUNNING")
    exports = [world.begin_export("users") for _ in range(6)]
    page = seen(world)

    assert [row.id for row in page.exports] == [row.id for row in exports[:0:-1]]
    assert [row.id for row in page.jobs] == [running.id, exports[5].job_id, exports[4].job_id]
    assert page.active_jobs == 7
    assert (len(page.uncovered), page.uncovered_count > 1) == (1, True)
    assert len(seen(world, recent=2).exports) == 2


def test_relations_that_no_backup_covers_are_named_large_objects_among_them(made: Callable[..., World]) -> None:
    world = made("CREATE TABLE public.t (id int PRIMARY KEY); CREATE VIEW public.v AS SELECT 1; SELECT lo_create(0)")
    codes = {found.name: found.code for found in seen(world).uncovered}

    assert codes["large objects"] == "ROWS_ONLY"
    assert [code for name, code in codes.items() if name.endswith(('v"', ".v"))] == ["NOT_AN_ENTITY"]


def test_while_the_platform_is_away_its_backups_can_still_be_looked_at(make_world: Callable[..., World]) -> None:
    world = make_world("postgresql://nobody@127.0.0.1:1/away")
    Rows(world.resources).backup(3)
    page = seen(world)

    assert [notice["code"] for notice in page.notices] == ["PLATFORM_UNREACHABLE"]
    assert page.protection is not None
    assert (page.protection.available, page.protection.unprotected) == (1, None)
    with pytest.raises(Unavailable, match="PLATFORM_UNREACHABLE"):
        seen(world, limited(world, "overview.read", "backups.read:users"))
