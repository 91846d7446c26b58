"""Rows that the table refuses only at apply are left out alone, however the others refer to one another."""

from __future__ import annotations

import pytest

from engine.imports import isolate

PEOPLE = (
    "CREATE TABLE public.people (id int PRIMARY KEY, name text NOT NULL, boss int REFERENCES public.people);"
    "INSERT INTO public.people (id, name) VALUES (1, 'Ann'), (2, 'Bob');"
    "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.name = 'bad' THEN"
    " RAISE 'no'; END IF; RETURN new; END $$;"
    "CREATE TRIGGER f BEFORE INSERT OR UPDATE ON public.people FOR EACH ROW EXECUTE FUNCTION public.f()"
)


def refused(world, row):
    assert row.status == "COMPLETED", row.error
    return {(e.row, e.code) for e in world.errors(row)}


def test_an_update_that_refers_to_a_new_row_is_no_stale_plan(fresh):
    world = fresh(PEOPLE)
    row = world.load("people", b"id,name,boss\n1,Ann,9\n2,Bobby,1\n9,Nine,\n5,bad,\n", import_type="UPSERT")

    assert refused(world, row) == {(5, "REFUSED_AT_APPLY")}
    assert world.sql("SELECT id, boss FROM public.people ORDER BY id") == [(1, 9), (2, 1), (9, None)]
    assert (row.report["updated"], row.report["inserted"], row.report["failed"]) == (2, 1, 1)


def test_an_update_that_refers_to_a_refused_new_row_goes_with_it(fresh):
    world = fresh(PEOPLE)
    row = world.load("people", b"id,name,boss\n1,Ann,5\n2,Bobby,\n5,bad,\n", import_type="UPSERT")

    assert refused(world, row) == {(2, "PARENT_SKIPPED"), (4, "REFUSED_AT_APPLY")}
    assert world.sql("SELECT id, name, boss FROM public.people ORDER BY id") == [(1, "Ann", None), (2, "Bobby", None)]


@pytest.mark.parametrize("chunk", [2, 2_000])
def test_rows_that_refer_to_each_other_in_a_circle_stand_together(fresh, monkeypatch, chunk):
    monkeypatch.setattr(isolate, "CHUNK", chunk)
    world = fresh(PEOPLE)
    row = world.load("people", b"id,name,boss\n11,A,13\n5,bad,\n12,B,11\n13,C,12\n14,D,11\n15,E,15\n")

    assert refused(world, row) == {(3, "REFUSED_AT_APPLY")}
    found = world.sql("SELECT id, boss FROM public.people WHERE id > 2 ORDER BY id")
    assert found == [(11, 13), (12, 11), (13, 12), (14, 11), (15, 15)]


def test_a_circle_with_a_refused_row_in_it_falls_whole(fresh):
    world = fresh(PEOPLE)
    row = world.load("people", b"id,name,boss\n11,A,13\n12,bad,11\n13,C,12\n14,D,11\n15,E,\n")

    assert {(number, code) for number, code in refused(world, row) if number == 3} == {(3, "REFUSED_AT_APPLY")}
    assert {number for number, _ in refused(world, row)} == {2, 3, 4, 5}
    assert world.sql("SELECT id FROM public.people WHERE id > 2") == [(15,)]


def test_one_circle_that_falls_leaves_the_others(fresh):
    world = fresh(PEOPLE)
    row = world.load("people", b"id,name,boss\n11,A,12\n12,bad,11\n21,A,22\n22,B,21\n")

    assert refused(world, row) == {(2, "PARENT_SKIPPED"), (3, "REFUSED_AT_APPLY")}
    assert world.sql("SELECT id FROM public.people WHERE id > 2 ORDER BY id") == [(21,), (22,)]


def test_a_new_row_that_wants_a_value_of_an_update_that_refers_to_it_is_left_out_and_no_stale_plan(fresh):
    world = fresh(
        PEOPLE + "; ALTER TABLE public.people ADD u text UNIQUE; UPDATE public.people SET u = 'a' WHERE id = 1"
    )
    row = world.load("people", b"id,name,u,boss\n1,Ann,b,9\n9,Nine,a,\n5,bad,,\n", import_type="UPSERT")

    # all three would go in at once but for the bad one; piece by piece the two wait for each other
    assert refused(world, row) == {(2, "PARENT_SKIPPED"), (3, "REFUSED_AT_APPLY"), (4, "REFUSED_AT_APPLY")}
    assert world.sql("SELECT id, u, boss FROM public.people ORDER BY id") == [(1, "a", None), (2, None, None)]
