"""Definitions that have changed since the backup: handled by name with a report, or refused, live data untouched."""

from __future__ import annotations

import pytest

from tests.engine.restores.kit import back_up, confirm, contents, plan, planned, restore

THINGS = """
CREATE TABLE public.things (id int PRIMARY KEY, name text NOT NULL, n int);
INSERT INTO public.things VALUES (1, 'a', 1), (2, 'b', NULL), (3, 'c', 3);
"""


@pytest.fixture
def made(fresh):
    """Tables of one's own in the module's world: a fifth of the time of a world for each test."""
    return fresh


def codes(row, entity="things"):
    return [d["code"] for d in planned(row, entity)["schema_differences"]]


def faults(row):
    assert row.error is not None
    return " ".join(v[1] for v in row.error["violations"])


def test_a_new_column_gets_its_default_or_null(made):
    world = made(THINGS)
    backup = back_up(world)
    world.sql(
        "ALTER TABLE public.things ADD flag boolean NOT NULL DEFAULT true, ADD note text; DELETE FROM public.things"
    )

    row = plan(world, backup)

    assert codes(row) == ["COLUMN_ADDED", "COLUMN_ADDED"]
    done = confirm(world, row)
    assert done.status == "COMPLETED", done.error
    assert world.sql("SELECT * FROM public.things ORDER BY id") == [
        (1, "a", 1, True, None),
        (2, "b", None, True, None),
        (3, "c", 3, True, None),
    ]


def test_a_new_column_that_must_be_filled_is_refused(made):
    world = made(THINGS)
    backup = back_up(world)
    world.sql("DELETE FROM public.things; ALTER TABLE public.things ADD must int NOT NULL")

    row = plan(world, backup)

    assert world.reason(row) == "SCHEMA_INCOMPATIBLE"
    assert "must" in faults(row)


def test_a_column_that_is_gone_is_told(made):
    world = made(THINGS)
    backup = back_up(world)
    world.sql("ALTER TABLE public.things DROP n; UPDATE public.things SET name = 'x'")

    row = plan(world, backup)

    assert codes(row) == ["COLUMN_DROPPED"]
    done = confirm(world, row)
    assert done.status == "COMPLETED", done.error
    assert world.sql("SELECT * FROM public.things ORDER BY id") == [(1, "a"), (2, "b"), (3, "c")]


def test_a_renamed_column_is_refused_until_it_is_said(made):
    """What is gone and what came would else lose the column's values in silence."""
    world = made(THINGS)
    backup = back_up(world)
    world.sql("ALTER TABLE public.things RENAME n TO number; UPDATE public.things SET number = 9")

    assert "number" in faults(plan(world, backup))

    row = plan(world, backup, renames={"n": "number"})
    assert codes(row) == ["COLUMN_RENAMED"]
    assert planned(row, "things")["rows_changed"] == 3
    confirm(world, row)
    assert world.sql("SELECT id, number FROM public.things ORDER BY id") == [(1, 1), (2, None), (3, 3)]

    restore(world, backup, renames={"n": ""})  # or that it is none
    assert world.sql("SELECT id, number FROM public.things ORDER BY id") == [(1, None), (2, None), (3, None)]


@pytest.mark.parametrize("change", ["RENAME id TO key", "RENAME name TO title"], ids=["the key", "what must be filled"])
def test_a_renamed_key_or_required_column(made, change):
    world = made(THINGS)
    before = contents(world, "things")
    backup = back_up(world)
    world.sql(f"ALTER TABLE public.things {change}; DELETE FROM public.things WHERE n = 1")
    _, old, _, new = change.split()

    restore(world, backup, renames={old: new})

    assert contents(world, "things") == before


@pytest.mark.parametrize("kind", ["bigint", "numeric", "text"])
def test_a_wider_type_takes_the_values(made, kind):
    world = made(THINGS)
    backup = back_up(world)
    world.sql(f"ALTER TABLE public.things ALTER n TYPE {kind}; DELETE FROM public.things")

    row = plan(world, backup)

    assert codes(row) == ["COLUMN_RETYPED"]
    confirm(world, row)
    assert world.sql("SELECT id, n::text FROM public.things ORDER BY id") == [(1, "1"), (2, None), (3, "3")]


@pytest.mark.parametrize(
    ("old", "value", "new"),
    [
        ("timestamptz", "2020-01-01 10:00:00+00", "date"),
        ("text", "too long", "varchar(3)"),
        ("numeric", "1.50", "int"),
        ("text", "no number", "int"),
        ("numeric", "1.50", "numeric(4, 1)"),
    ],
)
def test_a_type_that_would_change_values_is_refused(made, old, value, new):
    world = made(
        f"CREATE TABLE public.things (id int PRIMARY KEY, v {old}); INSERT INTO public.things VALUES (1, '{value}')"
    )
    backup = back_up(world)
    world.sql(f"DELETE FROM public.things; ALTER TABLE public.things ALTER v TYPE {new} USING NULL")

    row = plan(world, backup)

    assert world.reason(row) == "SCHEMA_INCOMPATIBLE"
    assert "1 values" in faults(row)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("ADD CONSTRAINT small CHECK (n < 3)", "small"),
        ("ALTER n SET NOT NULL", "n"),
        ("ADD CONSTRAINT one UNIQUE (name)", "one"),
        ("ADD CONSTRAINT gone FOREIGN KEY (n) REFERENCES public.others", "gone"),
    ],
)
def test_a_new_rule_that_rows_of_the_backup_break_is_refused_by_its_name(made, change, named):
    world = made(THINGS + "CREATE TABLE public.others (id int PRIMARY KEY);")
    world.sql("UPDATE public.things SET name = 'b'")
    backup = back_up(world, "things")
    world.sql(f"DELETE FROM public.things; ALTER TABLE public.things {change}")

    row = plan(world, backup)

    assert world.reason(row) in ("SCHEMA_INCOMPATIBLE", "RESTORE_WOULD_ORPHAN")
    assert named in faults(row)
    assert world.sql("SELECT count(*) FROM public.things") == [(0,)]


def test_a_new_rule_that_rows_of_the_backup_keep_is_no_hindrance(made):
    world = made(THINGS)
    before = contents(world, "things")
    backup = back_up(world)
    world.sql("ALTER TABLE public.things ADD CONSTRAINT positive CHECK (n > 0), ADD CONSTRAINT one UNIQUE (name)")
    world.sql("DELETE FROM public.things")

    row = plan(world, backup)

    assert codes(row) == ["DEFINITION_CHANGED"]
    confirm(world, row)
    assert contents(world, "things") == before


def test_what_only_the_table_can_judge_undoes_the_restore(made):
    world = made(THINGS)
    backup = back_up(world)
    world.sql("DELETE FROM public.things; CREATE UNIQUE INDEX odd ON public.things ((id % 2))")
    world.sql("INSERT INTO public.things VALUES (8, 'here', 8)")

    done = confirm(world, plan(world, backup))

    assert done.status == "ROLLED_BACK"
    assert world.reason(done) == "SCHEMA_INCOMPATIBLE"
    assert "odd" in done.error["message"]
    assert world.sql("SELECT id FROM public.things") == [(8,)]


def test_a_label_that_is_gone_is_refused(made):
    world = made(
        "CREATE TYPE public.mood AS ENUM ('glad', 'sad');"
        "CREATE TABLE public.things (id int PRIMARY KEY, m public.mood);"
        "INSERT INTO public.things VALUES (1, 'sad')"
    )
    backup = back_up(world)
    world.sql("DELETE FROM public.things; ALTER TABLE public.things ALTER m TYPE text; DROP TYPE public.mood")
    world.sql("CREATE TYPE public.mood AS ENUM ('glad'); ALTER TABLE public.things ALTER m TYPE public.mood USING NULL")

    assert world.reason(plan(world, backup)) == "SCHEMA_INCOMPATIBLE"


def test_a_table_that_is_gone_is_refused_and_the_others_can_be_restored(made):
    world = made(THINGS + "CREATE TABLE public.others (id int PRIMARY KEY); INSERT INTO public.others VALUES (1)")
    backup = back_up(world)
    world.sql("DROP TABLE public.others; DELETE FROM public.things")

    assert world.reason(plan(world, backup)) == "SCHEMA_INCOMPATIBLE"
    restore(world, backup, "things")

    assert world.sql("SELECT count(*) FROM public.things") == [(3,)]


def test_a_column_that_is_generated_now(made):
    world = made(THINGS)
    backup = back_up(world)
    world.sql(
        "ALTER TABLE public.things DROP n; ALTER TABLE public.things ADD n int GENERATED ALWAYS AS (id * 10) STORED"
    )

    restore(world, backup)

    assert world.sql("SELECT id, n FROM public.things ORDER BY id") == [(1, 10), (2, 20), (3, 30)]


def test_columns_in_another_order(made):
    world = made(THINGS)
    backup = back_up(world)
    world.sql("DROP TABLE public.things; CREATE TABLE public.things (n int, name text NOT NULL, id int PRIMARY KEY)")

    restore(world, backup)

    assert world.sql("SELECT id, name, n FROM public.things ORDER BY id") == [(1, "a", 1), (2, "b", None), (3, "c", 3)]


@pytest.mark.parametrize(
    ("first", "value", "then", "reason"),
    [
        ("text", "8a6e0804-2bd0-4672-b79d-d97027f9071a", "uuid", ""),
        ("timestamp", "2024-01-01 00:00:00", "text", ""),
        ("text", "abc", "uuid", "SCHEMA_INCOMPATIBLE"),
    ],
)
def test_a_domain_that_was_made_anew_over_another_type(made, first, value, then, reason):
    """Its name says that nothing has changed."""
    world = made(
        f"CREATE DOMAIN public.d AS {first}; CREATE TABLE public.t (id int PRIMARY KEY, v public.d);"
        f"INSERT INTO public.t SELECT g, '{value}' FROM generate_series(1, 3) g"
    )
    backup = back_up(world, "t")
    world.sql("DROP TABLE public.t; DROP DOMAIN public.d")
    world.sql(f"CREATE DOMAIN public.d AS {then}; CREATE TABLE public.t (id int PRIMARY KEY, v public.d)")
    row = plan(world, backup, "t")
    if reason:
        assert (row.status, row.error["reason"]) == ("FAILED", reason)
        return

    assert codes(row, "t") == ["COLUMN_RETYPED"]
    assert confirm(world, row).status == "COMPLETED"
    assert [(id_, str(v)) for id_, v in world.sql("TABLE public.t")] == [(n, value) for n in (1, 2, 3)]
