"""A backup against the live rows: staged as it was, compared by the key, and the counts add up (in the kit)."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.backups.service import Backups
from engine.errors import Aborted, DataLoss, FailedPrecondition, InvalidRequest, NotFound
from engine.imports.planfile import Plan
from tests.engine.backups.kit import Differences, archive_of, back_up, live_rows, staged_rows
from tests.engine.exports.test_every_type import Everything
from tests.every_type import make_types
from tests.world import World

NOTES = "CREATE TABLE public.notes (id int PRIMARY KEY, note text, amount numeric, tags text[])"


def test_what_is_added_changed_and_gone_since(fresh):
    world = fresh(NOTES)
    world.sql("INSERT INTO public.notes SELECT g, 'n' || g, g FROM generate_series(1, 1000) g")
    row = back_up(world)
    world.sql("DELETE FROM public.notes WHERE id IN (10, 9)")
    world.sql("INSERT INTO public.notes VALUES (-1, 'new', 1)")
    world.sql("UPDATE public.notes SET note = 'other' WHERE id = 7")

    found = Differences(world, row)

    assert found.counts == [(2, 1, 1, 997)]
    assert found.changes() == [
        ("INSERT", {"id": "9"}, {"id": (None, "9"), "note": (None, "n9"), "amount": (None, "9"), "tags": (None, None)}),
        ("INSERT", {"id": "10"}, {"id": (None, "10"), "note": (None, "n10"), "amount": (None, "10"),
                                  "tags": (None, None)}),
        ("UPDATE", {"id": "7"}, {"note": ("other", "n7")}),
        ("DELETE", {"id": "-1"}, {"id": ("-1", None), "note": ("new", None), "amount": ("1", None),
                                  "tags": (None, None)}),
    ]  # fmt: skip


def test_nothing_changed_is_nothing_told(fresh):
    world = fresh(NOTES)
    world.sql("INSERT INTO public.notes SELECT g, 'n' || g, g, ARRAY['a', NULL] FROM generate_series(1, 500) g")

    found = Differences(world, back_up(world))

    assert (found.counts, found.changes()) == ([(0, 0, 0, 500)], [])
    assert found.left == (0,), "temp tables are dropped at the end"
    assert found.told.stages == [("LOAD", 500), ("COMPARE", 500)]
    assert found.told.rows[-1] == 500


def test_values_are_the_same_only_if_their_texts_are(fresh):
    world = fresh(
        "CREATE TYPE public.mood AS ENUM ('sad', 'glad'); CREATE DOMAIN public.short AS varchar(4);"
        "CREATE TABLE public.t (id int PRIMARY KEY, n numeric, f float8, x text, a int[], m public.mood,"
        " s public.short, j json, d interval)"
    )
    same = "INSERT INTO public.t VALUES ({}, {}, {}, {}, {}, {}, {}, {}, {})"
    usual = ["1.0", "0", "NULL", "'{1,2}'", "'sad'", "'a'", "'{}'", "'1 day'"]
    for number in range(10):
        world.sql(same.format(number, *usual))
    row = back_up(world)
    changes = {1: ("n", "1.00"), 2: ("f", "'-0'"), 3: ("x", "''"), 4: ("a", "'[0:1]={1,2}'"), 5: ("m", "'glad'"),
               6: ("s", "'b'"), 7: ("j", "'{ }'"), 8: ("d", "'24:00'")}  # fmt: skip
    for number, (column, value) in changes.items():
        world.sql(f"UPDATE public.t SET {column} = {value} WHERE id = {number}")
    # another version of the row of the same values, one of them in another form: it keeps the bitmap of its NULL
    world.sql("UPDATE public.t SET n = 1.0, a = (ARRAY[1, 2, NULL])[1:2] WHERE id = 9")

    found = Differences(world, row)

    assert found.counts == [(0, 0, 8, 2)]
    assert [(key["id"], list(fields)) for _, key, fields in found.changes()] == [
        (str(number), [column]) for number, (column, _) in changes.items()
    ]
    assert found.changes()[2][2] == {"x": ("", None)}
    assert found.changes()[0][2] == {"n": ("1.00", "1.0")}


def test_a_composite_key_of_quoted_names_in_key_order(fresh):
    world = fresh(
        'CREATE TABLE public."Odd ""t"" {x} %s"'
        ' ("a b" text COLLATE "C", "K" uuid, "v\'" text, PRIMARY KEY ("K", "a b"))'
    )
    table = 'public."Odd ""t"" {x} %s"'
    one, two = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
    with psycopg.connect(world.resources.platform.dsn, autocommit=True) as connection:
        connection.execute(
            f"INSERT INTO {table} SELECT x, k::uuid, 'v' FROM unnest(ARRAY['b', 'A', 'a']) x,"
            f" unnest(ARRAY['{two}', '{one}']) k".encode()
        )
        row = back_up(world)
        connection.execute(f"DELETE FROM {table} WHERE \"a b\" IN ('a', 'b')".encode())
        connection.execute(f"INSERT INTO {table} VALUES ('Z', '{one}'), ('z', '{one}')".encode())

    found = Differences(world, row)

    assert found.counts == [(4, 2, 0, 2)]
    assert [(kind, *key.values()) for kind, key, _ in found.changes()] == [
        ("INSERT", one, "a"),
        ("INSERT", one, "b"),
        ("INSERT", two, "a"),
        ("INSERT", two, "b"),
        ("DELETE", one, "Z"),
        ("DELETE", one, "z"),
    ]


def test_a_key_that_is_equal_and_spelt_otherwise_is_one_row(fresh):
    world = fresh("CREATE TABLE public.t (k numeric PRIMARY KEY, v text)")
    world.sql("INSERT INTO public.t VALUES (1.0, 'a'), (2, 'b')")
    row = back_up(world)
    world.sql("UPDATE public.t SET k = 1.00 WHERE k = 1")

    found = Differences(world, row)

    assert found.counts == [(0, 0, 1, 1)]
    assert found.changes() == [("UPDATE", {"k": "1.0"}, {"k": ("1.00", "1.0")})]


def test_rows_without_a_key_are_counted_as_whole_rows(fresh):
    world = fresh("CREATE TABLE public.log (at int, what text)")
    world.sql("INSERT INTO public.log VALUES (1, 'a'), (1, 'a'), (1, 'a'), (2, NULL), (2, '')")
    row = back_up(world)
    world.sql("DELETE FROM public.log WHERE ctid = (SELECT min(ctid) FROM public.log)")
    world.sql("UPDATE public.log SET what = '' WHERE what IS NULL")
    world.sql("INSERT INTO public.log VALUES (3, 'c')")

    found = Differences(world, row)

    assert found.counts == [(2, 2, 0, 3)]
    assert (found.changes(), found.found[0].streams) == ([], {})


def test_a_key_that_changed_cannot_tell_rows_apart(fresh):
    world = fresh(NOTES)
    world.sql("INSERT INTO public.notes SELECT g, 'n' || g FROM generate_series(1, 9) g")
    row = back_up(world)
    world.sql("ALTER TABLE public.notes DROP CONSTRAINT notes_pkey; UPDATE public.notes SET note = 'x' WHERE id = 1")

    assert Differences(world, row).counts == [(1, 1, 0, 8)]

    world.sql("ALTER TABLE public.notes ADD UNIQUE (id), ALTER id SET NOT NULL, ADD serial serial PRIMARY KEY")

    found = Differences(world, row)

    assert found.counts == [(0, 0, 1, 8)], "it is a key still, if no longer the first"
    assert found.changes() == [("UPDATE", {"id": "1"}, {"note": ("x", "n1")})]


def test_a_key_with_a_generated_column_is_backed_up_and_counted_as_whole_rows(fresh):
    """The backup does not hold that column, so that nothing of it can be ordered or found by it."""
    world = fresh("CREATE TABLE public.t (n int, g int GENERATED ALWAYS AS (n * 2) STORED PRIMARY KEY)")
    world.sql("INSERT INTO public.t (n) VALUES (1), (2)")
    row = back_up(world)
    world.sql("UPDATE public.t SET n = 3 WHERE n = 2")

    assert Differences(world, row).counts == [(1, 1, 0, 1)]


def test_columns_that_came_went_and_were_renamed(fresh):
    world = fresh(NOTES)
    world.sql("INSERT INTO public.notes SELECT g, 'n' || g, g FROM generate_series(1, 5) g")
    row = back_up(world)
    world.sql(
        "ALTER TABLE public.notes DROP tags, ADD more int DEFAULT 7; ALTER TABLE public.notes RENAME note TO remark;"
        "ALTER TABLE public.notes RENAME id TO number; DELETE FROM public.notes WHERE number = 2;"
        "UPDATE public.notes SET remark = 'other' WHERE number = 3; INSERT INTO public.notes VALUES (9, 'n', 1)"
    )

    found = Differences(world, row, renames={"notes": {"note": "remark", "id": "number"}})

    assert found.counts == [(1, 1, 1, 3)]
    assert found.changes() == [
        ("INSERT", {"number": "2"}, {"number": (None, "2"), "remark": (None, "n2"), "amount": (None, "2")}),
        ("UPDATE", {"number": "3"}, {"remark": ("other", "n3")}),
        ("DELETE", {"number": "9"}, {"number": ("9", None), "remark": ("n", None), "amount": ("1", None),
                                     "more": ("7", None)}),
    ]  # fmt: skip
    without = Differences(world, row, renames={"notes": {"id": "number", "note": ""}})
    assert without.counts == [(1, 1, 0, 4)], "a column that is said to be gone is not compared"


def test_two_columns_cannot_become_one(fresh):
    world = fresh(NOTES)
    row = back_up(world)

    with pytest.raises(InvalidRequest) as caught:
        Differences(world, row, renames={"notes": {"note": "amount"}})

    assert caught.value.reason == "OPTION_INVALID"


def test_generated_columns_are_no_difference(fresh):
    world = fresh(
        "CREATE TABLE public.t (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED,"
        " i int GENERATED ALWAYS AS IDENTITY)"
    )
    world.sql("INSERT INTO public.t (id, n) VALUES (1, 1), (2, 2)")
    row = back_up(world)
    world.sql("ALTER TABLE public.t DROP twice, ADD twice int GENERATED ALWAYS AS (n * 3) STORED")
    world.sql("UPDATE public.t SET n = 5 WHERE id = 2")

    found = Differences(world, row)

    assert found.counts == [(0, 0, 1, 1)]
    assert found.changes() == [("UPDATE", {"id": "2"}, {"n": ("5", "2")})]


def test_other_types_are_compared_by_their_texts(fresh):
    world = fresh(
        "CREATE TABLE public.t (id int, k uuid, v varchar(5), n numeric(5,2), f real, c char(3), PRIMARY KEY (id, k))"
    )
    world.sql("INSERT INTO public.t SELECT g, gen_random_uuid(), 'v' || g, g, g, 'c' FROM generate_series(1, 9) g")
    row = back_up(world)
    world.sql(
        "ALTER TABLE public.t ALTER id TYPE bigint, ALTER k TYPE text, ALTER v TYPE text, ALTER n TYPE numeric(9,3),"
        " ALTER c TYPE char(4); DELETE FROM public.t WHERE id = 4"
    )

    found = Differences(world, row)

    assert found.counts == [(1, 0, 8, 0)]
    assert found.changes()[1][2] == {"n": ("1.000", "1.00"), "c": ("c   ", "c  ")}


def test_inheritance_and_partitions_each_in_its_own_way(fresh):
    world = fresh(
        "CREATE TABLE public.parent (id int PRIMARY KEY, v text);"
        "CREATE TABLE public.child () INHERITS (public.parent);"
        "CREATE TABLE public.parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);"
        "CREATE TABLE public.parts_1 PARTITION OF public.parts FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE public.parts_2 PARTITION OF public.parts DEFAULT"
    )
    world.sql("INSERT INTO public.parent VALUES (1, 'p'); INSERT INTO public.child VALUES (1, 'c'), (2, 'c')")
    world.sql("INSERT INTO public.parts SELECT g, 'v' FROM generate_series(1, 20) g")
    row = back_up(world)
    world.sql("UPDATE public.parts SET id = id + 100 WHERE id = 5; DELETE FROM ONLY public.parent")

    found = Differences(world, row, ["parent", "parts", "child"])

    assert found.counts == [(1, 0, 0, 0), (1, 1, 0, 19), (0, 0, 0, 2)]


def test_secrets_of_then_and_of_now_are_masked(made, make_world, tmp_path):
    then, now = tmp_path / "then.toml", tmp_path / "now.toml"
    then.write_text("[entities.users.secrets]\ncode = {}\n")
    now.write_text("[entities.users.secrets]\nword = {}\n")
    world = made("CREATE TABLE public.users (id int PRIMARY KEY, code text, word text)", catalog_file=then)
    world.sql("INSERT INTO public.users VALUES (1, '1234', 'a'), (2, '5678', 'b')")
    row = back_up(world)
    world.sql("UPDATE public.users SET code = NULL, word = 'c' WHERE id = 1; DELETE FROM public.users WHERE id = 2")

    found = Differences(make_world(world.resources.platform.dsn, catalog_file=now), row)

    shown = str(found.changes())
    assert found.counts == [(1, 0, 1, 0)]
    assert not any(word in shown for word in ("1234", "5678", "'a'", "'b'", "'c'"))
    assert set(found.changes()[1][2]) == {"code", "word"}


def test_the_comparison_is_one_moment(fresh):
    world = fresh(NOTES + "; CREATE TABLE public.others (id int PRIMARY KEY)")
    world.sql("INSERT INTO public.notes SELECT g FROM generate_series(1, 10) g")
    world.sql("INSERT INTO public.others SELECT g FROM generate_series(1, 10) g")
    row, seen = back_up(world), []

    def look(live, backed, table):
        seen.append((live.name, backed.rows, table.name))

    def during():
        if len(seen) == 1:  # between two looks, within the transaction
            world.sql("DELETE FROM public.notes; DELETE FROM public.others")

    found = Differences(world, row, look=look, during=during, still=False)

    assert world.sql("SELECT count(*) FROM public.others") == [(0,)]
    assert seen == [("notes", 10, "backed_0"), ("others", 10, "backed_1")]
    assert found.counts == [(0, 0, 0, 10)] * 2


def test_the_comparison_can_write_nothing(fresh, monkeypatch):
    world = fresh(NOTES)
    world.sql("INSERT INTO public.notes VALUES (1)")
    row, connections = back_up(world), []
    open_session = world.resources.platform.connect

    def connect(*arguments, **options):
        manager = open_session(*arguments, **options)
        connections.append(manager.gen.gi_frame)
        return manager

    def look(live, backed, table):
        connection = connections[-1].f_locals["connection"]
        assert connection.execute("SHOW transaction_read_only").fetchone() == ("on",)
        assert connection.execute("SHOW transaction_isolation").fetchone() == ("repeatable read",)
        connection.execute("UPDATE public.notes SET note = 'x'")

    monkeypatch.setattr(world.resources.platform, "connect", connect)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        Differences(world, row, look=look)

    assert world.sql("SELECT note FROM public.notes") == [(None,)]


def test_a_definition_that_moves_while_it_is_staged_is_refused(fresh):
    world = fresh(NOTES)
    world.sql("INSERT INTO public.notes SELECT g FROM generate_series(1, 10) g")
    row = back_up(world)
    once: list[object] = []

    def during():
        if not once:
            once.append(world.sql("ALTER TABLE public.notes ADD late int"))

    with pytest.raises(Aborted) as caught:
        Differences(world, row, during=during)

    assert caught.value.reason == "CATALOG_MOVED"


def test_an_entity_that_the_backup_lacks_is_unknown(fresh):
    world = fresh(NOTES + "; CREATE TABLE public.others (id int PRIMARY KEY)")

    with pytest.raises(NotFound) as caught:
        Differences(world, back_up(world, "notes"), ["others"])

    assert caught.value.reason == "ENTITY_UNKNOWN"


def test_a_type_that_is_gone_is_named(fresh):
    world = fresh("CREATE TYPE public.mood AS ENUM ('sad'); CREATE TABLE public.t (id int PRIMARY KEY, m public.mood)")
    world.sql("INSERT INTO public.t VALUES (1, 'sad')")
    row = back_up(world)
    world.sql("ALTER TABLE public.t ALTER m TYPE text; DROP TYPE public.mood")

    with pytest.raises(FailedPrecondition) as caught:
        Differences(world, row)

    assert (caught.value.reason, caught.value.metadata) == (
        "SCHEMA_INCOMPATIBLE",
        {"entity": "t", "column": "m", "type": "public.mood"},
    )


def test_a_type_that_reads_a_value_no_more_is_told_without_the_value(fresh):
    world = fresh(
        "CREATE TYPE public.mood AS ENUM ('sad', 'glad'); CREATE TABLE public.t (id int PRIMARY KEY, m public.mood)"
    )
    world.sql("INSERT INTO public.t VALUES (1, 'sad')")
    row = back_up(world)
    world.sql("ALTER TYPE public.mood RENAME VALUE 'sad' TO 'gloomy'")

    with pytest.raises(FailedPrecondition) as caught:
        Differences(world, row)

    assert caught.value.reason == "SCHEMA_INCOMPATIBLE"
    assert "sad" not in caught.value.message


def test_a_table_too_wide_to_stand_twice_in_a_line_is_compared_all_the_same(fresh):
    columns = [f"c{n}" for n in range(1000)]
    world = fresh(f"CREATE TABLE public.wide (id int PRIMARY KEY, {', '.join(f'{c} bool' for c in columns)})")
    world.sql("INSERT INTO public.wide (id, c0) SELECT g, true FROM generate_series(1, 5) g")
    row = back_up(world)
    world.sql("UPDATE public.wide SET c999 = true, c7 = false WHERE id = 3; DELETE FROM public.wide WHERE id = 5")

    found = Differences(world, row)

    assert found.counts == [(1, 0, 1, 3)]
    assert found.changes()[1] == ("UPDATE", {"id": "3"}, {"c7": ("f", None), "c999": ("t", None)})


def test_a_big_table_is_joined_by_hash_whatever_is_known_of_it(fresh):
    """Never analyzed, the planner would take it for a few rows, and 100,000 of them for as many scans."""
    world = fresh("CREATE TABLE public.big (id int PRIMARY KEY, v text) WITH (autovacuum_enabled = off)")
    world.sql("INSERT INTO public.big SELECT g, 'v' FROM generate_series(1, 100000) g")
    row = back_up(world)
    world.sql("UPDATE public.big SET v = 'w' WHERE id % 1000 = 0")

    assert Differences(world, row).counts == [(0, 0, 100, 99_900)]


def test_what_is_staged_must_be_what_the_manifest_says(fresh, monkeypatch):
    world = fresh(NOTES)
    world.sql("INSERT INTO public.notes SELECT g, 'n' || g FROM generate_series(1, 10) g")
    archive = archive_of(world, back_up(world))
    backed = archive.manifest.entities[0]

    def one_value_changed(entity, check=lambda: None):
        return iter([b"".join(real(entity)).replace(b"n7", b"n8")])

    real = archive.rows
    monkeypatch.setattr(archive, "rows", one_value_changed)
    with pytest.raises(DataLoss) as caught:
        staged_rows(world, archive, "notes")
    assert caught.value.reason == "BACKUP_DAMAGED"
    monkeypatch.setattr(archive, "rows", lambda entity, check: iter([b"".join(real(entity)).split(b"\n", 1)[1]]))
    with pytest.raises(DataLoss) as caught:
        staged_rows(world, archive, "notes")
    assert "found 9 rows" in caught.value.message
    assert backed.rows == 10


def test_every_type_comes_out_of_the_staged_table_as_it_went_in(made):
    """Through a type without its domains too: the fingerprint is made of the row's text."""
    world: World = made("SELECT 1")
    with psycopg.connect(world.resources.platform.dsn, autocommit=True) as connection:
        everything = Everything(world, make_types(connection))
    everything.fill()
    row = back_up(world, "everything")

    assert staged_rows(world, archive_of(world, row), "everything") == sorted(everything.rows("everything"))
    found = Differences(world, row)
    assert found.counts == [(0, 0, 0, len(everything.rows("everything")))]


_texts = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
_rows = st.lists(
    st.tuples(_texts, st.one_of(st.none(), st.decimals(allow_nan=False, allow_infinity=False)), st.binary()), max_size=8
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(before=_rows, after=_rows)
def test_random_rows_come_back_and_their_differences_too(fresh, before, after):
    world = fresh("CREATE TABLE public.t (id int PRIMARY KEY, x text, n numeric, b bytea)")
    insert = "INSERT INTO public.t VALUES (%s, %s, %s, %s)"
    for number, values in enumerate(before):
        world.sql(insert, number, *values)
    row, then = back_up(world), live_rows(world, "t")

    assert staged_rows(world, archive_of(world, row), "t") == then

    world.sql("DELETE FROM public.t")
    for number, values in enumerate(after):
        world.sql(insert, number, *values)
    now = live_rows(world, "t")
    found = Differences(world, row)
    both = min(len(before), len(after))
    equal = len(set(then) & set(now))
    assert found.counts == [(len(before) - both, len(after) - both, both - equal, equal)]


def test_the_differences_are_bound_by_their_digest(fresh):
    world = fresh(NOTES)
    world.sql("INSERT INTO public.notes VALUES (1)")
    row = back_up(world)
    found = Differences(world, row)

    with pytest.raises(DataLoss) as caught:
        Plan.open(found.plan.store, bytes(32))

    assert caught.value.reason == "PLAN_DAMAGED"
    assert found.plan.head["checksum"] == Backups(world.resources).archive(row).checksum.hex()
