"""Faults that the model test has found, each by what it looked like."""

from __future__ import annotations

import pytest


@pytest.fixture
def people(made):
    return made(
        "CREATE TABLE public.people (id int PRIMARY KEY, email text UNIQUE, name text, a int, b int, UNIQUE (a, b));"
        "INSERT INTO public.people VALUES (1, 'a@x', 'Ann', 1, 1), (2, 'b@x', 'Bob', 2, 2), (3, 'c@x', 'Cid', 3, 3)"
    )


BILLS = (
    "CREATE TABLE public.bills (id int PRIMARY KEY, a int, b int, FOREIGN KEY (a, b) REFERENCES public.people (a, b));"
)


def codes(world, row):
    return [(e.row, e.code) for e in world.errors(row)]


def test_an_update_of_one_column_of_a_referred_pair_was_an_internal_error(people):
    people.sql(BILLS + "INSERT INTO public.bills VALUES (1, 1, 1)")
    row = people.load("people", b"id,b\n2,7\n", import_type="UPSERT")
    assert row.status == "COMPLETED", row.error

    row = people.plan("people", b"id,b\n1,7\n", import_type="UPSERT")
    assert people.reason(row) == "ROWS_REFERENCED"


def test_an_update_of_one_referred_field_set_off_the_foreign_keys_of_another(people):
    people.sql(
        BILLS + "CREATE TABLE public.pets (id int PRIMARY KEY, owner int REFERENCES public.people);"
        "INSERT INTO public.pets VALUES (1, 1)"
    )
    row = people.load("people", b"email,id,b\na@x,1,7\n", import_type="UPSERT", key_fields=["email"])

    assert (row.status, row.report["updated"]) == ("COMPLETED", 1), row.error


def test_a_record_was_a_duplicate_of_one_that_is_refused_itself(people):
    data = b"id,email,name\n7,x@x,first\n8,x@x,refused\n8,y@x,second\n"
    row = people.load("people", data, import_type="UPSERT")

    assert codes(people, row) == [(3, "UNIQUE_IN_FILE")]
    assert people.sql("SELECT id, name FROM public.people WHERE id > 3 ORDER BY id") == [(7, "first"), (8, "second")]


@pytest.mark.parametrize("mode", ["ADDITIVE", "UPSERT"])
def test_a_null_in_the_key_fields_that_may_stand_once_only_was_seen_by_apply_alone(made, mode):
    world = made(
        "CREATE TABLE public.seats (id serial PRIMARY KEY, line int, UNIQUE NULLS NOT DISTINCT (line), name text);"
        "INSERT INTO public.seats (line, name) VALUES (1, 'one')"
    )
    data, options = b"line,name\n,x\n,y\n2,z\n", {"import_type": mode, "key_fields": ["line"]}
    row = world.load("seats", data, **options)
    assert (row.status, codes(world, row)) == ("COMPLETED", [(3, "UNIQUE_IN_FILE")]), row.error

    row = world.load("seats", data, **options)
    taken = [(2, "UNIQUE_TAKEN"), (3, "UNIQUE_TAKEN")]
    assert codes(world, row) == taken + ([(4, "KEY_EXISTS")] if mode == "ADDITIVE" else [])


def test_a_record_without_its_key_took_the_unique_value_of_a_row(people):
    row = people.load("people", b"email,id,name\n,1,x\n,7,y\n", import_type="UPSERT", key_fields=["email"])

    assert (row.status, codes(people, row)) == ("COMPLETED", [(2, "UNIQUE_TAKEN")]), row.error


def test_a_record_waited_for_one_that_stood_behind_a_refused_one(people):
    data = b"id,email,a,b\n9,z@x,1,1\n7,a@x,4,4\n1,a@x,5,5\n"
    row = people.load("people", data, import_type="UPSERT")

    # 7 cannot have a@x, so 1 keeps it, and gives (1, 1) to 9
    assert (row.status, codes(people, row)) == ("COMPLETED", [(3, "UNIQUE_TAKEN")]), row.error
    assert people.sql("SELECT id, a FROM public.people WHERE id IN (1, 9) ORDER BY id") == [(1, 5), (9, 1)]


def test_a_record_fell_with_the_first_of_two_that_it_could_refer_to(made):
    world = made("CREATE TABLE public.staff (id int PRIMARY KEY, boss int REFERENCES public.staff)")
    row = world.load("staff", b"id,boss\n8,99\n8,\n9,8\n")

    assert (row.status, codes(world, row)) == ("COMPLETED", [(2, "REFERENCE_MISSING")]), row.error
    assert world.sql("SELECT id, boss FROM public.staff ORDER BY id") == [(8, None), (9, 8)]


REFUSING = (
    "CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {}.name = 'no' THEN RETURN NULL;"
    " END IF; RETURN {}; END $$; CREATE TRIGGER no BEFORE {} ON public.people FOR EACH ROW EXECUTE FUNCTION public.no()"
)


def test_beside_a_refused_record_an_update_that_refers_to_a_new_row_made_the_plan_stale(people):
    people.sql(
        "ALTER TABLE public.people ADD boss int REFERENCES public.people;" + REFUSING.format("NEW", "NEW", "UPDATE")
    )
    row = people.load("people", b"id,name,boss\n1,Ann,9\n2,no,9\n9,new,\n", import_type="UPSERT")

    assert (row.status, codes(people, row)) == ("COMPLETED", [(3, "REFUSED_AT_APPLY")]), row.error
    assert people.sql("SELECT id, boss FROM public.people ORDER BY id") == [(1, 9), (2, None), (3, None), (9, None)]


def test_beside_a_refused_record_a_row_that_others_are_led_away_from_could_not_go(people):
    people.sql(
        "ALTER TABLE public.people ADD boss int REFERENCES public.people;" + REFUSING.format("NEW", "NEW", "UPDATE")
    )
    people.sql("UPDATE public.people SET boss = 3 WHERE id = 1")
    data = b"id,name,boss\n1,Ann,2\n2,no,\n"
    row = people.load("people", data, import_type="REPLACE", max_deletes=9, on_refused="SKIP")

    assert (row.status, codes(people, row)) == ("COMPLETED", [(3, "REFUSED_AT_APPLY")]), row.error
    assert people.sql("SELECT id, boss FROM public.people ORDER BY id") == [(1, 2), (2, None)]


def test_a_trigger_that_keeps_rows_from_going_was_counted_as_if_fewer_had_been_planned(people):
    people.sql(REFUSING.format("OLD", "OLD", "DELETE") + ";UPDATE public.people SET name = 'no' WHERE id = 3")
    row = people.load("people", b"id,name\n1,A\n2,B\n", import_type="REPLACE", max_deletes=9, on_refused="SKIP")

    assert (row.status, people.reason(row)) == ("ROLLED_BACK", "ROW_REFUSED")


def test_a_new_row_with_the_value_of_one_that_goes_was_left_out_as_moved(people):
    data = b"id,email,name,a,b\n1,a@x,Ann,1,1\n2,b@x,Bob,2,2\n9,c@x,New,3,3\n"
    row = people.load("people", data, import_type="REPLACE", max_deletes=9, on_drift="SKIP_MOVED")

    assert (row.status, codes(people, row)) == ("COMPLETED", []), row.error
    assert people.sql("SELECT id FROM public.people ORDER BY id") == [(1,), (2,), (9,)]


def test_a_moved_row_that_was_to_take_others_with_it_ended_in_unaccounted_rows(people):
    people.sql(
        "CREATE TABLE public.pets (id int PRIMARY KEY, owner int REFERENCES public.people ON DELETE CASCADE);"
        "INSERT INTO public.pets VALUES (1, 3)"
    )
    options = {"import_type": "REPLACE", "max_deletes": 9, "on_drift": "SKIP_MOVED", "allow_cascade": ["pets"]}
    row = people.plan("people", b"id,name\n1,Ann\n2,Bob\n", **options)
    people.sql("UPDATE public.people SET name = 'Mine' WHERE id = 3")
    row = people.apply(row)

    assert (row.status, people.reason(row)) == ("ROLLED_BACK", "PLAN_STALE")
    assert people.sql("SELECT count(*) FROM public.people") == [(3,)]


def test_a_known_row_is_not_refused_for_what_only_a_new_one_would_get(made):
    world = made(
        "CREATE TABLE public.a (id int PRIMARY KEY, price int, low int DEFAULT 5, CHECK (low <= price));"
        "INSERT INTO public.a VALUES (1, 3, 2)"
    )
    row = world.plan("a", b"id,price\n1,3\n2,3\n3,9\n")

    assert [(e.row, e.code) for e in world.errors(row)] == [(2, "KEY_EXISTS"), (3, "CHECK_VIOLATED")]


def test_a_trigger_that_keeps_a_value_where_it_is_makes_no_plan_of_a_whole_table_stale(made):
    """Planned anew it would be stale for ever: the table is as it was, and a trigger in the way."""
    world = made(
        "CREATE TABLE public.a (id int PRIMARY KEY, v int UNIQUE); INSERT INTO public.a VALUES (1, 1), (2, 2);"
        "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER f BEFORE UPDATE ON public.a FOR EACH ROW WHEN (OLD.id = 1) EXECUTE FUNCTION public.f()"
    )
    row = world.load("a", b"id,v\n1,3\n2,1\n", import_type="REPLACE")

    assert (row.status, world.reason(row)) == ("ROLLED_BACK", "ROW_REFUSED")
    assert world.sql("SELECT * FROM public.a ORDER BY id") == [(1, 1), (2, 2)]


def test_who_refers_to_a_row_that_a_refused_record_would_have_moved_is_taken(made):
    world = made(
        "CREATE TABLE public.a (id int PRIMARY KEY, email text UNIQUE, boss int REFERENCES public.a);"
        "INSERT INTO public.a VALUES (1, 'p', NULL), (2, 't', NULL)"
    )
    # 9 is nobody, so that 2 stays 2, so that 1 cannot become 2, so that there is a 1 to refer to
    data = b"id,email,boss\n4,new,1\n2,p,\n10,t,9\n"
    row = world.load("a", data, import_type="UPSERT", key_fields=["email"])

    assert {(e.row, e.code) for e in world.errors(row)} == {(3, "UNIQUE_TAKEN"), (4, "REFERENCE_MISSING")}
    assert world.sql("SELECT id, boss FROM public.a ORDER BY id") == [(1, None), (2, None), (4, 1)]


def test_who_refers_to_a_row_that_moves_away_is_refused(made):
    world = made(
        "CREATE TABLE public.a (id int PRIMARY KEY, email text UNIQUE, boss int REFERENCES public.a);"
        "INSERT INTO public.a VALUES (1, 'p', NULL)"
    )
    row = world.load("a", b"id,email,boss\n4,new,1\n7,p,\n", import_type="UPSERT", key_fields=["email"])

    assert {(e.row, e.code) for e in world.errors(row)} == {(2, "REFERENCE_MISSING")}
    assert world.sql("SELECT id FROM public.a") == [(7,)]


def test_a_record_whose_reference_stays_only_if_it_is_refused_is_refused(made):
    world = made(
        "CREATE TABLE public.a (id int PRIMARY KEY, email text UNIQUE, boss int REFERENCES public.a);"
        "INSERT INTO public.a VALUES (1, 'w', NULL), (7, 'x', NULL)"
    )
    # taken, it lets 1 become 7, and refers to nobody; refused, it keeps 1 where it is
    row = world.load("a", b"id,email,boss\n7,w,\n10,x,1\n", import_type="UPSERT", key_fields=["email"])

    assert {(e.row, e.code) for e in world.errors(row)} == {(2, "UNIQUE_TAKEN"), (3, "REFERENCE_MISSING")}
    assert world.sql("SELECT id, boss FROM public.a ORDER BY id") == [(1, None), (7, None)]
