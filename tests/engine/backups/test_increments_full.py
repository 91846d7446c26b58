"""Where a full backup is made instead of an increment, and says why."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.backups import chain, known
from engine.backups.model import BackupType, VerifyLevel
from engine.backups.run import remember
from engine.backups.segments import segment_name
from engine.backups.service import Backups
from engine.backups.verify import LEVELS
from engine.db.models import BackupRow, JobRow
from engine.errors import DataLoss
from engine.jobs.registry import handlers
from engine.jobs.service import retry_job
from tests.engine.backups.chains import (
    THINGS,
    artifact_of,
    backed_up,
    delta_of,
    increment,
    increment_is_full,
    method,
)
from tests.world import World

Fresh = Callable[[str], World]

pytestmark = pytest.mark.usefixtures("no_backups")


def test_the_first_is_full(fresh: Fresh):
    assert increment_is_full(fresh(THINGS), "no good backup of the same entities")


def test_another_definition_makes_it_full(fresh: Fresh):
    world = fresh(THINGS)
    backed_up(world)
    world.sql("ALTER TABLE public.things ADD extra int DEFAULT 5")
    world.resources.catalogs.forget()
    assert increment_is_full(world, "its definition is another")


def test_what_prints_otherwise_without_a_write_is_seen(fresh: Fresh):
    """A regclass names its table: after a rename the stored value is the same, its text is not."""
    world = fresh(
        "CREATE TABLE public.named (); CREATE TABLE public.things (id int PRIMARY KEY, what regclass);"
        "INSERT INTO public.things VALUES (1, 'public.named'), (2, 'public.things')"
    )
    backed_up(world)
    world.sql("ALTER TABLE public.named RENAME TO renamed")
    assert increment_is_full(world, "does not read any more")


def test_another_scope_makes_it_full(fresh: Fresh):
    world = fresh(THINGS + "; CREATE TABLE public.more (id int PRIMARY KEY)")
    backed_up(world, BackupType.FULL, "things", "more")
    assert increment_is_full(world, "no good backup of the same entities")


def test_large_increments_end_the_chain(fresh: Fresh):
    world = fresh(THINGS)
    backed_up(world)
    world.sql("UPDATE public.things SET note = md5(id::text) || md5(id::text || 'x')")
    assert increment(world).backup_type == "INCREMENTAL"
    assert increment_is_full(world, "50% of the size of its full backup")


def test_a_parent_with_a_lost_object_makes_it_full(fresh: Fresh):
    world = fresh(THINGS)
    full = backed_up(world)
    storage = world.resources.repository._storage
    (name, *_) = [f.name for f in storage.list(segment_name(artifact_of(full), ""))]
    storage.delete(name)
    assert increment_is_full(world, "missing or of another length")


def test_a_damaged_link_anywhere_in_the_chain_makes_it_full(fresh: Fresh):
    world = fresh(THINGS)
    full = backed_up(world)
    increment(world)
    with world.resources.db.transaction() as session:
        remember(
            session.merge(full), LEVELS[-1], DataLoss("its rows", reason="BACKUP_DAMAGED"), world.resources.clock()
        )
    assert increment_is_full(world, "or one that it needs, was found damaged")


def test_damage_of_a_link_that_was_found_through_its_increment_is_that_links_too(fresh: Fresh):
    """Else the link would go on as good: as a parent, and in the floor of retention in place of a sound one."""
    world = fresh(THINGS)
    full, other = backed_up(world), increment(world)
    storage = world.resources.repository._storage
    (name, *_) = [f.name for f in storage.list(segment_name(artifact_of(full), ""))]
    storage.delete(name)

    backups = Backups(world.resources)
    backups.verify(world.caller, other.id, VerifyLevel.DECODED, *world.request())
    world.work()

    for row in (full, other):
        found = backups.get(world.caller, row.id).verifications["DECODED"]
        assert (found["good"], found["error"]["metadata"]["backup_id"]) == (False, str(full.id))
        assert f"backup {full.id}: 1 of" in found["error"]["message"]


def test_a_retry_does_not_take_up_an_increment_whose_parent_was_deleted(fresh: Fresh):
    """Published, then its job failed, and nobody kept the parent; whose bytes go a moment after its record."""
    world = fresh(THINGS)
    full = backed_up(world)
    row = backed_up(world, BackupType.INCREMENTAL)
    now = world.resources.clock()
    with world.resources.db.transaction() as session:
        session.get_one(BackupRow, row.id).status = "FAILED"
        session.get_one(BackupRow, full.id).status = "DELETED"
        job = session.get_one(JobRow, row.job_id)
        job.state, job.error = "FAILED", {"retryable": True}
        retry_job(session, job.id, intent_id=job.intent_id, now=now, handlers=handlers())
    world.work()
    done = Backups(world.resources).get(world.caller, row.id)
    assert (done.status, done.backup_type, done.parent_id) == ("COMPLETED", "FULL", None), done.error


def test_sums_that_do_not_add_up_make_it_full(fresh: Fresh, monkeypatch: pytest.MonkeyPatch):
    """As hashes that collided would: the changed line is taken for known."""
    world = fresh(THINGS)
    backed_up(world)
    world.sql("UPDATE public.things SET note = 'x' WHERE id = 1")
    real = known.Known.take

    def blind(self: known.Known, lines: list[bytes]) -> list[bytes]:
        return [line for line in real(self, lines) if b"\tx\t" not in line]

    monkeypatch.setattr(known.Known, "take", blind)
    with method(world, "content"):
        assert increment_is_full(world, "does not add up")


def test_every_fourth_link_is_compared_by_content(fresh: Fresh, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chain, "LARGE", 1000)
    world = fresh(THINGS)
    backed_up(world)
    proofs = []
    for n in range(chain.MOST_LINKS):
        world.sql(f"UPDATE public.things SET note = 'x' WHERE id = {n + 1}")
        proofs.append(delta_of(world, increment(world))[0])
    assert proofs == ["CANDIDATES"] * 3 + ["CONTENT"] + ["CANDIDATES"] * 3
    assert increment_is_full(world, f"its chain has {chain.MOST_LINKS} increments")
