"""New rows that are kept as they are read are the rows that the server would have given back."""

from __future__ import annotations

import struct

import psycopg
import pytest
from psycopg import sql

from engine.artifacts import ArtifactKind
from engine.db.binary import READERS, SENT, cells
from engine.db.models import ArtifactPartRow, ArtifactRow
from engine.db.platform import one_row
from engine.errors import DataLoss
from engine.imports import plan
from engine.imports.early import Early
from engine.imports.encode import PIECE
from engine.imports.planfile import Plan
from engine.paging import Paging

TABLE = """
CREATE TYPE public.mood AS ENUM ('sad', 'glad');
CREATE DOMAIN public.code AS char(4) CHECK (VALUE <> 'no');
CREATE TABLE public.t (
    id int PRIMARY KEY, small smallint, big bigint, ok boolean, half real, whole double precision, key uuid,
    on_day date, at timestamp, zoned timestamptz, clock time, raw json, doc jsonb, price numeric(7, 3), name varchar(9),
    code public.code, mood public.mood DEFAULT 'glad', note text DEFAULT 'none', twin text UNIQUE, free int DEFAULT 7,
    other public.code DEFAULT 'x', fact jsonb DEFAULT '{"b": 1, "a": 2}', wide char(3), boss int REFERENCES public.t,
    CHECK (small < 100 OR big > 0)
);
"""
HEADER = b"id,small,big,ok,half,whole,key,on_day,at,zoned,clock,raw,doc,price,name,code,twin,wide,boss\n"
GOOD = [
    b"1,-3,9,t,0.1,1.50,00000000-0000-0000-0000-00000000000A,2024-02-29,2024-02-29T12:00,"
    b"2024-02-29 12:00:00.5+02,23:59,"
    b'"{""b"": 1}","{""bb"":-0.0, ""a"":1.50, ""bb"":""\xc3\xa9""}",1000.5,\xc3\xa9a,ab,one,\xc3\xa9,\n',
    b"2,,,,,,,,,,,,,,,,,,1\n",
    b"3,1,1,0,2,2,ffffffff-ffff-ffff-ffff-ffffffffffff,1000-01-01,1000-01-01 00:00,"
    b"9999-12-31 23:59:59Z,00:00:00.000001,"
    b'{},{},-0.001,,abcd,"a\nb",abc,3\n',
]
COMMAS = b",,,,,,,,,,,,,,,,,,"
"""A row that is nothing but its key."""


@pytest.fixture
def kept(monkeypatch):
    """How each stream that was begun ended: whole, in part, or given up."""
    found = []
    finish, give_up = Early.finish, Early.give_up

    def gave_up(self):
        found.append("given up")
        give_up(self)

    def finished(self):
        found.append("in part" if self._staging.faulty else "whole")
        return finish(self)

    monkeypatch.setattr(Early, "finish", finished)
    monkeypatch.setattr(Early, "give_up", gave_up)
    return found


def opened(world, row):
    return Plan.open(world.resources.artifacts.reader(row.plan_artifact_id), row.plan_digest)


def counts(world, row):
    return opened(world, row).head["entities"][0]["counts"]


def shown(world, row, size=50):
    found, token = [], ""
    while True:
        changes, token = world.imports.changes(world.caller, row.id, Paging(size, token, "t"))[:2]
        found += [(c.row, c.kind, c.key, list(c.fields)) for _, c in changes]
        if not token:
            return found


def plans_kept(world):
    with world.resources.db.transaction() as session:
        return [a.owner_type for a in session.query(ArtifactRow).filter_by(kind=ArtifactKind.PLAN.value)]


def both(world, monkeypatch, data, **options):
    """The file planned with rows kept early, and without."""
    row = world.plan("t", data, **options)
    with monkeypatch.context() as patch:
        patch.setattr(plan, "early_form", lambda *_: None)
        return row, world.plan("t", data, **options)


def test_the_plan_is_what_postgresql_would_have_written(made, kept, monkeypatch):
    world = made(TABLE)
    row, other = both(world, monkeypatch, HEADER + b"".join(GOOD))

    assert kept == ["whole"]
    ours, theirs = opened(world, row), opened(world, other)
    assert ours.head["streams"]["0.INSERT"]["form"] == "arrow"
    assert "form" not in theirs.head["streams"]["0.INSERT"]
    assert ours.head["entities"] == theirs.head["entities"]
    assert shown(world, row) == shown(world, row, size=2) == shown(world, other)
    assert len(shown(world, row)) == 3
    world.apply(row)
    first = world.sql("SELECT t::text FROM public.t ORDER BY id")
    world.sql("DELETE FROM public.t")
    world.apply(other)
    assert world.sql("SELECT t::text FROM public.t ORDER BY id") == first
    assert len(first) == 3


WRONG = {
    "a record of another shape": ("", b"9\n", 3),
    "a cell that is no number": ("", b"x" + COMMAS + b"\n", 3),
    "a key that is not there": ("", b",1" + COMMAS[1:] + b"\n", 3),
    "a key that stands twice": ("", b"1" + COMMAS + b"\n", 3),
    "a unique value that stands twice": ("", b"9,,,,,,,,,,,,,,,,one,,\n", 3),
    "a domain": ("", b"9,,,,,,,,,,,,,,,no,,,\n", 3),
    "a check": ("", b"9,100,-1,,,,,,,,,,,,,,,,\n", 3),
    "a parent that is nowhere": ("", b"9,,,,,,,,,,,,,,,,,,77\n", 3),
    "a child of a refused row": ("", b"9,,,,,,,,,,,,,,,no,,,\n10,,,,,,,,,,,,,,,,,,9\n", 3),
    "a key that the table has": ("INSERT INTO public.t (id) VALUES (9)", b"9" + COMMAS + b"\n", 3),
    "a unique value that the table has": ("INSERT INTO public.t (id, twin) VALUES (99, 'one')", b"", 1),
    "nothing but keys that the table has": ("INSERT INTO public.t (id) VALUES (1), (2), (3)", b"", 0),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_rows_that_verdicts_are_given_on_are_left_out(made, kept, monkeypatch, wrong):
    before, more, inserted = WRONG[wrong]
    world = made(TABLE)
    if before:
        world.sql(before)
    row, other = both(world, monkeypatch, HEADER + b"".join(GOOD) + more, error_budget=9)

    assert kept == ["in part"]
    assert opened(world, row).rows("0.INSERT") == inserted
    assert opened(world, row).head["entities"] == opened(world, other).head["entities"]
    assert shown(world, row) == shown(world, other)
    assert world.errors(row) == world.errors(other)
    assert (len(world.errors(row)) > 0, plans_kept(world)) == (True, ["imports", "imports"])
    assert world.apply(row).report["inserted"] == inserted


@pytest.mark.parametrize("cell", [b"+1", b" 1"])
def test_a_doubtful_record_that_is_good_has_the_file_staged_whole(made, kept, monkeypatch, cell):
    world = made(TABLE)
    data = HEADER + GOOD[0] + b"8,,,,,,,,,,,,,,,no,,,\n" + b"9," + cell + COMMAS[1:] + b"\n" + b"5\n"
    row, other = both(world, monkeypatch, data, error_budget=9)

    assert kept == ["given up"]
    assert "form" not in opened(world, row).head["streams"]["0.INSERT"]
    assert counts(world, row) == {**counts(world, row), "total": 4, "insert": 2, "failed": 2}
    assert shown(world, row) == shown(world, other)
    assert world.errors(row) == world.errors(other)
    assert plans_kept(world) == ["imports", "imports"], "what was kept early is gone"


def test_many_rows_by_many_parts(made, kept, monkeypatch):
    world = made(TABLE)
    world.sql("INSERT INTO public.t (id) SELECT g FROM generate_series(1, 60000, 7) g")
    rows = b"".join(b"%d,,,,,,,,,,,,,,,%s,%d,,\n" % (n, b"no" if n % 5 == 0 else b"", n) for n in range(60_000))
    monkeypatch.setattr("engine.imports.planfile.PART_BYTES", 50_000)
    monkeypatch.setattr("engine.imports.planfile._SLICE", 10_000)
    row = world.load("t", HEADER + rows, error_budget=100_000)

    assert kept == ["in part"]
    wanted = [n for n in range(60_000) if n % 5 and n % 7 != 1]
    assert len(world.resources.artifacts.reader(row.plan_artifact_id).parts("0.INSERT")) > 10
    assert (row.report["inserted"], counts(world, row)["insert"]) == (len(wanted), len(wanted))
    assert [n for (n,) in world.sql("SELECT id FROM public.t WHERE twin IS NOT NULL ORDER BY id")] == wanted


@pytest.mark.parametrize(("most", "ended"), [(0, "given up"), (3, "in part")])
def test_many_doubtful_records_are_not_taken_for_faults(made, kept, monkeypatch, most, ended):
    monkeypatch.setattr("engine.imports.early.MOST_UNDECIDED", most)
    monkeypatch.setattr("engine.imports.fill._Aside.LIMIT", 0)
    world = made(TABLE)
    row = world.load("t", HEADER + b"x" + COMMAS + b"\n" + b"y,no" + COMMAS[1:] + b"\n" + GOOD[0], error_budget=9)

    assert kept == [ended]
    assert (row.status, row.report["inserted"], row.report["failed"]) == ("COMPLETED", 1, 2)
    assert [(e.row, e.field) for e in world.errors(row)] == [(2, "id"), (3, "id"), (3, "small")]


def test_blank_records_are_none_of_the_file(made, kept):
    row = made(TABLE).load("t", HEADER + GOOD[0] + b"\n" + GOOD[1])

    assert kept == ["whole"]
    assert row.report["inserted"] == 2


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ("", {"import_type": "UPSERT"}),
        ("ALTER TABLE public.t ADD v interval DEFAULT '1 day'", {}),
        ("ALTER TABLE public.t ADD v numeric DEFAULT 1", {}),
        ("ALTER TABLE public.t ADD v timestamptz(0) DEFAULT '2024-01-01'", {}),
    ],
)
def test_where_rows_are_not_kept_early(made, kept, more, options):
    world = made(TABLE + more)
    row = world.load("t", HEADER + b"".join(GOOD), **options)

    assert kept == []
    assert row.report["inserted"] == 3


def test_rows_that_the_table_refuses_are_looked_for_among_those(made, kept):
    world = made(TABLE + "CREATE UNIQUE INDEX once ON public.t (lower(name))")
    data = b"id,name\n1,a\n2,b\n3,A\n"
    row = world.load("t", data, on_refused="SKIP")

    assert kept == ["whole"]
    assert world.sql("SELECT id FROM public.t ORDER BY id") == [(1,), (2,)]
    assert [(e.row, e.code) for e in world.errors(row)] == [(4, "REFUSED_AT_APPLY")]


LONG = "x" * 3_000


def test_a_constant_is_kept_once_and_rows_are_encoded_by_what_they_become(made, kept):
    world = made(
        f"CREATE TABLE public.t (id int PRIMARY KEY, a text DEFAULT '{LONG}', b char(300) DEFAULT '{LONG[:300]}')"
    )
    row = world.plan("t", b"id\n" + b"".join(b"%d\n" % n for n in range(3_000)))
    plan = opened(world, row)
    parts = [int(part.index["bytes"]) for part in plan.store.parts("0.INSERT")]
    pieces = [len(piece) for piece, _ in plan.lines("0.INSERT")]

    assert kept == ["whole"]
    assert sum(parts) < 200_000
    assert (sum(pieces) > 9_000_000, max(pieces) < 2 * PIECE) == (True, True)
    assert sum(rows for _, rows in plan.lines("0.INSERT")) == 3_000
    world.apply(row)
    assert world.sql("SELECT count(*), count(DISTINCT a), max(length(a || b)) FROM public.t") == [(3_000, 1, 3_300)]


def test_flags_are_encoded_by_what_they_become(made):
    names = [f"f{n}" for n in range(50)]
    world = made(f"CREATE TABLE public.t (id int, {', '.join(f'{name} bool' for name in names)})")
    rows = b"".join(b"%d" % n + b",t" * 50 + b"\n" for n in range(20_000))
    row = world.plan("t", f"id,{','.join(names)}\n".encode() + rows)

    assert max(len(piece) for piece, _ in opened(world, row).lines("0.INSERT")) < 2 * PIECE


@pytest.mark.parametrize("kind", ["varchar(3)", "char(3)"])
def test_a_default_that_its_column_does_not_hold_is_not_cut(made, kept, kind):
    world = made(f"CREATE TABLE public.t (id int PRIMARY KEY, v {kind} DEFAULT 'unknown')")
    row = world.plan("t", b"id\n1\n")

    assert (kept, row.status) == ([], "FAILED")


def test_a_database_of_another_encoding_sees_all_of_the_file_while_it_is_planned(make_world, postgres, kept):
    with postgres.connect() as connection:
        connection.execute("CREATE DATABASE early_latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    world = make_world(postgres.dsn("early_latin"))
    world.sql("CREATE TABLE public.t (id int PRIMARY KEY, v text)")
    row = world.plan("t", "id,v\n1,\u20ac\n".encode())

    assert (kept, row.status) == ([], "FAILED")
    world.resources.close()
    postgres.drop_database("early_latin")


def test_sequences_follow_the_rows_that_were_kept(made, kept):
    world = made("CREATE TABLE public.t (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, n serial, v text)")
    world.load("t", b"id,n,v\n7,8,x\n5,30,y\n")
    world.sql("INSERT INTO public.t (v) VALUES ('z')")

    assert kept == ["whole"]
    assert world.sql("SELECT id, n FROM public.t WHERE v = 'z'") == [(8, 31)]


def test_a_part_of_other_rows_than_its_index_says_is_damaged(made, kept):
    world = made(TABLE)
    row = world.plan("t", HEADER + b"".join(GOOD))
    with world.resources.db.transaction() as session:
        part = session.query(ArtifactPartRow).filter_by(stream="0.INSERT").one()
        part.index = part.index | {"rows": 2}

    with pytest.raises(DataLoss) as caught:
        list(opened(world, row).lines("0.INSERT"))
    assert caught.value.reason == "PLAN_DAMAGED"


# --- what was sent, shown


def test_json_is_shown_as_postgresql_writes_it(empty_dsn):
    texts = [
        "[1, {}]",
        '{"b":1,"a":-0,"b":2}',
        "{}",
        '{"aa": "x" ,"b": true, "\u00e9": null}',
        '{"a": -0.0, "b": 1.50}',
    ]
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        for text in texts:
            stored = one_row(connection, sql.SQL("SELECT {}::jsonb::text").format(sql.Literal(text)))[0]
            assert SENT["jsonb"](b"\x01" + text.encode()) == stored
            assert SENT["jsonb"](b"\x01" + stored.encode()) == stored, "and so it stays"
    assert {name for name in READERS if READERS[name] is not SENT[name]} == {"jsonb"}
    assert cells(struct.pack("!hi2s", 1, 2, b"ab"), [SENT["text"]]) == ["ab"]
