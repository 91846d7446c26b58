"""Tables, triggers and bundles that are odd, or made to harm: each has its one outcome, and none is a defect."""

from __future__ import annotations

import io
import json
import zipfile

import pytest

from engine.paging import Paging
from tests.engine.exports.kit import export


def trigger(body, events="INSERT"):
    return (
        f"CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;"
        f"CREATE TRIGGER t AFTER {events} ON public.a FOR EACH ROW EXECUTE FUNCTION public.f()"
    )


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ("DELETE FROM public.a WHERE id = NEW.id; RETURN NULL;", 3),
        ("DELETE FROM public.a WHERE id = NEW.id; RETURN NULL;", 100_000),
        ("IF NEW.v = 'd' THEN DELETE FROM public.a WHERE id = NEW.id; INSERT INTO public.a VALUES (-NEW.id, 'q');"
         " END IF; RETURN NULL;", 3),
    ],
)  # fmt: skip
def test_a_row_that_a_trigger_takes_away_again_is_not_told_to_be_in(made, body, rows):
    world = made(
        "CREATE TABLE public.a (id int PRIMARY KEY, v text);"
        f"INSERT INTO public.a SELECT n, 'x' FROM generate_series(1, {rows}) n; ANALYZE public.a; {trigger(body)}"
    )
    row = world.load("a", b"id,v\n500001,d\n")

    assert (row.status, world.reason(row)) == ("ROLLED_BACK", "ROWS_UNACCOUNTED")
    assert world.sql("SELECT count(*) FROM public.a") == [(rows,)]


def test_what_two_types_cut_in_silence_is_too_long(made):
    world = made('CREATE TABLE public.a (id name PRIMARY KEY, c "char")')
    rows = [b"n" * 80 + b",x", b"n" * 63 + b",xyz", b"m" * 63 + b",q", b"k,\\101"]
    row = world.load("a", b"id,c\n" + b"\n".join(rows) + b"\n")

    assert [(e.row, e.field, e.code) for e in world.errors(row)] == [(2, "id", "TOO_LONG"), (3, "c", "TOO_LONG")]
    assert world.sql("SELECT length(id::text), c::text FROM public.a ORDER BY id DESC") == [(63, "q"), (1, "A")]


def test_temp_tables_that_are_refused_are_the_platforms_to_allow(made):
    world = made("CREATE TABLE public.a (id int PRIMARY KEY)")
    world.sql(
        "CREATE FUNCTION public.no() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no ddl'; END $$;"
        "CREATE EVENT TRIGGER no ON ddl_command_start EXECUTE FUNCTION public.no()"
    )
    assert world.reason(world.plan("a", b"id\n1\n")) == "PLATFORM_NOT_PREPARED"


@pytest.mark.parametrize("body", ["TRUNCATE public.a", "ALTER TABLE public.a ADD COLUMN IF NOT EXISTS z int"])
def test_a_trigger_that_wants_what_apply_holds_refuses_the_rows(made, body):
    world = made(f"CREATE TABLE public.a (id int PRIMARY KEY, v text); {trigger(body + '; RETURN NULL;')}")
    row = world.load("a", b"id,v\n1,x\n", on_refused="ABORT")

    assert (row.status, world.reason(row)) == ("ROLLED_BACK", "ROW_REFUSED")


def test_a_key_of_parts_that_are_all_null_can_be_replaced(made):
    world = made(
        "CREATE TYPE public.ct AS (a int, b text); CREATE TABLE public.a (id public.ct PRIMARY KEY, v text);"
        "INSERT INTO public.a VALUES ('(,)', 'x')"
    )
    row = world.load("a", b'id,v\n"(,)",d\n', import_type="REPLACE")

    assert row.status == "COMPLETED", row.error
    assert world.sql("SELECT v FROM public.a") == [("d",)]


def test_a_key_that_refuses_overlaps_is_named_by_the_plan_and_judged_by_the_table(made):
    world = made("CREATE TABLE public.a (id int4range, v text)")
    if world.sql("SHOW server_version_num")[0][0] < "180000":
        pytest.skip("PostgreSQL 18 has such keys")
    world.sql(
        "DROP TABLE public.a; CREATE EXTENSION btree_gist; CREATE TABLE public.a (id int, v daterange, n int,"
        " twice int GENERATED ALWAYS AS (n * 2) VIRTUAL, PRIMARY KEY (id, v WITHOUT OVERLAPS));"
        "INSERT INTO public.a VALUES (1, '[2020-01-01,2021-01-01)', 5)"
    )
    world.resources.catalogs.forget()
    _, data = export(world, "a", format="BUNDLE")
    assert world.load("", data, format="BUNDLE", import_type="REPLACE").report["unchanged"] == 1

    row = world.plan("a", b'id,v,n\n1,"[2020-06-01,2020-07-01)",7\n2,"[2020-06-01,2020-07-01)",7\n')
    notices = {n["code"]: n["message"] for n in row.plan_summary["notices"]}
    assert "a_pkey" in notices["CHECKED_AT_APPLY"]
    row = world.apply(row)
    assert [(e.row, e.code) for e in world.errors(row)] == [(2, "REFUSED_AT_APPLY")]


@pytest.mark.parametrize("name", ["r", "t", "row", "#row"])
def test_a_column_of_any_name_goes_out_as_json(made, name):
    world = made(f"CREATE TABLE public.a (id int PRIMARY KEY, \"{name}\" text); INSERT INTO public.a VALUES (1, 'x')")
    _, data = export(world, "a", format="JSON_LINES")

    assert json.loads(data) == {"id": 1, name: "x"}


@pytest.mark.parametrize(("rows", "mode"), [(0, "UPSERT"), (0, "REPLACE"), (1, "UPSERT"), (7, "UPSERT")])
def test_a_bundle_that_lies_of_its_rows_is_damaged(made, rows, mode):
    world = made("CREATE TABLE public.a (id int PRIMARY KEY); INSERT INTO public.a VALUES (1), (2), (3)")
    _, data = export(world, "a", format="BUNDLE")
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            held = old.read(name)
            if name == "manifest.json":
                manifest = json.loads(held)
                manifest["entities"][0]["rows"] = rows
                held = json.dumps(manifest).encode()
            new.writestr(name, held)
    row = world.plan("", world.upload(changed.getvalue(), "a.zip"), format="BUNDLE", import_type=mode)

    assert world.reason(row) == "BUNDLE_DAMAGED"


def test_a_type_that_is_called_like_one_of_postgresqls_own_is_not_taken_for_it(made):
    world = made("CREATE TYPE public.json AS (shadow text); CREATE TABLE public.a (id int PRIMARY KEY, v public.json)")
    row = world.load("a", b"id,v\n1,{}\n2,(x)\n")

    assert [(e.row, e.field, e.code) for e in world.errors(row)] == [(2, "v", "INVALID_VALUE")]
    assert world.sql("SELECT id, v::text FROM public.a") == [(2, "(x)")]


@pytest.mark.parametrize(
    ("columns", "cell", "shown"),
    [("(a int, b text)", b'"(200,yy)"', "(200,yy)"), ("(a int)", b"(1)", "(1)")],
)
def test_a_composite_type_that_is_called_enum_is_shown(made, columns, cell, shown):
    world = made(f'CREATE TYPE public."enum" AS {columns}; CREATE TABLE public.t (id int PRIMARY KEY, v public."enum")')
    row = world.plan("t", b"id,v\n1," + cell + b"\n")
    changes = [c for _, c in world.imports.changes(world.caller, row.id, Paging(50, "", "t"))[0]]

    assert [f.new for f in changes[0].fields] == ["1", shown]


def test_a_trigger_of_one_partition_is_told(made):
    world = made(
        "CREATE TABLE public.t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);"
        "CREATE TABLE public.t1 PARTITION OF public.t FOR VALUES FROM (0) TO (100);"
        "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN NEW.v := NEW.v || ''!''; RETURN NEW; END';"
        "CREATE TRIGGER f BEFORE INSERT ON public.t1 FOR EACH ROW EXECUTE FUNCTION public.f()"
    )
    row = world.load("t", b"id,v\n1,a\n2,b\n")

    assert world.sql("SELECT v FROM public.t ORDER BY id") == [("a!",), ("b!",)]
    assert row.report["changed_by_trigger"] == 2


def test_a_row_that_fills_its_page_is_refused_by_name(made):
    names = [f"c{i}" for i in range(1_015)]
    world = made(f"CREATE TABLE public.t ({', '.join(f'{n} bigint' for n in names)}, i interval)")
    row = world.plan("t", f"{','.join(names)},i\n{','.join('1' * len(names))},1 day\n".encode())

    assert world.reason(row) == "ENTITY_NOT_IMPORTABLE"


def test_a_row_that_fills_its_page_is_taken_where_it_need_not_be_staged_whole(made):
    names = [f"c{i}" for i in range(1_017)]
    world = made(f"CREATE TABLE public.t ({', '.join(f'{n} bigint' for n in names)})")
    row = world.load("t", f"{','.join(names)}\n{','.join('1' * len(names))}\n".encode())

    assert row.report["inserted"] == 1
    assert world.sql("SELECT c0, c1016 FROM public.t") == [(1, 1)]


FOLDED = "".join(
    f"CREATE FUNCTION public.{name}(text, text) RETURNS bool LANGUAGE sql IMMUTABLE STRICT AS"
    f" 'SELECT lower($1) {sign} lower($2)';"
    f"CREATE OPERATOR public.{operator} (LEFTARG = text, RIGHTARG = text, FUNCTION = public.{name});"
    for name, sign, operator in [
        ("lt", "<", "<<<"), ("le", "<=", "<<<="), ("eq", "=", "==="), ("ge", ">=", ">>>="), ("gt", ">", ">>>"),
    ]
) + (
    "CREATE FUNCTION public.cmp(text, text) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS"
    " 'SELECT bttextcmp(lower($1), lower($2))';"
    "CREATE OPERATOR CLASS public.folded FOR TYPE text USING btree AS OPERATOR 1 public.<<<, OPERATOR 2 public.<<<=,"
    " OPERATOR 3 public.===, OPERATOR 4 public.>>>=, OPERATOR 5 public.>>>, FUNCTION 1 public.cmp(text, text);"
)  # fmt: skip


@pytest.mark.parametrize(
    ("on_refused", "outcome"), [("SKIP", ("COMPLETED", "None")), ("ABORT", ("ROLLED_BACK", "ROW_REFUSED"))]
)
def test_a_unique_index_whose_equality_is_another_is_judged_by_the_table(made, on_refused, outcome):
    world = made(
        f"{FOLDED} CREATE TABLE public.t (id int PRIMARY KEY, v text);"
        "CREATE UNIQUE INDEX once ON public.t (v public.folded)"
    )
    row = world.load("t", b"id,v\n1,a\n2,A\n3,b\n", on_refused=on_refused)

    assert (row.status, world.reason(row)) == outcome


def test_a_unique_index_for_patterns_is_judged_by_the_plan(made):
    world = made(
        "CREATE TABLE public.t (id int PRIMARY KEY, v text);"
        'CREATE UNIQUE INDEX once ON public.t (v text_pattern_ops); CREATE UNIQUE INDEX c ON public.t (v COLLATE "C")'
    )
    row = world.plan("t", b"id,v\n1,a\n2,a\n")

    assert [e.code for e in world.errors(row)] == ["UNIQUE_IN_FILE"]


@pytest.mark.parametrize("on_refused", ["SKIP", "ABORT"])
def test_a_row_that_no_partition_takes_is_told_so(made, on_refused):
    world = made(
        "CREATE TABLE public.t (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE public.t1 PARTITION OF public.t FOR VALUES FROM (0) TO (100)"
    )
    row = world.load("t", b"id\n1\n500\n", on_refused=on_refused)

    said = [e.message for e in world.errors(row)] if on_refused == "SKIP" else [row.error["message"]]
    assert ["no partition takes" in message for message in said] == [True]
