"""An export is one moment, whole, without secrets, and comes back as it was."""

from __future__ import annotations

import csv
import io
import threading

import psycopg
import pytest

from engine.errors import FailedPrecondition, InvalidRequest
from engine.exports.query import GUARDED
from examples.platform import generate

NOTES = "CREATE TABLE public.notes (id int PRIMARY KEY, note text, amount numeric, tags text[])"


def records(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def test_null_and_empty_text_stay_apart(made):
    world = made(NOTES)
    world.sql("INSERT INTO public.notes (id, note) VALUES (1, NULL), (2, ''), (3, 'NULL'), (4, '\\N')")

    _, data = world.export("notes", columns=("id", "note"))

    assert data == b'id,note\n1,\n2,""\n3,NULL\n4,\\N\n'


def test_the_count_shown_is_the_count_in_the_file(made):
    """Hidden caps: 100,001 rows, the last one present."""
    world = made(NOTES)
    world.sql("INSERT INTO public.notes (id, note) SELECT g, 'line' || chr(10) || g FROM generate_series(1, 100001) g")

    row, data = world.export("notes")

    found = records(data)[1:]
    assert row.record_count == len(found) == 100_001
    assert {int(r[0]) for r in found} == set(range(1, 100_002))
    assert row.file_size_bytes == len(data)


def test_secrets_never_leave(world):
    generate.load(world.resources.platform.dsn, users=20)

    _, data = world.export("users")

    assert "password_hash" not in records(data)[0]
    with pytest.raises(InvalidRequest) as caught:
        world.export("users", columns=("id", "password_hash"))
    assert caught.value.reason == "FIELD_SECRET"


FORMULAS = [
    "=1+1",
    "+1",
    "-5",
    "@x",
    "\t=1",
    "\r=1",
    " =1",
    "＝1",
    "|x",
    "%x",
    "'",
    "'=1",
    "''",
    "a=1",
    "",
    "plain",
    "\u00a0=1",
]


def test_formula_escape_is_inert_in_a_spreadsheet_and_equal_after_import(made):
    world = made(NOTES)
    for number, text in enumerate(FORMULAS):
        world.sql("INSERT INTO public.notes VALUES (%s, %s, %s)", number, text, -number)

    _, data = world.export("notes", columns=("id", "note", "amount"))

    for _, note, amount in records(data)[1:]:
        assert not note.strip() or note.strip()[0] not in "=+-@|%＝＋－＠\t\r"
        assert not amount.startswith("'"), "a negative number is no formula"
    world.sql("TRUNCATE public.notes")
    assert world.load("notes", data, csv={"undo_formula_guard": True}).status == "COMPLETED"
    assert [r[0] for r in world.sql("SELECT note FROM public.notes ORDER BY id")] == FORMULAS


WIDE = ("\u3000", "\ufeff", "＝", "＋", "－", "＠", "Ａ")
"""White space, a byte order mark, and the marks of a formula as wide as a CJK character."""


def test_the_guard_stands_before_what_its_pattern_names_and_nothing_else(made):
    world = made(NOTES)
    marks = [
        *map(chr, range(1, 0x250)),
        *map(chr, range(0x2000, 0x2070)),
        *WIDE,
    ]
    texts = [text for mark in marks for text in (mark, f"{mark}=", f"{mark}x")]
    world.sql(
        "INSERT INTO public.notes (id, note) SELECT ordinality, t FROM unnest(%s::text[]) WITH ORDINALITY t", texts
    )

    _, data = world.export("notes", columns=("note",))

    guarded = world.sql("SELECT CASE WHEN note ~ %s THEN '''' || note ELSE note END FROM public.notes", GUARDED)
    assert records(data)[1:] == [list(row) for row in guarded]


def test_the_guard_of_padded_texts_and_arrays_is_that_of_their_output(made):
    """Padding stays, comes before no mark, and hides none; a domain over such a type is no other."""
    world = made(
        "CREATE DOMAIN public.code AS char(3);"
        "CREATE TABLE public.notes (id int PRIMARY KEY, c char(3), d public.code, b bpchar, a text[])"
    )
    firsts = [
        *map(chr, range(1, 0x100)),
        "\u2003",
        *WIDE,
        "e\u0301",
        "\u0301",
    ]
    texts = ["", " ", *(t for f in firsts for t in (f, f"{f} ", f"{f}=", f"{f}x") if len(t) <= 3), None]
    world.sql(
        "INSERT INTO public.notes SELECT ordinality, t, t, t || '  ', ARRAY[t, t]"
        " FROM unnest(%s::text[]) WITH ORDINALITY t",
        texts,
    )
    world.sql("INSERT INTO public.notes (id, a) VALUES (0, '[2:2]={=1}'), (-1, '{}')")

    _, data = world.export("notes", columns=("c", "d", "b", "a"))

    shown = ", ".join(f"CASE WHEN {o} ~ %s THEN '''' || {o} ELSE {o} END" for o in (
        "textin(bpcharout(c))", "textin(bpcharout(d))", "textin(bpcharout(b))", "a::text"
    ))  # fmt: skip
    guarded = world.sql(f"SELECT {shown} FROM public.notes", *[GUARDED] * 4)
    assert records(data)[1:] == [["" if v is None else v for v in row] for row in guarded]


def test_without_the_guard_every_text_is_as_it_is(made):
    world = made(NOTES)
    world.sql("INSERT INTO public.notes (id, note) VALUES (1, '=1')")

    assert world.export("notes", formula_guard=False, columns=("note",))[1] == b"note\n=1\n"


def test_export_is_one_moment(made):
    """Rows that come, change and go while it runs are as they were when it began."""
    world = made(NOTES)
    world.sql("INSERT INTO public.notes SELECT g, 'old' FROM generate_series(1, 20000) g")
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(world.resources.platform.dsn, autocommit=True) as connection:
            number = 0
            while not stop.is_set() and number < 20_000:
                number += 1
                connection.execute(
                    "WITH gone AS (DELETE FROM public.notes WHERE id = %s RETURNING 1), "
                    "come AS (INSERT INTO public.notes VALUES (-%s, 'new') RETURNING 1) SELECT 1",
                    (number, number),
                )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        _, data = world.export("notes", columns=("id",))
    finally:
        stop.set()
        writer.join()

    ids = [int(r[0]) for r in records(data)[1:]]
    gone = sorted(set(range(1, 20_001)) - set(ids))
    assert len(ids) == len(set(ids)) == 20_000
    assert gone == list(range(1, len(gone) + 1))
    assert sorted(-i for i in ids if i < 0) == gone, "each deletion and its insert are seen together"


def test_a_truncate_beside_it_waits_or_is_seen_whole(made):
    """The lock comes before the snapshot: a TRUNCATE cannot make a begun export read nothing."""
    world = made(NOTES)
    world.sql("INSERT INTO public.notes SELECT g, 'old' FROM generate_series(1, 1000) g")
    import engine.exports.write as export_write

    copy_out, asked = export_write._copy_out, []

    def with_truncate(*arguments):
        with psycopg.connect(world.resources.platform.dsn, autocommit=True) as other:
            other.execute("SET lock_timeout = '300ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute("TRUNCATE public.notes")
            asked.append(True)
        return copy_out(*arguments)

    export_write._copy_out = with_truncate
    try:
        row, _ = world.export("notes")
    finally:
        export_write._copy_out = copy_out

    assert asked
    assert row.record_count == 1000


def test_a_partitioned_entity_is_exported_whole_and_its_parts_are_no_entities(made):
    world = made(
        "CREATE TABLE public.p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);"
        "CREATE TABLE public.p1 PARTITION OF public.p FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE public.p2 PARTITION OF public.p FOR VALUES FROM (10) TO (20);"
        "INSERT INTO public.p VALUES (1, 'a'), (11, 'b')"
    )

    assert [e.name for e in world.resources.catalogs.load().entities()] == ["p"]
    assert world.export("p")[0].record_count == 2


def test_an_inheritance_parent_stands_for_its_own_rows(made):
    world = made(
        "CREATE TABLE public.parent (id int PRIMARY KEY); CREATE TABLE public.child () INHERITS (public.parent);"
        "INSERT INTO public.parent VALUES (1); INSERT INTO public.child VALUES (2)"
    )

    assert world.export("parent")[1] == b"id\n1\n"


def test_quoted_and_other_names_work(made):
    world = made('CREATE TABLE public."Ünï ""q""" ("a b" int PRIMARY KEY, "select" text)')

    assert world.load('Ünï "q"', b"a b,select\n1,x\n").status == "COMPLETED"
    assert world.export('Ünï "q"')[1] == b"a b,select\n1,x\n"


def test_an_expired_export_is_gone_and_says_so(made):
    from datetime import timedelta

    world = made(NOTES)
    row, _ = world.export("notes")
    assert world.exports.expire(world.resources.clock() + timedelta(days=8)) == 1

    with pytest.raises(FailedPrecondition) as caught:
        world.exports.download(world.caller, row.id)
    assert caught.value.reason == "EXPORT_EXPIRED"


def test_an_export_comes_back_into_an_empty_copy(world):
    generate.load(world.resources.platform.dsn, users=300)
    _, data = world.export("users")
    everything = (
        "SELECT id, email, name, role, status, phone, country, rating, preferences, created_at, updated_at"
        " FROM public.users ORDER BY id"
    )
    before = world.sql(everything)
    world.sql("TRUNCATE public.users CASCADE")

    row = world.load("users", data, csv={"undo_formula_guard": True})

    assert row.report["inserted"] == 300
    assert world.sql(everything) == before
