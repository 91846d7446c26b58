"""Increments: whatever happened since the parent, the chain gives the rows of its own moment, by either method."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from engine.backups import chain, known
from engine.errors import DataLoss
from tests.engine.backups.chains import THINGS, artifact_of, backed_up, delta_of, increment, method
from tests.engine.backups.kit import archive_of, staged_rows
from tests.world import World

Fresh = Callable[[str], World]

pytestmark = pytest.mark.usefixtures("no_backups")

KEYLESS = (
    "CREATE TABLE public.things (a int, b text);"
    "INSERT INTO public.things SELECT n % 50, 'row ' || n % 7 FROM generate_series(1, 2000) n"
)
PARTS = (
    "CREATE TABLE public.things (id int, part int, note text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);"
    "CREATE TABLE public.p1 PARTITION OF public.things FOR VALUES IN (1);"
    "CREATE TABLE public.p2 PARTITION OF public.things FOR VALUES IN (2);"
    "CREATE TABLE public.other (id int NOT NULL, part int NOT NULL, note text);"
    "INSERT INTO public.other SELECT n, 2, 'old' FROM generate_series(1, 500) n;"
    "INSERT INTO public.things SELECT n, 1 + n % 2, 'row ' || n FROM generate_series(1, 1000) n"
)


# --- what happened in between

BETWEEN = {
    "nothing": (THINGS, "SELECT 1", ("CANDIDATES", 0, 0)),
    "rows came": (
        THINGS,
        "INSERT INTO things SELECT n, 'new' FROM generate_series(5001, 5010) n",
        ("CANDIDATES", 10, 0),
    ),
    "rows changed": (THINGS, "UPDATE things SET note = 'other' WHERE id < 11", ("CANDIDATES", 10, 10)),
    "updated_at left alone, or back-dated": (
        THINGS,
        "UPDATE things SET note = 'x', updated_at = '2001-01-01' WHERE id = 7;"
        " UPDATE things SET note = 'y' WHERE id = 8",
        ("CANDIDATES", 2, 2),
    ),
    "written again as it was": (THINGS, "UPDATE things SET note = note WHERE id < 11", ("CANDIDATES", 0, 0)),
    "rows deleted": (THINGS, "DELETE FROM things WHERE id % 1000 = 0", ("CONTENT", 0, 3)),
    "one deleted, another inserted": (
        THINGS,
        "DELETE FROM things WHERE id = 1; INSERT INTO things VALUES (9000, 'new')",
        ("CONTENT", 1, 1),
    ),
    "deleted and inserted again, otherwise": (
        THINGS,
        "DELETE FROM things WHERE id = 1; INSERT INTO things VALUES (1, 'new')",
        ("CANDIDATES", 1, 1),
    ),
    "keys changed": (THINGS, "UPDATE things SET id = -id WHERE id < 4", ("CONTENT", 3, 3)),
    "keys exchanged": (
        THINGS,
        "UPDATE things SET id = -id WHERE id < 3; UPDATE things SET id = 3 + id WHERE id < 0",
        ("CANDIDATES", 2, 2),
    ),
    "truncated": (THINGS, "TRUNCATE things", ("CONTENT", 0, 3000)),
    "truncated and filled again": (
        THINGS,
        "TRUNCATE things; INSERT INTO things (id, note) SELECT n, 'row ' || n FROM generate_series(1, 3000) n",
        ("CONTENT", 3000, 3000),
    ),
    "rewritten": (THINGS, "UPDATE things SET note = 'z' WHERE id = 5; VACUUM FULL things", ("CONTENT", 1, 1)),
    "frozen": (THINGS, "UPDATE things SET note = 'z' WHERE id = 5; VACUUM FREEZE things", ("CANDIDATES", 1, 1)),
    "rolled back": (THINGS, "BEGIN; DELETE FROM things; ROLLBACK", ("CANDIDATES", 0, 0)),
    "made anew with the same rows": (
        THINGS,
        "CREATE TABLE copy AS TABLE things; DROP TABLE things;"
        " CREATE TABLE things (id int PRIMARY KEY, note text, updated_at timestamptz NOT NULL DEFAULT now());"
        " INSERT INTO things TABLE copy; DROP TABLE copy",
        ("CONTENT", 0, 0),
    ),
    "many rows changed": (THINGS, "UPDATE things SET note = 'w' WHERE id <= 2000", ("CONTENT", 2000, 2000)),
    "texts that COPY escapes": (
        THINGS,
        "UPDATE things SET note = E'a\\tb\\\\n\\r\\n' || repeat('x', 4500000) WHERE id IN (1, 3000)",
        ("CANDIDATES", 2, 2),
    ),
    "NULL and ''": (
        THINGS,
        "UPDATE things SET note = NULL WHERE id = 1; UPDATE things SET note = '' WHERE id = 2",
        ("CANDIDATES", 2, 2),
    ),
    "without a key: nothing": (KEYLESS, "SELECT 1", ("CANDIDATES", 0, 0)),
    "without a key: twins come and go": (
        KEYLESS,
        "DELETE FROM things WHERE ctid IN (SELECT ctid FROM things WHERE a = 3 LIMIT 5);"
        " INSERT INTO things SELECT 4, 'row 4' FROM generate_series(1, 3); INSERT INTO things VALUES (NULL, NULL)",
        None,
    ),
    "partitions: rows moved between them": (PARTS, "UPDATE things SET part = 2 WHERE id = 2 AND part = 1", None),
    "partitions: another one with as many old rows": (
        PARTS,
        "ALTER TABLE things DETACH PARTITION p2; ALTER TABLE things ATTACH PARTITION other FOR VALUES IN (2)",
        ("CONTENT", 500, 500),
    ),
    "a column dropped and added again": (
        THINGS,
        "ALTER TABLE things DROP updated_at, DROP note; ALTER TABLE things ADD note text DEFAULT 'x', ADD updated_at"
        " timestamptz NOT NULL DEFAULT '2001-01-01'; ALTER TABLE things ALTER note DROP DEFAULT,"
        " ALTER updated_at SET DEFAULT now()",
        ("CONTENT", 3000, 3000),
    ),
    "partitions: columns that exchange their names": (
        PARTS.replace("note text", "note text, other text"),
        "ALTER TABLE things DETACH PARTITION p2; ALTER TABLE p2 RENAME note TO n; ALTER TABLE p2 RENAME other TO note;"
        " ALTER TABLE p2 RENAME n TO other; ALTER TABLE things ATTACH PARTITION p2 FOR VALUES IN (2)",
        ("CONTENT", 500, 500),
    ),
    "partitions: nothing": (PARTS, "SELECT 1", ("CANDIDATES", 0, 0)),
}


@pytest.mark.parametrize("case", BETWEEN)
def test_whatever_happened_the_chain_gives_the_rows_of_now(fresh: Fresh, case: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chain, "LARGE", 1000)
    tables, happened, expected = BETWEEN[case]
    world = fresh(tables)
    full = backed_up(world)
    _run(world, happened)

    row = increment(world)
    assert (row.backup_type, row.parent_id, row.chain_id) == ("INCREMENTAL", full.id, full.id)
    proof, added, gone = delta_of(world, row)
    if expected is not None:
        assert (proof, added, gone) == expected

    with method(world, "content"):
        again = increment(world)
    assert delta_of(world, again) == ("CONTENT", 0, 0)
    assert staged_rows(world, archive_of(world, full), "things"), "the full backup stays as it was"


@pytest.mark.parametrize("case", ["rows changed", "rows deleted", "without a key: twins come and go"])
def test_by_content_the_same_is_found_in_several_passes(fresh: Fresh, case: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(known, "AT_ONCE", 700)
    tables, happened, expected = BETWEEN[case]
    world = fresh(tables)
    backed_up(world)
    _run(world, happened)
    with method(world, "content"):
        found = delta_of(world, increment(world))
    assert expected is None or found[1:] == expected[1:]


def _run(world: World, statements: str) -> None:
    with psycopg.connect(world.resources.platform.dsn, autocommit=True, options="-c search_path=public") as connection:
        for statement in statements.split("; "):
            connection.execute(statement.encode())


# --- transactions open across the cut


@pytest.mark.parametrize("savepoint", [False, True], ids=["plain", "savepoint"])
def test_what_was_open_across_the_cut_is_found(fresh: Fresh, savepoint: bool):
    world = fresh(THINGS)
    with psycopg.connect(world.resources.platform.dsn) as slow:
        slow.execute("UPDATE public.things SET note = 'before the cut' WHERE id = 1")
        if savepoint:
            slow.execute("SAVEPOINT a")
        slow.execute("UPDATE public.things SET note = 'also' WHERE id = 2")
        full = backed_up(world)
        if savepoint:
            slow.execute("RELEASE a; SAVEPOINT b")
        slow.execute("UPDATE public.things SET note = 'after' WHERE id = 3")
        for n in range(5):  # so that ids of later transactions lie beyond the slow one's
            world.sql(f"UPDATE public.things SET note = 'quick' WHERE id = {100 + n}")
        first = increment(world)
        slow.commit()
    second = increment(world)
    assert [row.parent_id for row in (first, second)] == [full.id, first.id]
    assert delta_of(world, first) == ("CANDIDATES", 5, 5)
    assert delta_of(world, second) == ("CANDIDATES", 3, 3)


# --- chains


def test_a_chain_is_bound_together(fresh: Fresh):
    world = fresh(THINGS)
    full = backed_up(world)
    world.sql("DELETE FROM public.things WHERE id < 10")
    row = increment(world)
    archive = archive_of(world, row)
    assert [link.manifest.backup_id for link in archive.chain] == [full.id, row.id]
    assert archive.manifest.format == 2
    world.resources.repository.delete(artifact_of(full))
    with pytest.raises(DataLoss, match="its parent") as caught:
        archive_of(world, row)
    assert caught.value.reason == "BACKUP_INCOMPLETE"
