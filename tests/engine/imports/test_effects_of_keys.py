"""What foreign keys do by themselves, through all their actions, partitions, and tables that are no entities."""

from __future__ import annotations

import psycopg
import pytest

from engine.imports.model import ChangeKind, FieldChange
from engine.imports.planfile import Plan
from engine.imports.reactions import Reactions
from engine.paging import Paging

PARENT = "CREATE TABLE public.a (id int PRIMARY KEY, v text); INSERT INTO public.a VALUES (1, 'x'), (2, 'y');"


def replace(world, entity, data, *cascade):
    return world.plan(entity, data, import_type="REPLACE", max_deletes=5, allow_cascade=list(cascade))


PARTED = (
    "CREATE TABLE public.p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);"
    "CREATE TABLE public.p1 PARTITION OF public.p FOR VALUES FROM (0) TO (100);"
)


def test_a_partition_that_refuses_speaks_of_its_table(made):
    world = made(
        "CREATE TABLE public.kinds (kind text PRIMARY KEY); INSERT INTO public.kinds VALUES ('x');" + PARTED
        + "ALTER TABLE public.p ADD kind text REFERENCES public.kinds; CREATE UNIQUE INDEX p_v ON public.p (v, id)"
    )  # fmt: skip
    row = world.plan("p", b"id,v\n5,a\n6,b\n")
    world.sql("INSERT INTO public.p VALUES (5, 'z')")
    row = world.apply(row)

    assert (row.status, world.reason(row)) == ("ROLLED_BACK", "PLAN_STALE"), row.report
    assert "p_pkey" in row.error["message"]

    row = world.plan("p", b"id,kind\n7,x\n")
    world.sql("DELETE FROM public.kinds")
    assert world.reason(world.apply(row)) == "PLAN_STALE"

    row = world.plan("p", b"id,v\n7,x\n", on_refused="ABORT")
    world.sql("ALTER TABLE public.p1 ADD CONSTRAINT own CHECK (v <> 'x')")
    row = world.apply(row)
    assert (world.reason(row), row.error["message"].split(":")[0]) == ("ROW_REFUSED", "p")


def test_a_foreign_key_to_one_partition_is_found(made):
    world = made(
        PARTED + "CREATE TABLE public.ch (id int PRIMARY KEY, p int REFERENCES public.p1 (id) ON DELETE CASCADE);"
        "INSERT INTO public.p SELECT g, 'v' FROM generate_series(1, 3) g; INSERT INTO public.ch VALUES (7, 1), (8, 2)"
    )
    row = replace(world, "p", b"id,v\n2,v\n3,v\n")
    assert world.reason(row) == "CASCADE_NOT_ALLOWED", row.plan_summary
    assert "ch" in row.error["message"]

    row = replace(world, "p", b"id,v\n2,v\n3,v\n", "ch")
    assert row.plan_summary["cascades"][0]["actions"] == [["ch_p_fkey", "DELETE CASCADE", 1]]
    row = world.apply(row)
    assert (row.status, row.report["cascaded"]) == ("COMPLETED", 1), row.error
    assert world.sql("TABLE public.ch") == [(8, 2)]


def test_a_foreign_key_of_one_partition_is_found_and_speaks_of_no_other(made):
    world = made(
        PARENT + PARTED + "CREATE TABLE public.p2 PARTITION OF public.p FOR VALUES FROM (100) TO (200);"
        "ALTER TABLE public.p ADD a int;"
        "ALTER TABLE public.p1 ADD FOREIGN KEY (a) REFERENCES public.a ON DELETE CASCADE;"
        "INSERT INTO public.p VALUES (5, 'v', 1), (105, 'v', 1)"
    )  # fmt: skip
    assert world.reason(replace(world, "a", b"id,v\n2,y\n")) == "CASCADE_NOT_ALLOWED"

    row = world.apply(replace(world, "a", b"id,v\n2,y\n", "p"))
    assert (row.status, row.report["cascaded"]) == ("COMPLETED", 1), row.error
    assert world.sql("SELECT id FROM public.p") == [(105,)]


@pytest.mark.parametrize("action", ["CASCADE", "NO ACTION"])
def test_nothing_can_come_to_refer_to_a_row_that_goes_once_it_was_looked_at(made, monkeypatch, action):
    world = made(
        PARENT + "CREATE SCHEMA other;"
        f"CREATE TABLE other.ch (id int PRIMARY KEY, a int REFERENCES public.a ON DELETE {action})"
    )
    row = replace(world, "a", b"id,v\n2,y\n")
    looked = Reactions.require_as_planned

    def and_then(self):
        looked(self)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            world.sql("SET lock_timeout = '200ms'; INSERT INTO other.ch VALUES (7, 1)")

    monkeypatch.setattr(Reactions, "require_as_planned", and_then)
    row = world.apply(row)

    assert row.status == "COMPLETED", row.error
    assert world.sql("TABLE public.a") == [(2, "y")]


def test_nothing_can_come_to_refer_to_a_value_that_changes_once_it_was_looked_at(made, monkeypatch):
    world = made(
        "CREATE TABLE public.a (id int PRIMARY KEY, code text UNIQUE); INSERT INTO public.a VALUES (1, 'x');"
        "CREATE SCHEMA other; CREATE TABLE other.ch (code text REFERENCES public.a (code) ON UPDATE CASCADE)"
    )
    row = world.plan("a", b"id,code\n1,y\n", import_type="UPSERT")
    assert row.plan_summary["entities"][0]["lock"]["mode"] == "SHARE ROW EXCLUSIVE"
    looked = Reactions.require_as_planned

    def and_then(self):
        looked(self)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            world.sql("SET lock_timeout = '200ms'; INSERT INTO other.ch VALUES ('x')")

    monkeypatch.setattr(Reactions, "require_as_planned", and_then)

    assert world.apply(row).status == "COMPLETED"


CHAIN = (
    "CREATE TABLE public.a (id int PRIMARY KEY, code text UNIQUE);"
    "CREATE TABLE public.b (code text PRIMARY KEY REFERENCES public.a (code) ON UPDATE CASCADE);"
    "CREATE TABLE public.c (id int PRIMARY KEY, code text REFERENCES public.b (code) ON UPDATE {});"
    "INSERT INTO public.a VALUES (1, 'x'), (2, 'z'); INSERT INTO public.b VALUES ('x'), ('z');"
    "INSERT INTO public.c VALUES (9, 'x'), (8, 'z')"
)


@pytest.mark.parametrize(("action", "stored"), [("CASCADE", "y"), ("SET NULL", None), ("SET DEFAULT", None)])
def test_keys_that_change_are_followed_to_their_end(made, action, stored):
    world = made(CHAIN.format(action))
    data, options = b"id,code\n1,y\n", {"import_type": "UPSERT"}
    row = world.plan("a", data, allow_cascade=["b"], **options)
    assert world.reason(row) == "CASCADE_NOT_ALLOWED", row.plan_summary
    assert "rows of c refer by c_code_fkey" in row.error["message"]

    row = world.plan("a", data, allow_cascade=["b", "c"], **options)
    assert [(c["name"], c["actions"], c["rows"]) for c in row.plan_summary["cascades"]] == [
        ("b", [["b_code_fkey", "UPDATE CASCADE", 1]], 1), ("c", [["c_code_fkey", f"UPDATE {action}", 1]], 1),
    ]  # fmt: skip
    row = world.apply(row)
    assert (row.status, row.report["cascaded"]) == ("COMPLETED", 2), row.error
    assert sorted(world.sql("TABLE public.c")) == [(8, "z"), (9, stored)]


def test_a_reference_at_the_end_of_a_chain_refuses_the_plan(made):
    world = made(CHAIN.format("NO ACTION"))
    row = world.plan("a", b"id,code\n1,y\n", import_type="UPSERT", allow_cascade=["b", "c"])

    assert world.reason(row) == "ROWS_REFERENCED", row.plan_summary
    assert "c_code_fkey" in row.error["message"]


@pytest.mark.parametrize(("action", "left"), [("SET NULL", None), ("SET DEFAULT", 2)])
def test_values_that_others_refer_to_are_followed_when_a_key_sets_them(made, action, left):
    world = made(
        "CREATE TABLE public.a (id int PRIMARY KEY); INSERT INTO public.a VALUES (1), (2);"
        f"CREATE TABLE public.b (id int PRIMARY KEY, a int UNIQUE DEFAULT 2 REFERENCES public.a ON DELETE {action});"
        "CREATE TABLE public.c (id int PRIMARY KEY, ba int REFERENCES public.b (a) ON UPDATE CASCADE);"
        "INSERT INTO public.b VALUES (5, 1); INSERT INTO public.c VALUES (9, 1)"
    )
    row = replace(world, "a", b"id\n2\n", "b")
    assert world.reason(row) == "CASCADE_NOT_ALLOWED", row.plan_summary

    row = world.apply(replace(world, "a", b"id\n2\n", "b", "c"))
    assert (row.status, row.report["cascaded"]) == ("COMPLETED", 2), row.error
    assert world.sql("TABLE public.b") + world.sql("TABLE public.c") == [(5, left), (9, left)]


def test_a_default_that_only_the_server_knows_is_not_followed(made):
    world = made(
        PARENT + "CREATE TABLE public.b (id int PRIMARY KEY,"
        " a int DEFAULT (random() * 0 + 2)::int REFERENCES public.a ON DELETE SET DEFAULT);"
        "INSERT INTO public.b VALUES (5, 1)"
    )
    row = replace(world, "a", b"id,v\n2,y\n", "b")

    assert world.reason(row) == "CASCADE_NOT_ALLOWED", row.plan_summary
    assert "b_a_fkey sets a of b to a default" in row.error["message"]


def test_two_keys_of_a_row_change_what_refers_to_both(made):
    world = made(
        "CREATE TABLE public.a (id int PRIMARY KEY, k int UNIQUE); INSERT INTO public.a VALUES (1, 10), (2, 20);"
        "CREATE TABLE public.j (x int REFERENCES public.a (k) ON UPDATE CASCADE,"
        " y int REFERENCES public.a (k) ON UPDATE CASCADE, PRIMARY KEY (x, y));"
        "CREATE TABLE public.c (id int PRIMARY KEY, x int, y int,"
        " FOREIGN KEY (x, y) REFERENCES public.j ON UPDATE CASCADE);"
        "INSERT INTO public.j VALUES (10, 20), (10, 10); INSERT INTO public.c VALUES (1, 10, 20), (2, 10, 10)"
    )
    row = world.plan("a", b"id,k\n1,11\n2,21\n", import_type="UPSERT", allow_cascade=["j", "c"])
    assert [(c["name"], c["actions"], c["rows"]) for c in row.plan_summary["cascades"]] == [
        ("j", [["j_x_fkey", "UPDATE CASCADE", 2], ["j_y_fkey", "UPDATE CASCADE", 2]], 2),
        ("c", [["c_x_y_fkey", "UPDATE CASCADE", 2]], 2),
    ]
    row = world.apply(row)

    assert (row.status, row.report["cascaded"]) == ("COMPLETED", 4), row.error
    assert sorted(world.sql("TABLE public.c")) == [(1, 11, 21), (2, 11, 11)]


def test_what_comes_to_hang_on_the_end_of_a_chain_makes_the_plan_stale(made):
    world = made(CHAIN.format("CASCADE") + "; DELETE FROM public.c WHERE id = 9")
    row = world.plan("a", b"id,code\n1,y\n", import_type="UPSERT", allow_cascade=["b", "c"])
    assert [c["name"] for c in row.plan_summary["cascades"]] == ["b"]
    world.sql("INSERT INTO public.c VALUES (9, 'x')")

    assert world.reason(world.apply(row)) == "PLAN_STALE"
    assert sorted(world.sql("TABLE public.b")) == [("x",), ("z",)]


SHOWN = (
    "CREATE TABLE public.a (id int PRIMARY KEY, code text UNIQUE); INSERT INTO public.a VALUES (1, 'x'), (2, 'd');"
    "CREATE TABLE public.b (id int PRIMARY KEY, code text DEFAULT 'd' REFERENCES public.a (code) {}, note text);"
    "INSERT INTO public.b VALUES (5, 'x', 'n')"
)


def shown(world, row):
    changes, _ = world.imports.changes(world.caller, row.id, Paging(), [ChangeKind.CASCADE])
    return [(c.entity, c.key, c.fields) for _, c in changes]


@pytest.mark.parametrize(("action", "new"), [("CASCADE", "y"), ("SET NULL", None), ("SET DEFAULT", "d")])
def test_what_a_foreign_key_sets_is_shown_as_it_becomes(made, action, new):
    world = made(SHOWN.format(f"ON UPDATE {action}"))
    row = world.plan("a", b"id,code\n1,y\n", import_type="UPSERT", allow_cascade=["b"])

    assert shown(world, row) == [("b", {"id": "5"}, (FieldChange("code", "x", new),))]
    assert world.apply(row).status == "COMPLETED"
    assert world.sql("TABLE public.b") == [(5, new, "n")]


def test_a_foreign_key_that_nulls_some_of_its_columns_is_shown_with_these(made):
    world = made(
        "CREATE TABLE public.a (t int, id int, PRIMARY KEY (t, id)); INSERT INTO public.a VALUES (7, 1), (7, 2);"
        "CREATE TABLE public.b (id int PRIMARY KEY, t int, a int,"
        " FOREIGN KEY (t, a) REFERENCES public.a ON DELETE SET NULL (a)); INSERT INTO public.b VALUES (5, 7, 1)"
    )
    row = replace(world, "a", b"t,id\n7,2\n", "b")

    assert shown(world, row) == [("b", {"id": "5"}, (FieldChange("a", "1", None),))]
    assert world.apply(row).status == "COMPLETED"
    assert world.sql("TABLE public.b") == [(5, 7, None)]


def triggered(body):
    return (
        f"CREATE FUNCTION public.z() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;"
        "CREATE TRIGGER z BEFORE UPDATE ON public.b FOR EACH ROW EXECUTE FUNCTION public.z()"
    )


def cascaded(world, row):
    """How many rows the report says were changed by a trigger, in all and of b; and the undo's stream of b."""
    by_entity = {e["entity"]: e["changed_by_trigger"] for e in row.report["entities"]}
    undo = Plan.read(world.resources.artifacts.reader(row.undo_artifact_id))
    lines = [line for _, line in undo.numbered("0.CASCADE", 0)]
    assert "CHANGED_BY_TRIGGER" in {n["code"] for n in row.report["notices"]} or not by_entity["b"]
    return row.report["changed_by_trigger"], by_entity["b"], [(line[0], line[2:]) for line in lines]


@pytest.mark.parametrize("action", ["ON UPDATE CASCADE", "ON UPDATE SET NULL", "ON UPDATE SET DEFAULT"])
@pytest.mark.parametrize(
    ("body", "changed"),
    [
        ("RETURN NEW;", 0),
        ("NEW.note := 'changed'; RETURN NEW;", 1),
        ("NEW.code := 'e'; RETURN NEW;", 1),
        ("NEW.id := 6; RETURN NEW;", 1),
        ("RETURN NULL;", 1),
    ],
)
def test_what_a_trigger_makes_of_a_row_that_a_foreign_key_changes_is_told(fresh, action, body, changed):
    world = fresh(SHOWN.format(action) + ";INSERT INTO public.a VALUES (3, 'e');" + triggered(body))
    row = world.load("a", b"id,code\n1,y\n", import_type="UPSERT", allow_cascade=["b"])

    assert row.status == "COMPLETED", row.error
    if (body, action) == ("RETURN NULL;", "ON UPDATE SET DEFAULT"):  # the only action whose end PostgreSQL looks at
        assert row.report["failed"] == 1
        changed = 0
    stands = [] if "NEW.id" in body else [("0", ["5"])]
    assert cascaded(world, row) == (changed, changed, stands)


def test_a_row_that_gets_another_key_by_a_foreign_key_is_read_by_it(made):
    world = made(CHAIN.format("CASCADE"))
    row = world.load("a", b"id,code\n1,y\n2,w\n", import_type="UPSERT", allow_cascade=["b", "c"])

    assert cascaded(world, row) == (0, 0, [("0", ["w"]), ("0", ["y"])])


def test_a_row_whose_parent_was_left_out_is_no_triggers_work(made):
    world = made(
        SHOWN.format("ON UPDATE CASCADE")
        + ";CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER no BEFORE UPDATE ON public.a FOR EACH ROW EXECUTE FUNCTION public.no()"
    )
    row = world.load("a", b"id,code\n1,y\n", import_type="UPSERT", allow_cascade=["b"], on_refused="SKIP")

    assert (row.status, row.report["failed"]) == ("COMPLETED", 1), row.error
    assert cascaded(world, row) == (0, 0, [("0", ["5"])])
