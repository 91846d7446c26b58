"""The catalog says of every table what it is: keys, types, secrets, references, and what is not covered."""

from __future__ import annotations

import time

import psycopg
import pytest

from engine.catalog import CatalogSource
from engine.catalog.order import reference_order
from engine.db.platform import Platform
from engine.errors import InvalidRequest, Unavailable

SCHEMA = """
CREATE DOMAIN public.short AS varchar(4);
CREATE TABLE public.a (id int, other int NOT NULL, third text NOT NULL, UNIQUE (id), UNIQUE (other, third),
    CONSTRAINT b_third UNIQUE (third), CONSTRAINT a_third UNIQUE (third));
CREATE TABLE public.none (v text);
CREATE UNIQUE INDEX none_partial ON public.none (v) WHERE v IS NOT NULL;
CREATE TABLE public.deferred (v int NOT NULL UNIQUE DEFERRABLE);
CREATE TABLE public.typed (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, s public.short, n numeric(5, 2),
    c text COLLATE "C", twice int GENERATED ALWAYS AS (1 + 1) STORED, fixed text DEFAULT 'a(b)',
    at date DEFAULT CURRENT_DATE, r uuid DEFAULT gen_random_uuid(), z int DEFAULT -1, password text,
    token_count int, api_key text);
CREATE VIEW public.seen AS SELECT 1;
CREATE TABLE public.child (parent int REFERENCES public.a (id) ON DELETE CASCADE);
CREATE SCHEMA other; CREATE TABLE other.none (id int PRIMARY KEY);
"""


@pytest.fixture
def catalog(empty_dsn, tmp_path):
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(SCHEMA.encode())

    def load(rules: str = "", schemas: str = "public"):
        file = tmp_path / "catalog.toml"
        file.write_text(rules)
        return CatalogSource(Platform(empty_dsn), schemas, file).load()

    return load


@pytest.mark.parametrize(
    ("table", "key"), [("a", ("third",)), ("none", ()), ("deferred", ()), ("typed", ("id",)), ("child", ())]
)
def test_the_key_is_chosen_by_rule(catalog, table, key):
    assert catalog().entity(table).key == key


def test_a_field_tells_its_type_and_where_its_value_comes_from(catalog):
    fields = {f.name: f for f in catalog().entity("typed").fields}

    assert (fields["s"].type, fields["s"].storage_type, fields["s"].is_domain) == (
        "public.short", "character varying(4)", True,
    )  # fmt: skip
    assert fields["n"].storage_type == "numeric(5,2)"
    assert fields["c"].collation == 'pg_catalog."C"'
    assert [name for name, f in fields.items() if f.server_assigned] == ["id", "twice", "at", "r"]


def test_what_looks_like_a_credential_is_secret_unless_said_otherwise(catalog):
    def secrets(rules=""):
        return {f.name for f in catalog(rules).entity("typed").fields if f.secret}

    assert secrets() == {"password", "api_key"}
    assert secrets('[entities.typed]\nplain = ["api_key"]\n[entities.typed.secrets]\nc = {}') == {"password", "c"}


def test_what_is_not_covered_is_listed_with_why(catalog):
    found = catalog('[exclude]\ntables = ["public.none"]')

    assert {(n.name, n.why) for n in found.not_covered} == {
        ("public.seen", "it is a view"),
        ("public.none", "catalog.toml excludes it"),
    }
    assert "none" not in [e.name for e in found.entities()]


def test_tables_of_one_name_in_two_schemas_bear_their_schema(catalog):
    assert {e.name for e in catalog(schemas="public, other").entities()} >= {"public.none", "other.none", "a"}


@pytest.mark.parametrize(
    "rules",
    [
        '[entities.p]\ntable = "public.a"\n[entities.q]\ntable = "public.a"',
        '[entities.a]\n[entities.q]\ntable = "public.a"',
        '[entities.child]\ntable = "public.a"',
    ],
    ids=["two new names", "its own and another", "another table's name"],
)
def test_a_table_has_one_entity_and_an_entity_one_table(catalog, rules):
    with pytest.raises(InvalidRequest) as caught:
        catalog(rules)
    assert caught.value.reason == "CATALOG_FILE_INVALID"


def test_two_tables_may_exchange_their_names(catalog):
    found = catalog('[entities.child]\ntable = "public.a"\n[entities.a]\ntable = "public.child"')
    assert {found.entity("child").table, found.entity("a").table} == {"a", "child"}


def test_no_two_tables_bear_one_name(catalog, empty_dsn):
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(
            'CREATE SCHEMA cd; CREATE TABLE public."cd.t" (a int);'
            "CREATE TABLE cd.t (b int); CREATE TABLE public.t (c int)"
        )
    found = {e.name: e.fields[0].name for e in catalog(schemas="public, cd").entities() if len(e.fields) == 1}
    assert found | {'"public"."cd.t"': "a", '"cd"."t"': "b", "public.t": "c"} == found


def test_groups_names_and_references(catalog):
    found = catalog('[groups.g]\nentities = ["things", "child"]\n[entities.things]\ntable = "public.a"')

    assert [(e.name, e.group) for e in found.entities() if e.group] == [("child", "g"), ("things", "g")]
    assert found.entity("things").referenced_by == ("child",)
    assert found.entity("child").references[0].on_delete == "CASCADE"


@pytest.mark.parametrize(
    "rules",
    [
        '[entities.nothing]\ntable = "public.gone"',
        "[entities.typed.secrets]\npasswort = {}",
        '[groups.g]\nentities = ["gone"]',
        '[exclude]\ntables = ["gone"]',
        "[entities.typed]\nsecret = []",
        "not toml",
    ],
)
def test_a_rule_that_names_nothing_is_refused_lest_a_secret_leaves(catalog, rules):
    with pytest.raises(InvalidRequest) as caught:
        catalog(rules)
    assert caught.value.reason == "CATALOG_FILE_INVALID"


def test_the_fingerprint_moves_with_the_definition_and_not_with_the_rows(catalog, empty_dsn):
    before = catalog().entity("typed").fingerprint
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO public.typed (s) VALUES ('x'); ANALYZE public.typed")
        assert catalog().entity("typed").fingerprint == before
        connection.execute("ALTER TABLE public.typed ALTER s SET NOT NULL")
        assert catalog().entity("typed").fingerprint != before


def test_a_size_counts_indexes_and_parts(catalog, empty_dsn):
    catalog()
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE public.root (id int PRIMARY KEY) PARTITION BY RANGE (id);"
            "CREATE TABLE public.part PARTITION OF public.root DEFAULT;"
            "INSERT INTO public.root SELECT generate_series(1, 5000); INSERT INTO public.none SELECT 'x'"
        )
        sizes = connection.execute(
            "SELECT pg_total_relation_size('public.part'), pg_total_relation_size('public.none')"
        ).fetchone()
    found = CatalogSource(Platform(empty_dsn), "public", None).load()

    assert (found.entity("root").size_bytes, found.entity("none").size_bytes) == sizes


def test_fields_are_filterable_that_can_be_compared_unless_some_are_listed(catalog, empty_dsn):
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TYPE public.mood AS ENUM ('a'); CREATE TYPE public.two AS (a int);"
            "CREATE TABLE public.many (i int, v varchar(3), m public.mood, r int4range, a text[], c cidr, j json,"
            " p point, x xid, two public.two, ja json[], b jsonb, secret_key text, secret text)"
        )

    def filterable(rules=""):
        return [f.name for f in catalog(rules).entity("many").fields if f.filterable]

    assert filterable() == ["i", "v", "m", "r", "a", "c", "b"]
    assert filterable('[entities.many]\ncreated_field = "i"') == ["i", "v", "m", "r", "a", "c", "b"]
    assert filterable('[entities.many]\nfilterable = ["v", "j", "secret"]') == ["v", "j"]
    assert filterable("[entities.many]\nfilterable = []") == []


def test_a_bare_type_cuts_nothing_off_and_an_array_tells_its_elements(catalog, empty_dsn):
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TYPE public.mood AS ENUM ('a'); CREATE DOMAIN public.moods AS public.mood[];"
            "CREATE TABLE public.bare (a varchar(3), b char(2), c bit(3), d numeric(5, 2), e public.short,"
            " f timestamp(0), g varchar(3)[], h public.moods, i public.short[], j char(2)[])"
        )

    fields = {f.name: (f.bare_type, f.element) for f in catalog().entity("bare").fields}
    assert [fields[name][0] for name in "abcdef"] == [
        "character varying", "bpchar", '"bit"', "numeric", "character varying", "timestamp without time zone",
    ]  # fmt: skip
    assert [fields[name][1] for name in "aghij"] == ["", "character varying", "enum", "public.short", "bpchar"]


def test_parents_stand_before_what_refers_to_them_and_circles_by_name(catalog, empty_dsn):
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE SCHEMA refs;"
            "CREATE TABLE refs.z (id int PRIMARY KEY, up int REFERENCES refs.z);"
            "CREATE TABLE refs.c (id int PRIMARY KEY, z int REFERENCES refs.z);"
            "CREATE TABLE refs.y (id int PRIMARY KEY, c int REFERENCES refs.c);"
            "ALTER TABLE refs.c ADD y int REFERENCES refs.y;"
            "CREATE TABLE refs.a (id int PRIMARY KEY, y int REFERENCES refs.y);"
            "CREATE TABLE refs.b (id int PRIMARY KEY)"
        )

    entities = catalog(schemas="refs").entities()
    assert [e.name for e in reference_order(reversed(entities))] == ["b", "z", "c", "y", "a"]
    assert [e.name for e in reference_order(e for e in entities if e.name != "z")] == ["b", "c", "y", "a"]


def test_a_locked_table_delays_nobody_who_may_have_the_catalog_of_before(made):
    world = made("CREATE TABLE public.a (id int PRIMARY KEY)")
    catalogs = world.resources.catalogs
    with psycopg.connect(world.resources.platform.dsn) as other:
        other.execute("LOCK TABLE public.a IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Unavailable) as caught:
            catalogs.load()
        assert caught.value.reason == "LOCK_TIMEOUT"
        other.rollback()
        catalogs._failed = None
        known = catalogs.load()
        other.execute("LOCK TABLE public.a IN ACCESS EXCLUSIVE MODE")
        catalogs._kept = (time.monotonic() - 10, known)
        assert catalogs.load() is known
