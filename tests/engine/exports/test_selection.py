"""Filters, order and limit: what they take, what they refuse, and that no value can become SQL."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest

from engine.errors import InvalidRequest, Unavailable
from engine.exports.model import Selection
from engine.paging import Paging
from tests.engine.exports.kit import begin, export, ordered, records, where

ITEMS = """
CREATE EXTENSION citext SCHEMA public;
CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'glad');
CREATE TYPE public.pair AS (a int, b int);
CREATE DOMAIN public.code AS varchar(3) CHECK (VALUE <> 'no');
CREATE TABLE public.items (
    id int PRIMARY KEY, v text, n numeric(5, 2), mood public.mood, code public.code, fixed char(4), bits bit(3),
    mail public.citext, tags text[], doc jsonb, raw json, pair public.pair, at timestamptz, day date,
    stamp timestamp, password text
);
INSERT INTO public.items (id, v, n, mood, code, fixed, bits, mail, tags, doc, raw, at, day, stamp, password) VALUES
    (1, 'apple', 1.50, 'sad', 'abc', 'ab', '101', 'A@x', '{a,b}', '{"a": 1}', '1', '2026-01-01 00:00+00', '2026-01-01',
     '2026-01-01', 'secret-1'),
    (2, '100%_x', 2, 'ok', 'abd', 'abcd', '100', 'b@x', '{}', '"s"', '2', '2026-01-02 00:00+00', '2026-01-02',
     '2026-01-02', 'secret-2'),
    (3, '', -1, 'glad', 'x', '', '000', 'C@X', '{NULL}', '1', '3', 'infinity', 'infinity', 'infinity', 'secret-3'),
    (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (5, 'it''s \\ "q"', 'NaN', 'sad', 'abc', 'z', '111', '', '{a,b}', 'null', '5', '-infinity', '0044-03-15 BC',
     '-infinity', 'secret-1');
"""


@pytest.fixture
def items(made, tmp_path):
    rules = tmp_path / "catalog.toml"
    rules.write_text('[entities.items]\ncreated_field = "at"\nupdated_field = "stamp"\nstatus_field = "mood"\n')
    return made(ITEMS, catalog_file=rules)


def ids(world, selection: Selection) -> list[int]:
    row, data = export(world, "items", kind="PARTIAL", selection=selection, columns=("id",))
    found = [int(record[0]) for record in records(data)[1:]]
    assert row.record_count == len(found)
    return found


TAKEN = [
    (where("v", "IN", "apple", ""), [1, 3]),
    (where("v", "NOT_IN", "apple", ""), [2, 4, 5]),  # NULL is none of the values
    (where("n", "LESS", "2"), [1, 3]),
    (where("n", "LESS_OR_EQUAL", "2"), [1, 2, 3]),
    (where("n", "GREATER", "123456789.5"), [5]),  # beyond the column's precision, and NaN the greatest
    (where("n", "GREATER_OR_EQUAL", "2"), [2, 5]),
    (where("v", "IS_NULL"), [4]),
    (where("v", "IS_NOT_NULL"), [1, 2, 3, 5]),
    (where("mood", "GREATER", "sad"), [2, 3]),
    (where("code", "IN", "abc", "no"), [1, 5]),  # no row can hold 'no', and it is a value of the base type
    (where("code", "IN", "abcd"), []),  # a cast to varchar(3) would have made it abc
    (where("fixed", "IN", "ab"), [1]),
    (where("fixed", "IN", "abcde"), []),
    (where("bits", "IN", "101"), [1]),
    (where("bits", "IN", "1010"), []),
    (where("mail", "IN", "a@X", "c@x"), [1, 3]),
    (where("mail", "GREATER", "a@x"), [2, 3]),
    (where("mail", "NOT_IN", "a@X"), [2, 3, 4, 5]),
    (where("tags", "IN", "{a,b}", "{NULL}"), [1, 3, 5]),
    (where("tags", "NOT_IN", "{a,b}"), [2, 3, 4]),
    (where("doc", "IN", '{"a":1.0}', "null"), [1, 5]),
    (where("v", "PREFIX", "100%"), [2]),
    (where("v", "PREFIX", "%"), []),
    (where("v", "PREFIX", "_"), []),
    (where("v", "PREFIX", ""), [1, 2, 3, 5]),
    (where("code", "PREFIX", "ab"), [1, 2, 5]),
    (where("fixed", "PREFIX", "ab"), [1, 2]),
    (where("mail", "PREFIX", "B@"), [2]),
    (where("day", "IN", "infinity"), [3]),
    (Selection(statuses=("sad", "glad")), [1, 3, 5]),
    (Selection(created=(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))), [1]),
    (Selection(created=(datetime(2026, 1, 2, tzinfo=UTC), None)), [2, 3]),
    (Selection(created=(None, datetime(2026, 1, 1, tzinfo=UTC))), [5]),
    (Selection(updated=(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))), [1]),
    (Selection(), [1, 2, 3, 4, 5]),
    (Selection(limit=2), [1, 2]),
    (ordered("-id"), [5, 4, 3, 2, 1]),
    (ordered("n"), [3, 1, 2, 5, 4]),  # NULL the greatest
    (ordered("-n"), [4, 5, 2, 1, 3]),
    (ordered("mood", "-v", limit=3), [5, 1, 2]),
    (ordered("mail", limit=4), [5, 1, 2, 3]),
    (ordered("mood"), [1, 5, 2, 3, 4]),  # ties by the key
]


def test_a_selection_takes_these_rows_in_the_order_of_the_key_or_of_its_own(items):
    assert [(selection, ids(items, selection)) for selection, _ in TAKEN] == TAKEN


HOSTILE = [
    "'; DROP TABLE public.items; --",
    "\\'; DROP TABLE public.items; --",
    "\\",
    "$$",
    "%s %(x)s {} {0}",
    "a\nb\r\t",
    "'::text) TO PROGRAM 'touch x'; --",
    "\u2019; DROP",
    '"',
]


@pytest.mark.parametrize("operator", ["IN", "PREFIX", "LESS_OR_EQUAL"])
def test_a_hostile_value_is_a_value(items, operator):
    items.sql("TRUNCATE public.items")
    for number, text in enumerate(HOSTILE):
        items.sql("INSERT INTO public.items (id, v) VALUES (%s, %s)", number, text)

    for number, text in enumerate(HOSTILE):
        assert number in ids(items, where("v", operator, text)), text
    assert items.sql("SELECT count(*) FROM public.items") == [(len(HOSTILE),)]


def test_a_field_with_a_hostile_name_is_a_name(made):
    name = """a"b'; %s {0} --"""
    world = made(
        'CREATE TABLE public.t (id int PRIMARY KEY, "a""b\'; %s {0} --" text);INSERT INTO public.t VALUES (1, \'x\')'
    )

    row, data = export(world, "t", format="JSON", kind="PARTIAL", selection=where(name, "IN", "x"))

    assert row.record_count == 1
    assert data.startswith(b'[\n{"id":1,')


REFUSED = [
    (where("nothing", "IN", "x"), "FIELD_UNKNOWN"),
    (where("password", "IN", "x"), "FIELD_SECRET"),
    (where("password", "IS_NULL"), "FIELD_SECRET"),
    (ordered("password"), "FIELD_SECRET"),
    (where("raw", "IN", "1"), "FIELD_NOT_FILTERABLE"),
    (where("pair", "IN", "(1,2)"), "FIELD_NOT_FILTERABLE"),
    (ordered("raw"), "FIELD_NOT_FILTERABLE"),
    (ordered("nothing"), "FIELD_UNKNOWN"),
    (ordered("v", "-v"), "FIELD_DUPLICATE"),
    (where("n", "PREFIX", "1"), "FILTER_NOT_APPLICABLE"),
    (where("mood", "PREFIX", "s"), "FILTER_NOT_APPLICABLE"),
    (where("v", "IN"), "FILTER_VALUE_INVALID"),
    (where("v", "LESS", "a", "b"), "FILTER_VALUE_INVALID"),
    (where("v", "IS_NULL", "a"), "FILTER_VALUE_INVALID"),
    (where("v", "IN", "a\0b"), "FILTER_VALUE_INVALID"),
    (where("v", "IN", "\ud800"), "FILTER_VALUE_INVALID"),
    (where("id", "IN", "1", "one"), "FILTER_VALUE_INVALID"),
    (where("id", "LESS", "1; DROP TABLE public.items"), "FILTER_VALUE_INVALID"),
    (where("n", "LESS", ""), "FILTER_VALUE_INVALID"),
    (where("day", "LESS", "2026-02-30"), "FILTER_VALUE_INVALID"),
    (where("mood", "IN", "happy"), "FILTER_VALUE_INVALID"),
    (where("doc", "IN", "{"), "FILTER_VALUE_INVALID"),
    (Selection(statuses=("happy",)), "FILTER_VALUE_INVALID"),
    (
        Selection(created=(datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))),
        "FILTER_VALUE_INVALID",
    ),
    (Selection(limit=-1), "OPTION_INVALID"),
]


def test_a_selection_that_cannot_be_is_refused_at_the_call(items):
    for selection, reason in REFUSED:
        with pytest.raises(InvalidRequest) as caught:
            begin(items, "items", kind="PARTIAL", selection=selection)
        assert (selection, caught.value.reason) == (selection, reason)

    assert items.exports.list(items.caller, Paging(10, "", "t")).items == []


def test_a_value_that_is_none_is_named_with_its_field(items):
    with pytest.raises(InvalidRequest) as caught:
        begin(items, "items", kind="PARTIAL", selection=where("id", "IN", "1", "one", "2", "two"))

    assert "'id'" in caught.value.message
    assert "'one'" in caught.value.message
    assert [v.subject for v in caught.value.violations] == [
        "filter.conditions[0].values[1]",
        "filter.conditions[0].values[3]",
    ]


@pytest.mark.parametrize("kind", ["ENTITY", "FULL"])
def test_a_filter_needs_partial(items, kind):
    names = ("items",) if kind == "ENTITY" else ()
    for selection, reason in ((where("v", "IS_NULL"), "FILTER_NEEDS_PARTIAL"), (Selection(limit=1), "OPTION_INVALID")):
        with pytest.raises(InvalidRequest) as caught:
            begin(items, *names, kind=kind, format="BUNDLE", selection=selection)
        assert caught.value.reason == reason


def test_only_listed_fields_are_filterable_where_the_catalog_lists_some(made, tmp_path):
    rules = tmp_path / "catalog.toml"
    rules.write_text('[entities.items]\nfilterable = ["v", "password"]\n')
    world = made(ITEMS, catalog_file=rules)

    assert ids(world, where("v", "IN", "apple")) == [1]
    for field, reason in (("n", "FIELD_NOT_FILTERABLE"), ("password", "FIELD_SECRET")):
        with pytest.raises(InvalidRequest) as caught:
            begin(world, "items", kind="PARTIAL", selection=where(field, "IN", "1"))
        assert caught.value.reason == reason
    for selection in (
        Selection(statuses=("sad",)),
        Selection(created=(datetime(2026, 1, 1, tzinfo=UTC), None)),
        Selection(updated=(None, datetime(2026, 1, 1, tzinfo=UTC))),
    ):
        with pytest.raises(InvalidRequest) as caught:
            begin(world, "items", kind="PARTIAL", selection=selection)
        assert caught.value.reason == "FILTER_NOT_APPLICABLE"


def test_without_a_key_a_limit_takes_rows_by_their_place(made):
    world = made("CREATE TABLE public.items (id int); INSERT INTO public.items SELECT generate_series(1, 1000)")

    assert ids(world, Selection(limit=3)) == [1, 2, 3]


def test_an_order_by_a_secret_key_is_not_given(made):
    world = made(
        "CREATE TABLE public.items (api_key text PRIMARY KEY, id int);"
        "INSERT INTO public.items VALUES ('z', 1), ('a', 2), ('m', 3)"
    )

    assert ids(world, Selection(limit=3)) == [1, 2, 3]


def test_a_type_that_changed_before_the_job_ran_is_seen(items):
    row = begin(items, "items", kind="PARTIAL", selection=where("v", "IN", "apple"))
    items.sql("UPDATE public.items SET v = id")
    items.sql("ALTER TABLE public.items ALTER v TYPE int USING v::int")
    items.work()

    found = items.exports.get(items.caller, row.id)
    assert (found.status, found.error["reason"]) == ("FAILED", "FILTER_VALUE_INVALID")


def test_a_filter_for_a_platform_that_is_away_is_refused_for_now(items, monkeypatch):
    items.resources.catalogs.load()
    monkeypatch.setattr(items.resources.platform, "dsn", "host=127.0.0.1 port=1")

    with pytest.raises(Unavailable) as caught:
        begin(items, "items", kind="PARTIAL", selection=where("v", "IN", "x"))
    assert caught.value.reason == "PLATFORM_UNREACHABLE"


def test_an_input_function_that_raises_is_a_refusal(made):
    """An extension's type may not answer softly; a domain's base stands for it here."""
    world = made("CREATE TABLE public.items (id int PRIMARY KEY, at regclass)")

    with pytest.raises(InvalidRequest) as caught:
        begin(world, "items", kind="PARTIAL", selection=where("at", "IN", "no_such_table"))
    assert caught.value.reason == "FILTER_VALUE_INVALID"
    with psycopg.connect(world.resources.platform.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM public.items").fetchone() == (0,)
