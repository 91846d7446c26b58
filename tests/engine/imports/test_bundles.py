"""Bundles: many entities, one plan, one transaction, references in order."""

from __future__ import annotations

import psycopg
import pytest

from engine.exports.model import ExportFormat, ExportOptions, ExportRequest, ExportType, Selection
from examples.platform import generate
from tests.engine.exports.kit import export


def bundle(world) -> bytes:
    request = ExportRequest(ExportType.FULL, (), ExportFormat.BUNDLE, ExportOptions())
    row = world.exports.create(world.caller, request, *world.request())
    world.work()
    row = world.exports.get(world.caller, row.id)
    assert row.status == "COMPLETED", row.error
    return world.read(world.exports.download(world.caller, row.id).artifact_id)


@pytest.fixture
def platforms(make_world, postgres, platform_dsn):
    """The sample platform with rows, and an empty copy of it."""
    generate.load(platform_dsn, users=300)
    other = postgres.create_database("platform_copy", "template_platform")
    with psycopg.connect(other, autocommit=True) as connection:  # what the template brings of the DataTables
        connection.execute("TRUNCATE dataschema.data_table CASCADE")
    yield make_world(platform_dsn, catalog_file=generate.CATALOG), make_world(other, catalog_file=generate.CATALOG)
    postgres.drop_database("platform_copy")


def test_the_sample_platform_goes_out_as_a_bundle_and_comes_back_into_an_empty_copy(platforms):
    here, there = platforms
    row = there.create("", there.upload(bundle(here), "platform.zip"), format="BUNDLE")
    there.work()
    row = there.imports.get(there.caller, row.id)
    assert row.status == "AWAITING_APPROVAL", row.error
    row = there.apply(row)
    assert row.status == "COMPLETED", row.error

    for entity in here.resources.catalogs.load().entities():
        fields = ", ".join(f"t.{f.column}" for f in entity.fields if not f.secret)
        query = f"SELECT (f.*)::text FROM (SELECT {fields} FROM {entity.schema}.{entity.table} t) f ORDER BY 1"
        assert there.sql(query) == here.sql(query), entity.name
    users = there.sql("SELECT id FROM public.users LIMIT 1")[0][0]
    there.sql("INSERT INTO public.sweepstakes_entries (user_id, campaign) VALUES (%s, 'next')", users)
    there.sql("INSERT INTO public.points_rules (code, description, points) VALUES ('next', 'x', 1)")
    there.sql("INSERT INTO public.tokens (user_id, kind, token_hash) VALUES (%s, 'API', 'next')", users)


def test_a_bundle_of_a_part_of_the_rows_replaces_nothing(made):
    world = made("CREATE TABLE public.a (id int PRIMARY KEY); INSERT INTO public.a VALUES (1), (2), (3)")
    _, data = export(world, "a", format="BUNDLE", kind="PARTIAL", selection=Selection(limit=1))
    row = world.plan("", world.upload(data, "a.zip"), format="BUNDLE", import_type="REPLACE")
    assert world.reason(row) == "BUNDLE_PARTIAL"

    row = world.load("", world.upload(data, "a.zip"), format="BUNDLE", import_type="UPSERT")
    assert row.report["unchanged"] == 1


def test_a_guarded_name_of_a_column_finds_its_field(made):
    world = made("CREATE TABLE public.a (id int PRIMARY KEY, \"=x\" text); INSERT INTO public.a VALUES (1, '=1')")
    _, data = export(world, "a", formula_guard=True)
    assert b"'=x" in data
    row = world.plan("a", data, import_type="UPSERT", csv={"undo_formula_guard": True})

    assert row.plan_summary["counts"]["unchanged"] == 1


def test_an_export_of_ours_comes_back_as_it_was_written_without_being_told(made):
    world = made(
        "CREATE TABLE public.a (id int PRIMARY KEY, v text);"
        "INSERT INTO public.a VALUES (1, '+49 30'), (2, '''x'), (3, '-Minus'), (4, 'plain')"
    )
    _, data = export(world, "a", formula_guard=True)
    row = world.plan("a", data, import_type="UPSERT")

    assert row.plan_summary["counts"]["unchanged"] == 4
    assert "FORMULA_GUARD_UNDONE" in {n["code"] for n in row.plan_summary["notices"]}
    changed = world.plan("a", data.replace(b"plain", b"other"), import_type="UPSERT")
    assert changed.plan_summary["counts"]["update"] == 4, "a file that is not ours any more is taken as it stands"
