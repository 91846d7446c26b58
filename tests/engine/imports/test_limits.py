"""How wide and how many: what PostgreSQL cannot hold is refused by name before a row is read."""

from __future__ import annotations

import pytest

from engine.errors import DataInvalid
from engine.imports.sources import MOST_ENTITIES
from engine.imports.targets import MOST_TOUCHED
from tests.engine.imports.test_bundles import bundle


def wide(made, columns: int, kind: str = "int"):
    names = [f"c{i}" for i in range(columns)]
    world = made(f"CREATE TABLE public.wide (id int PRIMARY KEY, {', '.join(f'{n} {kind}' for n in names)})")
    world.sql("INSERT INTO public.wide (id) VALUES (1)")
    return world, ",".join(["id", *names]).encode() + b"\n"


def test_as_many_columns_are_updated_as_new_and_old_values_have_room(made):
    world, head = wide(made, MOST_TOUCHED - 1)
    row = world.load("wide", head + b"1" + b",5" * (MOST_TOUCHED - 1) + b"\n", import_type="UPSERT")

    assert (row.status, row.report["updated"]) == ("COMPLETED", 1), row.error


@pytest.mark.parametrize("mode", ["UPSERT", "REPLACE"])
def test_a_column_more_is_refused_where_rows_are_updated(made, mode):
    world, head = wide(made, MOST_TOUCHED)
    row = world.plan("wide", head + b"1" + b",5" * MOST_TOUCHED + b"\n", import_type=mode)
    assert world.reason(row) == "ENTITY_NOT_IMPORTABLE"  # it was INTERNAL

    row = world.load("wide", head + b"2" + b",5" * MOST_TOUCHED + b"\n", import_type="ADDITIVE")
    assert row.status == "COMPLETED", row.error


def test_rows_too_wide_to_stand_twice_in_a_line_are_refused_by_name(made):
    world, head = wide(made, 700, "bigint")
    world.sql("UPDATE public.wide SET " + ", ".join(f"c{i} = 6" for i in range(700)))
    row = world.load("wide", head + b"1" + b",5" * 700 + b"\n", import_type="UPSERT")

    assert world.reason(row) == "ENTITY_NOT_IMPORTABLE"
    assert world.sql("SELECT c0, c699 FROM public.wide") == [(6, 6)]


def tables(made, n: int):
    world = made("")
    for i in range(n):
        world.sql(f"CREATE TABLE public.t{i} (id int PRIMARY KEY, boss int REFERENCES public.t{i})")
    return world


def test_a_bundle_of_more_entities_than_one_transaction_can_lock_is_refused_at_the_call(made):
    world = tables(made, MOST_ENTITIES + 1)
    upload = world.upload(bundle(world), "all.zip")

    with pytest.raises(DataInvalid) as refused:
        world.create("", upload, format="BUNDLE", import_type="UPSERT")
    assert refused.value.reason == "BUNDLE_TOO_LARGE"


def test_in_many_entities_rows_change_their_parents_for_new_ones(made):
    n = 40
    world = tables(made, n)
    for i in range(n):
        world.sql(f"INSERT INTO public.t{i} VALUES (1, 3), (3, NULL)")
    data = bundle(world)
    for i in range(n):
        world.sql(f"UPDATE public.t{i} SET boss = NULL; DELETE FROM public.t{i} WHERE id = 3")
        world.sql(f"INSERT INTO public.t{i} VALUES (2, NULL); UPDATE public.t{i} SET boss = 2 WHERE id = 1")
    row = world.plan("", world.upload(data, "all.zip"), format="BUNDLE", import_type="REPLACE", max_deletes=n)
    row = world.apply(row, deletes=n)

    # 120 parts were statements of their own: the parent was to go before its row had another
    assert row.status == "COMPLETED", row.error
    assert {tuple(world.sql(f"SELECT id, boss FROM public.t{i} ORDER BY id")) for i in range(n)} == {
        ((1, 3), (3, None))
    }
