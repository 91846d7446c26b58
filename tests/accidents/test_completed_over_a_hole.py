"""COMPLETED although a piece was missing: a stored part is lost, cut or exchanged, or rows vanish on their way in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from engine.db.models import ArtifactPartRow, UploadRow
from tests.world import World

SCHEMA = (
    "CREATE TABLE public.t (id int PRIMARY KEY, v text);"
    "INSERT INTO public.t SELECT n, 'old' FROM generate_series(1, 400) n"
)
FILE = b"id,v\n" + b"".join(b"%d,%s\n" % (n, b"old" if n < 100 else b"new") for n in range(1, 301))
FILE += b"".join(b"%d,new\n" % n for n in range(1_000, 1_100))
DAMAGED = "PART_DAMAGED"
REPLACE = {"import_type": "REPLACE", "max_deletes": 1_000}


def rows(world: World) -> list[tuple[Any, ...]]:
    return world.sql("SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM public.t t")


def stored(world: World, artifact_id: object, stream: str | None = None) -> Path:
    with world.resources.db.transaction() as session:
        found = select(ArtifactPartRow).where(ArtifactPartRow.artifact_id == artifact_id)
        part = next(p for p in session.scalars(found) if stream in (None, p.stream))
    name = part.name
    folder = Path(world.resources.settings.artifacts)
    return next(p for p in folder.rglob("*") if p.is_file() and str(p).endswith(name))


def damage(path: Path, how: str, other: Path) -> None:
    data = path.read_bytes()
    path.chmod(0o600)
    if how == "lost":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[:-20])
    elif how == "flipped":
        path.write_bytes(data[:-30] + bytes([data[-30] ^ 1]) + data[-29:])
    elif how == "emptied":
        path.write_bytes(b"")
    else:
        path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("how", ["lost", "cut", "flipped", "emptied", "exchanged"])
@pytest.mark.parametrize("stream", ["0.INSERT", "0.UPDATE", "0.UNCHANGED", "0.DELETE", "HEAD"])
def test_a_plan_with_a_hole_changes_nothing(fresh, stream, how):
    world = fresh(SCHEMA)
    other = world.plan("t", FILE.replace(b"new", b"two"), **REPLACE)
    row = world.plan("t", FILE, **REPLACE)
    before = rows(world)
    damage(stored(world, row.plan_artifact_id, stream), how, stored(world, other.plan_artifact_id, stream))

    row = world.apply(row, deletes=row.plan_summary["counts"]["delete"])

    assert row.status in ("FAILED", "ROLLED_BACK")
    assert world.reason(row) == ("PART_MISSING" if how == "lost" else DAMAGED), row.error
    assert (rows(world), row.report) == (before, None)


@pytest.mark.parametrize("mode", ["ADDITIVE", "UPSERT", "REPLACE"])
@pytest.mark.parametrize("how", ["lost", "cut", "flipped", "emptied"])
def test_an_upload_with_a_hole_makes_no_plan(fresh: Callable[[str], World], how: str, mode: str) -> None:
    world = fresh(SCHEMA)
    before, upload = rows(world), world.upload(FILE)
    with world.resources.db.transaction() as session:
        artifact = session.get_one(UploadRow, upload).artifact_id
    path = stored(world, artifact)
    damage(path, how, path)

    row = world.plan("t", upload, import_type=mode, auto_apply=True)

    assert row.status == "FAILED"
    assert world.reason(row) != "INTERNAL", row.error
    assert (row.plan_digest, row.report, rows(world)) == (None, None, before)


TRIGGER = (
    ";CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} END $$;"
    "CREATE TRIGGER f {} ON public.t FOR EACH ROW EXECUTE FUNCTION public.f()"
)


@pytest.mark.parametrize(
    ("body", "when"),
    [
        ("IF old.id = 350 THEN RETURN NULL; END IF; RETURN old;", "BEFORE DELETE"),
        ("IF new.id = 200 THEN RETURN NULL; END IF; RETURN new;", "BEFORE UPDATE"),
        ("IF new.id = 1050 THEN RETURN NULL; END IF; RETURN new;", "BEFORE INSERT"),
        ("DELETE FROM public.t WHERE id = 1001; RETURN NULL;", "AFTER UPDATE"),
        ("INSERT INTO public.t VALUES (-new.id, 'more') ON CONFLICT DO NOTHING; RETURN NULL;", "AFTER UPDATE"),
        ("DELETE FROM public.t WHERE id = 5; RETURN NULL;", "AFTER DELETE"),
    ],
)
def test_rows_that_vanish_or_appear_on_the_way_undo_a_replacement(
    fresh: Callable[[str], World], body: str, when: str
) -> None:
    world = fresh(SCHEMA + TRIGGER.format(body, when))
    before = rows(world)
    row = world.plan("t", FILE, **REPLACE)
    row = world.apply(row, deletes=100)

    assert row.status == "ROLLED_BACK"
    assert world.reason(row) in ("ROW_REFUSED", "ROWS_UNACCOUNTED")
    assert (rows(world), row.report) == (before, None)


def test_a_completed_replacement_counts_what_the_table_holds(fresh):
    world = fresh(SCHEMA)
    row: Any = world.plan("t", FILE, **REPLACE)
    row = world.apply(row, deletes=100)

    assert row.status == "COMPLETED", row.error
    assert (row.total_records, row.report["rows_after"]) == (400, 400)
    assert world.sql("SELECT count(*) FROM public.t") == [(400,)]
