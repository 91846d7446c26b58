"""Attacks on imports: each was a wrong row, a lost one, an INTERNAL or a plan that was stale for ever."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from engine.imports.staging import Staging

T = "CREATE TABLE public.a (id int PRIMARY KEY, x text, y int)"
TRIGGER = (
    "CREATE TABLE public.a (id int PRIMARY KEY);"
    "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN new; END $$;"
    "CREATE TRIGGER f BEFORE INSERT ON public.a FOR EACH ROW EXECUTE FUNCTION public.f()"
)
CHECKED_BY = (
    "CREATE FUNCTION public.f(int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN {} END $$;"
    "CREATE TABLE public.a (id int PRIMARY KEY, x int CHECK (public.f(x)))"
)
DEEP = "".join(f"{i:07x}" for i in range(9_999))  # compresses badly enough to pass an index's 2,704 bytes


def outcome(made: Any, schema: str, data: bytes, **options: Any) -> tuple[Any, Any]:
    """Plan, and apply where there is a plan; the world and the import. Nothing may be INTERNAL or without an end."""
    world = made(schema)
    row = world.plan("a", data, **options)
    if row.status == "AWAITING_APPROVAL":
        row = world.apply(row)
    assert row.status in ("COMPLETED", "FAILED", "ROLLED_BACK")
    assert world.reason(row) != "INTERNAL"
    if row.status == "COMPLETED":
        report = row.report
        assert report["total_records"] == report["inserted"] + report["skipped"] + report["failed"]
    return world, row


# --- wrong rows, or silently other rows


def test_a_repeated_key_is_a_duplicate_only_of_a_row_that_is_imported(made: Any) -> None:
    schema = (
        "CREATE TABLE public.p (id int PRIMARY KEY); INSERT INTO public.p VALUES (1);"
        "CREATE TABLE public.a (id int PRIMARY KEY, p int REFERENCES public.p, u text UNIQUE);"
        "INSERT INTO public.a VALUES (100, 1, 'taken')"
    )
    world, _ = outcome(made, schema, b"id,p,u\n1,9,a\n1,1,b\n2,1,taken\n2,1,c\n100,1,d\n3,1,d\n")
    assert world.sql("SELECT id, u FROM public.a ORDER BY id") == [(1, "b"), (2, "c"), (3, "d"), (100, "taken")]


def test_a_child_goes_with_a_parent_that_another_reference_refuses(made: Any) -> None:
    schema = (
        "CREATE TABLE public.k (id int PRIMARY KEY); CREATE TABLE public.a (id int PRIMARY KEY,"
        " parent int CONSTRAINT a1 REFERENCES public.a, k int CONSTRAINT z1 REFERENCES public.k)"
    )
    world, row = outcome(made, schema, b"id,parent,k\n1,,77\n2,1,\n3,,\n")
    assert (row.status, world.sql("SELECT id FROM public.a")) == ("COMPLETED", [(3,)])


def test_match_full_refuses_a_half_reference_by_row(made: Any) -> None:
    schema = (
        "CREATE TABLE public.p (a int, b int, PRIMARY KEY (a, b)); INSERT INTO public.p VALUES (1, 1);"
        "CREATE TABLE public.a (id int PRIMARY KEY, a int, b int, FOREIGN KEY (a, b) REFERENCES public.p MATCH FULL)"
    )
    world, row = outcome(made, schema, b"id,a,b\n1,1,1\n2,1,\n3,,\n")
    assert (row.status, [e.row for e in world.errors(row)]) == ("COMPLETED", [3])


def test_a_reference_is_not_satisfied_by_an_inheriting_table(made: Any) -> None:
    schema = (
        "CREATE TABLE public.p (id int PRIMARY KEY); CREATE TABLE public.c () INHERITS (public.p);"
        "INSERT INTO public.c VALUES (1); CREATE TABLE public.a (id int PRIMARY KEY, p int REFERENCES public.p)"
    )
    world, row = outcome(made, schema, b"id,p\n1,1\n")
    assert [e.code for e in world.errors(row)] == ["REFERENCE_MISSING"]


def test_a_domains_default_and_not_null_are_its_fields(made: Any) -> None:
    schema = (
        "CREATE DOMAIN public.n AS text NOT NULL; CREATE DOMAIN public.d AS int DEFAULT 5; CREATE DOMAIN public.e AS"
        " public.d; CREATE TABLE public.a (id int PRIMARY KEY, x public.n, y public.e)"
    )
    world, row = outcome(made, schema, b"id,x\n1,a\n2,\n")
    assert world.sql("SELECT * FROM public.a") == [(1, "a", 5)]
    assert [(e.row, e.code) for e in world.errors(row)] == [(3, "REQUIRED")]


def test_a_constraint_that_is_not_enforced_refuses_nothing(made: Any) -> None:
    schema = "CREATE TABLE public.a (id int PRIMARY KEY, x int, CHECK (x > 0) NOT ENFORCED)"
    assert outcome(made, schema, b"id,x\n1,-2\n")[1].report["inserted"] == 1


def test_a_field_with_a_reject_files_column_name_is_not_dropped_in_silence(made: Any) -> None:
    world, row = outcome(made, "CREATE TABLE public.a (id int PRIMARY KEY, _code text)", b"id,_code\n1,x\n")
    assert row.status == "FAILED" or world.sql("SELECT _code FROM public.a") == [("x",)]


# --- INTERNAL


@pytest.mark.parametrize("data", [b"id,x,y\n1,a\0b,1\n2,c,2\n", b"id,x,y\n1,a,1\0\n2,c,2\n", b"id,x,y\n,\0,x\n2,c,2\n"])
def test_a_nul_fails_its_row_alone(made: Any, data: bytes) -> None:
    world, row = outcome(made, T, data)
    assert world.sql("SELECT id FROM public.a") == [(2,)]
    assert (2, "NUL_BYTE") in {(e.row, e.code) for e in world.errors(row)}


def test_a_large_cell_in_a_record_of_the_wrong_length_is_rejected(made: Any) -> None:
    world, row = outcome(made, T, b'id,x,y\n1,a,1\n2,"' + b"z" * 200_000 + b'"\n')
    csv.field_size_limit(1 << 30)
    *_, last = csv.reader(io.StringIO(world.read(row.rejects_artifact_id).decode()))
    assert (row.report["inserted"], len(last[1])) == (1, 200_000)


@pytest.mark.parametrize("name", ["first", "row", "t", "s", "v", "d", "e", "f", "select", "#row", "#print", "#first"])
@pytest.mark.parametrize("unique", ["PRIMARY KEY", "UNIQUE"])
def test_any_name_of_a_column_works_or_is_refused_by_name(made: Any, name: str, unique: str) -> None:
    _, row = outcome(
        made, f'CREATE TABLE public.a ("{name}" int {unique}, x int)', f"{name},x\n1,1\n1,2\nz,3\n".encode()
    )
    assert (row.report or {}).get("inserted") == 1 or row.error["reason"] == "ENTITY_NOT_IMPORTABLE"


@pytest.mark.parametrize("columns", [1_598, 1_599, 1_600])
def test_as_many_columns_as_a_table_can_have_work_or_are_refused_by_name(made: Any, columns: int) -> None:
    names = [f"c{i}" for i in range(columns)]
    schema = f"CREATE TABLE public.a ({','.join(f'{n} bool' for n in names)})"
    outcome(made, schema, (",".join(names) + "\n" + ",".join("t" for _ in names) + "\n").encode())


@pytest.mark.parametrize(
    ("column", "data", "following"),
    [
        ("serial", b"2147483647,a\n7,b\n", 8),
        ("smallint GENERATED BY DEFAULT AS IDENTITY", b"32767,a\n", 1),
        ("numeric DEFAULT nextval('public.q')", b"NaN,a\n7.5,b\n", 8),
        ("float8 DEFAULT nextval('public.q')", b"Infinity,a\n7.5,b\n", 8),
    ],
)
def test_a_sequence_follows_as_far_as_it_can(made: Any, column: str, data: bytes, following: int) -> None:
    schema = f"CREATE SEQUENCE public.q; CREATE TABLE public.a (id {column} PRIMARY KEY, x text)"
    world, row = outcome(made, schema, b"id,x\n" + data)
    assert row.status == "COMPLETED"
    assert world.sql("INSERT INTO public.a (x) VALUES ('next') RETURNING id::float8") == [(following,)]


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        ("CREATE TABLE public.a (id int PRIMARY KEY, x int CHECK (10 / x > 1))", b"id,x\n1,2\n2,0\n"),
        ("CREATE DOMAIN public.d AS int CHECK (10 / VALUE > 1); CREATE TABLE public.a (x public.d)", b"x\n2\n0\n"),
        ("CREATE TABLE public.a (x int, g int GENERATED ALWAYS AS (x * 1000) STORED)", b"x\n2\n2000000000\n"),
        (CHECKED_BY.format("IF $1 = 2 THEN RAISE 'no'; END IF; RETURN true;"), b"id,x\n1,2\n"),
        (CHECKED_BY.format("RETURN $1 < (SELECT max(m) FROM nowhere);"), b"id,x\n1,2\n"),
        (TRIGGER.format("new.id = new.id / (new.id - 2);"), b"id\n1\n2\n"),
        (TRIGGER.format("RAISE EXCEPTION USING errcode = '0A000';"), b"id\n1\n"),
        (TRIGGER.format("INSERT INTO nowhere VALUES (1);"), b"id\n1\n"),
        ("CREATE TABLE public.a (id text PRIMARY KEY)", f"id\n{DEEP}\n".encode()),
        ("CREATE TABLE public.a (id int PRIMARY KEY, x xml)", b"id,x\n1,<a/>\n"),
        (
            "CREATE EXTENSION ltree SCHEMA public; CREATE TABLE public.a (id public.ltree PRIMARY KEY)",
            b"id\na.b\na.b\n",
        ),
    ],
)
def test_what_a_tables_own_rules_raise_is_a_refusal_with_a_reason(made: Any, schema: str, data: bytes) -> None:
    outcome(made, schema, data)


# --- PLAN_STALE for ever


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        (
            "CREATE TABLE public.a (id int, x text, b bool); CREATE UNIQUE INDEX ON public.a (x) WHERE b",
            b"x,b\na,t\na,t\n",
        ),
        ("CREATE TABLE public.a (x text); CREATE UNIQUE INDEX ON public.a (lower(x))", b"x\na\nA\n"),
        ("CREATE TABLE public.a (x int, g int GENERATED ALWAYS AS (x * 2) STORED UNIQUE)", b"x\n2\n2\n"),
        (
            "CREATE EXTENSION citext SCHEMA public; CREATE TABLE public.a (id public.citext PRIMARY KEY)",
            b"id\na\nA\n",
        ),
    ],
)
def test_what_every_plan_would_meet_again_is_not_stale(made: Any, schema: str, data: bytes) -> None:
    world, row = outcome(made, schema, data)
    assert world.reason(row) != "PLAN_STALE"


# --- limits


def test_the_limit_of_errors_counts_those_that_the_database_finds(made: Any) -> None:
    world = made(T, max_import_errors=100)
    row = world.plan("a", b"id\n" + b"".join(b"z%d\n" % i for i in range(500)))
    assert world.reason(row) == "TOO_MANY_ERRORS"


def test_a_long_chain_behind_a_refused_row_takes_no_statement_per_link(made: Any, monkeypatch: Any) -> None:
    world = made("CREATE TABLE public.a (id int PRIMARY KEY, p int REFERENCES public.a)")
    statements: list[int] = []
    run = Staging.run

    def counted(self: Staging, query: Any) -> int:
        statements.append(1)
        return run(self, query)

    monkeypatch.setattr(Staging, "run", counted)
    taken = []
    for rows in (20, 2_000):
        statements.clear()
        row = world.plan("a", b"id,p\n0,-1\n" + b"".join(b"%d,%d\n" % (i, i - 1) for i in range(1, rows)))
        taken.append(len(statements))
        assert row.plan_summary["counts"]["failed"] == rows
    assert taken[0] == taken[1]
