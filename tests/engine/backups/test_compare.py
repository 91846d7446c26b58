"""A backup against the live rows: staged as it was, compared by the key, and the counts add up."""

from __future__ import annotations

from tests.engine.backups.kit import Differences, back_up

NOTES = "CREATE TABLE public.notes (id int PRIMARY KEY, note text, amount numeric, tags text[])"


def test_what_is_added_changed_and_gone_since(fresh):
    world = fresh(NOTES)
    world.sql("INSERT INTO public.notes SELECT g, 'n' || g, g FROM generate_series(1, 1000) g")
    row = back_up(world)
    world.sql("DELETE FROM public.notes WHERE id IN (10, 9)")
    world.sql("INSERT INTO public.notes VALUES (-1, 'new', 1)")
    world.sql("UPDATE public.notes SET note = 'other' WHERE id = 7")

    found = Differences(world, row)

    assert found.counts == [(2, 1, 1, 997)]
    assert found.changes() == [
        ("INSERT", {"id": "9"}, {"id": (None, "9"), "note": (None, "n9"), "amount": (None, "9"), "tags": (None, None)}),
        ("INSERT", {"id": "10"}, {"id": (None, "10"), "note": (None, "n10"), "amount": (None, "10"),
                                  "tags": (None, None)}),
        ("UPDATE", {"id": "7"}, {"note": ("other", "n7")}),
        ("DELETE", {"id": "-1"}, {"id": ("-1", None), "note": ("new", None), "amount": ("1", None),
                                  "tags": (None, None)}),
    ]  # fmt: skip


def test_nothing_changed_is_nothing_told(fresh):
    world = fresh(NOTES)
    world.sql("INSERT INTO public.notes SELECT g, 'n' || g, g, ARRAY['a', NULL] FROM generate_series(1, 500) g")

    found = Differences(world, back_up(world))

    assert (found.counts, found.changes()) == ([(0, 0, 0, 500)], [])
    assert found.left == (0,), "temp tables are dropped at the end"
    assert found.told.stages == [("LOAD", 500), ("COMPARE", 500)]
