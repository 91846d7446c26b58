"""Unique values that stand once are told by their hashes alone; whatever stands twice is told as it ever was."""

from __future__ import annotations

import pytest

from engine.imports.once import LOOKED_UP, SMALL_TABLE, stand_once

FRESH = LOOKED_UP + 10
"""Rows of a file that nothing is wrong with, before those that something is."""


@pytest.fixture
def looks(monkeypatch):
    """What each look told, as names of columns."""
    found = []

    def look(staging):
        once = stand_once(staging)
        found.append({",".join(columns) for columns, _ in once})
        return once

    monkeypatch.setattr("engine.imports.rules.stand_once", look)
    return found


def codes(world, row):
    return [(e.row, e.code) for e in world.errors(row)]


def csv(header, *rows):
    return "\n".join([header, *rows, ""]).encode()


@pytest.mark.parametrize(
    ("ddl", "value", "same"),
    [
        ("int", "{}", "+{}"),
        ("uuid", "00000000-0000-0000-0000-a{:011}", "00000000-0000-0000-0000-A{:011}"),
        ("text", "v{}", "v{}"),
        ("public.citext", "v{}", "V{}"),
        ('varchar(9) COLLATE "C"', "v{}", "v{}"),
        ("public.short", "v{}", "v{}"),
        ("char(9)", "v{}", "v{}  "),
        ("numeric", "{}.5", "{}.50"),
        ("timestamptz", "2001-01-01 00:00:00.{:06}+00", "2001-01-01 01:00:00.{:06}+01"),
        ("money", "{}.00", "${}"),
        ("int[]", "{{{}}}", '"{{ {} }}"'),
    ],
)
def test_values_of_every_kind_that_stand_twice_are_found(made, looks, ddl, value, same):
    """Equal ones that are spelt otherwise too; of money, which has no hash, as well."""
    world = made(
        "CREATE EXTENSION citext SCHEMA public; CREATE DOMAIN public.short AS varchar(9) CHECK (VALUE > '');"
        f"CREATE TABLE public.a (id int PRIMARY KEY, v {ddl} UNIQUE);"
    )
    fresh = [f"{n},{value.format(n)}" for n in range(1, FRESH + 1)]
    assert world.load("a", csv("id,v", *fresh)).report["inserted"] == FRESH
    assert looks == [set() if ddl == "money" else {"id", "v"}]

    later = [f"{n},{value.format(n)}" for n in range(1001, 1001 + FRESH)]
    taken = world.plan("a", csv("id,v", *later, f"5001,{same.format(7)}", f"9,{value.format(5003)}"))
    assert codes(world, taken) == [(FRESH + 2, "UNIQUE_TAKEN"), (FRESH + 3, "KEY_EXISTS")]
    twice = world.plan("a", csv("id,v", *later, f"5002,{same.format(1001)}", f"1003,{value.format(5004)}"))
    assert codes(world, twice) == [(FRESH + 2, "UNIQUE_IN_FILE"), (FRESH + 3, "DUPLICATE_IN_FILE")]
    assert looks[1:] == [set(), set()]


@pytest.mark.parametrize(("distinct", "wrong"), [("", []), ("NULLS NOT DISTINCT", [(FRESH + 2, "UNIQUE_TAKEN")])])
def test_null_stands_as_often_as_the_key_lets_it(made, looks, distinct, wrong):
    world = made(
        f"CREATE TABLE public.a (id int PRIMARY KEY, v int, w int, UNIQUE {distinct} (v, w));"
        "INSERT INTO public.a VALUES (1, 1, NULL)"
    )
    row = world.plan("a", csv("id,v,w", *(f"{n},{n}," for n in range(2, FRESH + 2)), "5000,1,"))

    assert codes(world, row) == wrong
    assert looks == [{"id"} if wrong else {"id", "v,w"}]


def test_a_refused_row_frees_what_it_would_have_held(made, looks):
    world = made("CREATE TABLE public.a (id int PRIMARY KEY, v text UNIQUE, n int CHECK (n > 0))")
    row = world.plan("a", b"id,v,n\n1,x,0\n2,x,1\n1,y,2\n")

    assert codes(world, row) == [(2, "CHECK_VIOLATED")]
    assert looks == [{"id", "v"}]


@pytest.mark.parametrize(
    ("many", "data"),
    [(False, b"id,v\n2,two\n1,one\n"), (True, b"id,v\n-1,new\n")],
)
def test_no_look_is_spent_where_joins_are_needed_anyway_or_the_table_is_large(made, looks, many, data):
    rows = SMALL_TABLE * 2 if many else 1
    world = made(
        "CREATE TABLE public.a (id int PRIMARY KEY, v text UNIQUE);"
        f"INSERT INTO public.a SELECT n, n::text FROM generate_series(1, {rows}) n; ANALYZE public.a"
    )
    row = world.plan("a", data)

    assert codes(world, row) == ([] if many else [(3, "KEY_EXISTS")])
    assert looks == [set()]


def test_domains_are_judged_alike_whether_their_cast_ends_the_look_or_not(made):
    """Of a value that a domain refuses, of one whose check raises, and of those that are right."""
    world = made(
        "CREATE FUNCTION public.f(v int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
        " IF v = 13 THEN RAISE 'never' USING ERRCODE = '22023'; END IF; RETURN v > 0; END $$;"
        "CREATE DOMAIN public.code AS char(2) CHECK (VALUE ~ '^[A-Z]{1,2} ?$');"
        "CREATE DOMAIN public.inner_code AS public.code CHECK (VALUE <> 'ZZ');"
        "CREATE DOMAIN public.odd AS int CHECK (public.f(VALUE));"
        "CREATE TABLE public.a (id int PRIMARY KEY, c public.inner_code, o public.odd, n int CHECK (n > 0))"
    )
    assert codes(world, world.plan("a", b"id,c,o,n\n1,AB,1,1\n2,A,,2\n3,,3,\n")) == []
    told = codes(world, world.plan("a", b"id,c,o,n\n1,AB,1,1\n2,ZZ,1,1\n3,a,1,1\n4,A,0,1\n5,A,1,0\n"))
    assert told == [(3, "CHECK_VIOLATED"), (4, "CHECK_VIOLATED"), (5, "CHECK_VIOLATED"), (6, "CHECK_VIOLATED")]

    row = world.plan("a", b"id,c,o,n\n1,AB,13,1\n2,ZZ,1,1\n")
    assert codes(world, row) == [(3, "CHECK_VIOLATED")]
    assert "public.odd" in {n["code"]: n["message"] for n in row.plan_summary["notices"]}["CHECKED_AT_APPLY"]
