"""DiffBackup: a job, whose differences are looked at page by page by who may compare, secrets masked."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from engine.access import Caller
from engine.backups.service import Backups
from engine.db.models import ArtifactRow, BackupDiffRow
from engine.errors import DataLoss, FailedPrecondition, NotFound, PermissionDenied
from engine.imports.model import ChangeKind, RowChange
from engine.paging import Paging
from tests.engine.backups.kit import back_up, caller_with
from tests.engine.retention.kit import retain
from tests.world import World

TABLES = (
    "CREATE TABLE public.users (id int PRIMARY KEY, name text, password text);"
    " CREATE TABLE public.orders (id int PRIMARY KEY, user_id int REFERENCES public.users (id));"
    " CREATE TABLE public.log (what text)"
)


@pytest.fixture
def world(fresh) -> World:
    found: World = fresh(TABLES)
    found.sql("INSERT INTO public.users SELECT g, 'n' || g, 'hash' || g FROM generate_series(1, 20) g")
    found.sql("INSERT INTO public.orders SELECT g, 1 FROM generate_series(1, 5) g")
    found.sql("INSERT INTO public.log VALUES ('a'), ('a'), ('b')")
    return found


def change(world: World) -> None:
    world.sql("DELETE FROM public.orders WHERE id > 3")
    world.sql("UPDATE public.users SET password = 'hash', name = 'x' WHERE id IN (3, 4)")
    world.sql("INSERT INTO public.users VALUES (21, 'new', 'pw')")
    world.sql("DELETE FROM public.log WHERE what = 'b'")


def diff(world: World, row, *entities: str, work: bool = True) -> uuid.UUID:
    job_id = Backups(world.resources).diff(world.caller, row.id, entities, *world.request())
    if work:
        world.work()
    return job_id


def everything(world: World, job_id: uuid.UUID, caller: Caller | None = None, size: int = 1000, **wanted):
    """All changes, in pages of `size`, and the counts."""
    found: list[tuple[int, RowChange]] = []
    token = ""
    while True:
        paging = Paging(size, token, "diff")
        page, token, counts = Backups(world.resources).differences(caller or world.caller, job_id, paging, **wanted)
        assert len(page) <= size
        found += page
        if not token:
            return found, counts


def test_what_has_changed_since_is_counted_and_listed(world):
    row = back_up(world)
    change(world)

    job_id = diff(world, row)

    found, counts = everything(world, job_id)
    assert world.job(job_id).state == "COMPLETED"
    names = ("only_in_backup", "only_live", "different", "equal")
    assert {c["entity"]: tuple(c[name] for name in names) for c in counts} == {
        "users": (0, 1, 2, 18),
        "orders": (2, 0, 0, 3),
        "log": (1, 0, 0, 2),
    }
    shown = [(c.entity, c.kind.value, c.key["id"]) for _, c in found]
    assert sorted(shown) == [
        ("orders", "INSERT", "4"),
        ("orders", "INSERT", "5"),
        ("users", "DELETE", "21"),
        ("users", "UPDATE", "3"),
        ("users", "UPDATE", "4"),
    ]
    assert world.sql("SELECT count(*) FROM public.users") == [(21,)], "nothing was changed by it"


def test_secrets_are_masked_and_only_said_to_differ(world):
    row = back_up(world)
    change(world)

    found, _ = everything(world, diff(world, row, "users"))

    updated = next(c for _, c in found if c.kind is ChangeKind.UPDATE)
    assert {f.field: f.masked for f in updated.fields} == {"name": False, "password": True}
    assert "hash" not in str(found)


def test_pages_filters_and_one_entity(world):
    row = back_up(world)
    change(world)
    job_id = diff(world, row)

    whole, _ = everything(world, job_id)

    assert everything(world, job_id, size=1)[0] == whole
    assert [place for place, _ in whole] == sorted({place for place, _ in whole})
    deleted, _ = everything(world, job_id, kind=ChangeKind.DELETE)
    assert [c.key for _, c in deleted] == [{"id": "21"}]
    assert {c.entity for _, c in everything(world, job_id, entity="orders")[0]} == {"orders"}
    only, counts = everything(world, diff(world, row, "orders"))
    assert ({c.entity for _, c in only}, [c["entity"] for c in counts]) == ({"orders"}, ["orders"])


def test_there_is_nothing_to_look_at_before_its_job_is_done(world):
    job_id = diff(world, back_up(world), work=False)

    with pytest.raises(FailedPrecondition) as caught:
        everything(world, job_id)

    assert (caught.value.reason, caught.value.metadata) == ("DIFF_NOT_READY", {"state": "PENDING"})
    world.work()
    assert everything(world, job_id)[0] == []


def test_an_unknown_one_and_that_of_others_are_the_same(world):
    job_id = diff(world, back_up(world))
    reader = caller_with(world, "backups.read", "backups.compare:users")

    with pytest.raises(NotFound) as caught:
        everything(world, uuid.uuid4())
    assert caught.value.reason == "DIFF_UNKNOWN"
    with pytest.raises(NotFound) as caught:
        everything(world, job_id, caller_with(world, "backups.compare"))
    assert caught.value.reason == "DIFF_UNKNOWN"
    with pytest.raises(PermissionDenied):
        everything(world, job_id, reader)
    assert everything(world, diff(world, back_up(world, "users")), reader)[0] == []


def test_they_are_the_jobs_until_it_ends_and_expire_then(world):
    job_id = diff(world, back_up(world))

    with world.resources.db.transaction() as session:
        row = session.get(BackupDiffRow, job_id)
        artifact = session.get(ArtifactRow, row.artifact_id)
        assert (artifact.owner_type, artifact.owner_id, artifact.kind) == ("backup_diffs", job_id, "DIFFERENCES")
        assert artifact.expires_at == row.expires_at
        kept = (row.expires_at - row.created_at).total_seconds()
        assert abs(kept - world.resources.settings.report_seconds) < 60
        artifact.expires_at = row.created_at
    assert retain(world).files == 1

    with pytest.raises(NotFound) as caught:
        everything(world, job_id)
    assert caught.value.reason == "ARTIFACT_GONE"


def test_a_damaged_backup_fails_it(world):
    row = back_up(world)
    for path in (
        Path(world.resources.settings.artifacts) / "segments" / str(row.artifact_id).replace("-", "")
    ).iterdir():
        path.write_bytes(path.read_bytes()[:-4] + bytes(4))

    job_id = diff(world, row)

    assert world.job(job_id).error["reason"] == "PART_DAMAGED"
    with pytest.raises(FailedPrecondition) as caught:
        everything(world, job_id)
    assert caught.value.metadata == {"state": "FAILED"}


def test_what_was_kept_is_bound_by_its_digest(world):
    job_id = diff(world, back_up(world))
    with world.resources.db.transaction() as session:
        session.get(BackupDiffRow, job_id).digest = bytes(32)

    with pytest.raises(DataLoss):
        everything(world, job_id)
