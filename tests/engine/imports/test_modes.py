"""UPSERT and REPLACE: what they do to rows that are there, and what they never do."""

from __future__ import annotations

import pytest

from engine.errors import FailedPrecondition
from engine.imports.model import ChangeKind
from engine.paging import Paging

PEOPLE = (
    "CREATE TABLE public.people (id int PRIMARY KEY, email text UNIQUE, name text NOT NULL, note text DEFAULT 'none',"
    " boss int REFERENCES public.people);"
    "INSERT INTO public.people (id, email, name) VALUES (1, 'a@x', 'Ann'), (2, 'b@x', 'Bob'), (3, 'c@x', 'Cid')"
)


@pytest.fixture
def people(made):
    return made(PEOPLE)


def counts(row):
    return {name: n for name, n in row.plan_summary["counts"].items() if n and name != "total"}


def rows(world, columns="id, email, name, note"):
    return world.sql(f"SELECT {columns} FROM public.people ORDER BY id")


def test_an_upsert_adds_updates_and_leaves_alone_and_touches_only_mapped_fields(people):
    people.sql("UPDATE public.people SET note = 'mine' WHERE id = 2")
    row = people.plan("people", b"id,name\n2,Bobby\n3,Cid\n4,Dee\n", import_type="UPSERT")

    assert counts(row) == {"insert": 1, "update": 1, "unchanged": 1}
    assert row.plan_summary["entities"][0]["updated_fields"] == {"name": 1}
    changes, _ = people.imports.changes(people.caller, row.id, Paging(), [ChangeKind.UPDATE])
    assert [(c.key, [(f.field, f.old, f.new) for f in c.fields]) for _, c in changes] == [
        ({"id": "2"}, [("name", "Bob", "Bobby")])
    ]

    row = people.apply(row)

    assert row.status == "COMPLETED", row.error
    report = {name: row.report[name] for name in ("inserted", "updated", "unchanged", "skipped", "failed")}
    assert report == {"inserted": 1, "updated": 1, "unchanged": 1, "skipped": 0, "failed": 0}
    assert rows(people) == [
        (1, "a@x", "Ann", "none"), (2, "b@x", "Bobby", "mine"), (3, "c@x", "Cid", "none"), (4, None, "Dee", "none"),
    ]  # fmt: skip


def test_rows_may_be_found_by_any_unique_field(people):
    row = people.load("people", b"email,name\na@x,Anna\n", import_type="UPSERT", key_fields=["email"])

    assert row.status == "COMPLETED", row.error
    assert rows(people, "id, name")[0] == (1, "Anna")
    row = people.load("people", b"email,name\nz@x,Zoe\n", import_type="UPSERT", key_fields=["email"])
    assert [(e.field, e.code) for e in people.errors(row)] == [("id", "REQUIRED")]


def test_fields_that_tell_no_row_are_no_key(people):
    row = people.plan("people", b"id,name\n1,x\n", import_type="UPSERT", key_fields=["name"])

    assert people.reason(row) == "KEY_NOT_USABLE"


def test_unique_values_move_from_row_to_row_and_a_circle_is_refused(people):
    # 1 takes b@x from 2, 2 takes c@x from 3, 3 takes a new one
    row = people.load("people", b"id,email,name\n1,b@x,Ann\n2,c@x,Bob\n3,d@x,Cid\n", import_type="UPSERT")

    assert row.status == "COMPLETED", row.error
    assert rows(people, "id, email") == [(1, "b@x"), (2, "c@x"), (3, "d@x")]

    row = people.load("people", b"id,email,name\n1,c@x,Ann\n2,b@x,Bob\n3,d@x,Cyd\n", import_type="UPSERT")

    assert {(e.row, e.code) for e in people.errors(row)} == {(2, "UNIQUE_CYCLE"), (3, "UNIQUE_CYCLE")}
    assert rows(people, "id, email, name") == [(1, "b@x", "Ann"), (2, "c@x", "Bob"), (3, "d@x", "Cyd")]


def test_a_unique_value_that_another_row_keeps_is_taken(people):
    row = people.load("people", b"id,email,name\n1,b@x,Ann\n", import_type="UPSERT")

    assert [(e.row, e.field, e.code) for e in people.errors(row)] == [(2, "email", "UNIQUE_TAKEN")]


def test_replace_deletes_what_the_file_lacks_frees_its_values_and_asks_for_the_number(people):
    people.sql("UPDATE public.people SET boss = 3 WHERE id = 1")
    row = people.plan("people", b"id,email,name,boss\n1,c@x,Ann,9\n9,b@x,New,\n", import_type="REPLACE")

    assert counts(row) == {"insert": 1, "update": 1, "delete": 2}
    assert row.plan_summary["deletes_need_confirmation"]
    with pytest.raises(FailedPrecondition) as caught:
        people.apply(row)
    assert caught.value.reason == "DELETES_NOT_CONFIRMED"
    with pytest.raises(FailedPrecondition):
        people.apply(row, deletes=3)
    row = people.apply(row, deletes=2)

    assert row.status == "COMPLETED", row.error
    assert rows(people, "id, email, boss") == [(1, "c@x", 9), (9, "b@x", None)]
    assert (row.report["deleted"], row.report["rows_before"], row.report["rows_after"]) == (2, 3, 2)


def test_replace_never_deletes_a_row_whose_record_was_refused(people):
    data = b"id,email,name\n1,a@x,\nx,b@x,Bob\n"
    row = people.plan("people", data, import_type="REPLACE", error_budget=9)
    assert people.reason(row) == "KEY_UNREADABLE"

    row = people.plan("people", b"id,email,name\n1,a@x,\n2,b@x,Bob\n", import_type="REPLACE", max_deletes=5)
    assert people.reason(row) == "ERROR_BUDGET_EXCEEDED"

    row = people.load(
        "people", b"id,email,name\n1,a@x,\n2,b@x,Bob\n", import_type="REPLACE", error_budget=1, max_deletes=5
    )
    assert row.status == "COMPLETED", row.error
    assert rows(people, "id, name") == [(1, "Ann"), (2, "Bob")]


def test_an_empty_file_empties_a_table_only_with_the_number_repeated(people):
    row = people.plan("people", b"id,name\n", import_type="REPLACE", max_deletes=100)

    assert row.plan_summary["deletes_need_confirmation"]
    row = people.apply(row, deletes=3)
    assert row.status == "COMPLETED", row.error
    assert rows(people) == []


CHILDREN = (
    "CREATE TABLE public.pets (id int PRIMARY KEY, owner int NOT NULL REFERENCES public.people ON DELETE CASCADE);"
    "CREATE TABLE public.toys (id int PRIMARY KEY, pet int REFERENCES public.pets ON DELETE SET NULL);"
    "INSERT INTO public.pets VALUES (1, 2), (2, 3), (3, 1); INSERT INTO public.toys VALUES (1, 1), (2, 3)"
)


def test_what_foreign_keys_would_do_blocks_the_plan_unless_it_is_allowed_and_is_followed_to_its_end(people):
    people.sql(CHILDREN)
    data = b"id,email,name\n1,a@x,Ann\n3,c@x,Cid\n"

    row = people.plan("people", data, import_type="REPLACE", max_deletes=5)
    assert people.reason(row) == "CASCADE_NOT_ALLOWED"
    row = people.plan("people", data, import_type="REPLACE", max_deletes=5, allow_cascade=["pets"])
    assert people.reason(row) == "CASCADE_NOT_ALLOWED"
    assert "toys" in row.error["message"]
    row = people.plan("people", data, import_type="REPLACE", max_deletes=5, allow_cascade=["pets", "toys"])

    assert row.status == "AWAITING_APPROVAL", row.error
    assert [(c["name"], c["actions"]) for c in row.plan_summary["cascades"]] == [
        ("pets", [["pets_owner_fkey", "DELETE CASCADE", 1]]),
        ("toys", [["toys_pet_fkey", "DELETE SET NULL", 1]]),
    ]
    row = people.apply(row)
    assert row.status == "COMPLETED", row.error
    assert people.sql("SELECT id FROM public.pets ORDER BY id") == [(2,), (3,)]
    assert people.sql("SELECT * FROM public.toys ORDER BY id") == [(1, None), (2, 3)]
    assert row.report["cascaded"] == 2


def test_a_row_that_comes_to_hang_on_one_that_goes_makes_the_plan_stale(people):
    people.sql(CHILDREN)
    data = b"id,email,name\n1,a@x,Ann\n3,c@x,Cid\n"
    row = people.plan("people", data, import_type="REPLACE", max_deletes=5, allow_cascade=["pets", "toys"])
    people.sql("INSERT INTO public.pets VALUES (4, 2)")

    row = people.apply(row)

    assert people.reason(row) == "PLAN_STALE"
    assert people.sql("SELECT count(*) FROM public.pets") == [(4,)]


def test_a_reference_that_would_refuse_a_delete_refuses_the_plan(people):
    people.sql("CREATE TABLE public.bills (id int PRIMARY KEY, payer int REFERENCES public.people);"
               "INSERT INTO public.bills VALUES (1, 2)")  # fmt: skip
    row = people.plan("people", b"id,email,name\n1,a@x,Ann\n", import_type="REPLACE", max_deletes=5)

    assert people.reason(row) == "ROWS_REFERENCED"
    assert "bills" in row.error["message"]


@pytest.mark.parametrize(
    ("change", "mode", "reason"),
    [
        ("UPDATE public.people SET name = 'Moved' WHERE id = 2", "UPSERT", "PLAN_STALE"),
        ("UPDATE public.people SET note = 'free' WHERE id = 2", "UPSERT", None),
        ("DELETE FROM public.people WHERE id = 1", "UPSERT", "PLAN_STALE"),
        ("UPDATE public.people SET note = 'free' WHERE id = 3", "REPLACE", "PLAN_STALE"),
        ("INSERT INTO public.people (id, name) VALUES (8, 'Ida')", "REPLACE", "PLAN_STALE"),
        ("INSERT INTO public.people (id, name) VALUES (8, 'Ida')", "UPSERT", None),
    ],
)
def test_a_plan_is_stale_when_what_it_relied_on_has_moved(people, change, mode, reason):
    row = people.plan("people", b"id,email,name\n1,a@x,Ann\n2,b@x,Bobby\n", import_type=mode, **(
        {"max_deletes": 5} if mode == "REPLACE" else {}
    ))  # fmt: skip
    people.sql(change)
    row = people.apply(row)

    assert (people.reason(row) if reason else row.status) == (reason or "COMPLETED"), row.error


def test_rows_that_have_moved_may_be_left_out(people):
    row = people.plan(
        "people", b"id,email,name\n1,a@x,Ann\n2,b@x,Bobby\n3,c@x,Cyd\n4,d@x,Dee\n", import_type="UPSERT",
        on_drift="SKIP_MOVED",
    )  # fmt: skip
    people.sql(
        "UPDATE public.people SET name = 'Mine' WHERE id IN (1, 2);"
        "INSERT INTO public.people (id, name) VALUES (4, 'Own')"
    )
    row = people.apply(row)

    assert row.status == "COMPLETED", row.error
    assert {(e.row, e.code) for e in people.errors(row)} == {(2, "SKIP_MOVED"), (3, "SKIP_MOVED"), (5, "SKIP_MOVED")}
    assert rows(people, "id, name") == [(1, "Mine"), (2, "Mine"), (3, "Cyd"), (4, "Own")]
    assert (row.report["skipped"], row.report["updated"]) == (3, 1)


def test_what_has_moved_may_be_planned_anew(people):
    row = people.create(
        "people", b"id,email,name\n2,b@x,Bobby\n", import_type="UPSERT", on_drift="REPLAN", auto_apply=True
    )
    from engine.jobs.registry import handlers
    from engine.jobs.runner import Runner

    runner = Runner(people.resources, handlers(), "tests")
    runner.run_next()
    people.sql("UPDATE public.people SET name = 'Moved' WHERE id = 2")
    people.work()

    row = people.imports.get(people.caller, row.id)
    assert row.status == "COMPLETED", row.error
    assert rows(people, "id, name")[1] == (2, "Bobby")


def test_a_reference_is_found_by_another_unique_field(people):
    from engine.imports.model import FieldMapping

    row = people.load(
        "people",
        b"id,name,boss\n2,Bob,a@x\n3,Cid,nobody@x\n5,Eve,\n",
        import_type="UPSERT",
        mapping=(FieldMapping("boss", "boss", lookup="email"),),
    )
    assert row.status == "COMPLETED", row.error
    assert [(e.row, e.field, e.code, e.value) for e in people.errors(row)] == [
        (3, "boss", "LOOKUP_MISSING", "nobody@x")
    ]
    assert rows(people, "id, boss") == [(1, None), (2, 1), (3, None), (5, None)]


def test_changes_can_be_had_as_a_file(people):
    from engine.errors import Unavailable
    from engine.imports.model import ReportPart

    row = people.plan("people", b'id,name,note\n2,Bobby,\n4,Dee,""\n', import_type="UPSERT")
    with pytest.raises(Unavailable) as caught:
        people.imports.report_part(people.caller, row.id, ReportPart.CHANGES)
    assert caught.value.reason == "REPORT_PART_BEING_MADE"
    people.work()

    file = people.imports.report_part(people.caller, row.id, ReportPart.CHANGES)
    assert people.read(file.artifact_id).decode().splitlines() == [
        "entity,row,kind,key,field,old,new",
        'people,3,INSERT,"{""id"": ""4""}",id,,4',
        'people,3,INSERT,"{""id"": ""4""}",name,,Dee',
        'people,3,INSERT,"{""id"": ""4""}",note,,""',
        'people,3,INSERT,"{""id"": ""4""}",email,,',
        'people,3,INSERT,"{""id"": ""4""}",boss,,',
        'people,2,UPDATE,"{""id"": ""2""}",name,Bob,Bobby',
        'people,2,UPDATE,"{""id"": ""2""}",note,none,',
    ]


@pytest.mark.parametrize("action", ["SET NULL", "SET DEFAULT", "CASCADE", "NO ACTION"])
@pytest.mark.parametrize("mode", ["UPSERT", "REPLACE"])
def test_a_key_spelled_otherwise_is_the_tables_own_and_sets_nothing_off(fresh, action, mode):
    # foreign keys compare images: writing 1.0 over 1.00 would null, default or rewrite the child, unplanned
    world = fresh(
        "CREATE TABLE public.p (k numeric PRIMARY KEY, v text); INSERT INTO public.p VALUES (1.00, 'a'), (2, 'b');"
        f"CREATE TABLE public.c (id int PRIMARY KEY, p numeric REFERENCES public.p ON UPDATE {action});"
        "INSERT INTO public.c VALUES (1, 1.00)"
    )
    row = world.load("p", b"k,v\n1.0,new\n2.000,b\n", import_type=mode)

    assert row.status == "COMPLETED", row.error
    assert world.sql("SELECT k::text, v FROM public.p ORDER BY k") == [("1.00", "new"), ("2", "b")]
    assert world.sql("SELECT p::text FROM public.c") == [("1.00",)]
    assert counts(row) == {"update": 1, "unchanged": 1}
    assert row.plan_summary["entities"][0]["updated_fields"] == {"v": 1}
    changes, _ = world.imports.changes(world.caller, row.id, Paging(), [ChangeKind.UPDATE])
    assert [[f.field for f in c.fields] for _, c in changes] == [["v"]]


def test_records_whose_key_cannot_be_read_are_named(people):
    data = b"id,name\n1,a\nx,b\n,c\n2,a,b\n3,\n"
    row = people.plan("people", data, import_type="REPLACE", error_budget=9)

    assert people.reason(row) == "KEY_UNREADABLE"
    assert row.error["violations"] == [
        ["id", "record 3: INVALID_VALUE"], ["id", "record 4: REQUIRED"], ["", "record 5: WRONG_FIELD_COUNT"],
    ]  # fmt: skip


TWO_KEYS = (
    "CREATE TABLE public.p (id int PRIMARY KEY); INSERT INTO public.p VALUES (0), (1), (2);"
    "CREATE TABLE public.c (id int PRIMARY KEY, a int DEFAULT 0 REFERENCES public.p ON DELETE SET DEFAULT,"
    " b int REFERENCES public.p ON DELETE {}); INSERT INTO public.c VALUES (1, 2, 2), (2, 2, 1), (3, 1, 2), (4, 1, 1)"
)


def test_a_row_that_two_foreign_keys_change_is_told_with_both(fresh):
    world = fresh(TWO_KEYS.format("SET NULL"))
    row = world.plan("p", b"id\n0\n1\n", import_type="REPLACE", max_deletes=9, allow_cascade=["c"])

    assert row.plan_summary["cascades"][0]["actions"] == [
        ["c_a_fkey", "DELETE SET DEFAULT", 2], ["c_b_fkey", "DELETE SET NULL", 2],
    ]  # fmt: skip
    changes, _ = world.imports.changes(world.caller, row.id, Paging(), [ChangeKind.CASCADE])
    assert sorted((c.key["id"], f.field) for _, c in changes for f in c.fields) == [
        ("1", "a"), ("1", "b"), ("2", "a"), ("3", "b"),
    ]  # fmt: skip
    row = world.apply(row)
    assert row.status == "COMPLETED", row.error
    assert world.sql("SELECT * FROM public.c ORDER BY id") == [(1, 0, None), (2, 0, 1), (3, 1, None), (4, 1, 1)]


@pytest.mark.parametrize("action", ["NO ACTION", "RESTRICT"])
def test_a_row_that_one_foreign_key_changes_may_still_refuse_by_another(fresh, action):
    world = fresh(TWO_KEYS.format(action) + "; DELETE FROM public.c WHERE id = 3")
    row = world.plan("p", b"id\n0\n1\n", import_type="REPLACE", max_deletes=9, allow_cascade=["c"])

    assert world.reason(row) == "ROWS_REFERENCED"
    assert "c_b_fkey" in row.error["message"]


def test_a_row_that_one_foreign_key_deletes_is_told_once(fresh):
    world = fresh(TWO_KEYS.format("CASCADE"))
    row = world.plan("p", b"id\n0\n1\n", import_type="REPLACE", max_deletes=9, allow_cascade=["c"])

    assert row.plan_summary["cascades"][0]["actions"] == [
        ["c_b_fkey", "DELETE CASCADE", 2], ["c_a_fkey", "DELETE SET DEFAULT", 1],
    ]  # fmt: skip
    row = world.apply(row)
    assert (row.status, row.report["cascaded"]) == ("COMPLETED", 3), row.error
    assert world.sql("SELECT * FROM public.c ORDER BY id") == [(2, 0, 1), (4, 1, 1)]
