"""Several entities in one bundle, groups, everything; formats, compression, and what is said of each."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zipfile
from typing import Any

import psycopg
import pytest
import zstandard

import engine.exports.write as export_write
from engine.access.caller import Caller
from engine.db.models import GrantRow, RoleRow
from engine.errors import FailedPrecondition, InvalidRequest, NotFound, PermissionDenied
from engine.exports.model import Selection
from engine.formats.bundle_reader import BundleReader
from examples.platform import generate
from tests.engine.exports.kit import ask, begin, export, records, where

FAMILY = """
CREATE TABLE public.a_child (id int PRIMARY KEY, parent int, other int);
CREATE TABLE public.b_parent (id int PRIMARY KEY, up int REFERENCES public.b_parent, note text, password text);
ALTER TABLE public.a_child ADD FOREIGN KEY (parent) REFERENCES public.b_parent (id);
CREATE TABLE public.ring_b (id int PRIMARY KEY, next int);
CREATE TABLE public.ring_a (id int PRIMARY KEY, next int REFERENCES public.ring_b (id),
    root int REFERENCES public.z_root);
ALTER TABLE public.ring_b ADD FOREIGN KEY (next) REFERENCES public.ring_a (id);
CREATE TABLE public.after_ring (id int PRIMARY KEY, ring int REFERENCES public.ring_b (id));
"""
ROOT = "CREATE TABLE public.z_root (id int PRIMARY KEY);"
VIEW = "CREATE VIEW public.seen AS SELECT 1; CREATE TABLE public.only_secret (password text);"


@pytest.fixture
def family(made, tmp_path):
    rules = tmp_path / "catalog.toml"
    rules.write_text('[groups.family]\nentities = ["b_parent", "a_child"]\n')
    world = made(ROOT + FAMILY + VIEW, catalog_file=rules)
    world.sql("INSERT INTO public.b_parent VALUES (1, 2, 'x', 'S3CRET'), (2, NULL, E'line\\nbreak', 'S3CRET')")
    world.sql("INSERT INTO public.a_child VALUES (1, 1), (2, 1), (3, 2)")
    return world


def bundle_of(data: bytes) -> BundleReader:
    return BundleReader(io.BytesIO(data), max_bytes=1 << 30)


def grant(world, subject: str, *permissions: str) -> Caller:
    """A caller with exactly these permissions."""
    caller = world.caller_with("admin", subject)
    return Caller(caller.principal_id, caller.issuer, subject, caller.kind, ("own",), permissions, caller.context)


def test_a_full_export_is_a_bundle_of_everything_in_reference_order(family):
    row, data = export(family, kind="FULL", format="BUNDLE")

    reader = bundle_of(data)
    names = [entity.entity for entity in reader.manifest.entities]
    assert names == ["b_parent", "a_child", "z_root", "ring_a", "ring_b", "after_ring"]
    assert row.entity_types == sorted(names)
    assert row.file_name.startswith("full-")
    assert row.file_name.endswith(".zip")
    assert row.record_count == 5
    assert [(n["code"], n["metadata"]["entity"]) for n in row.options["notices"]] == [
        ("NOT_COVERED", "public.seen"),
        ("NOT_COVERED", "only_secret"),
    ]
    assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None


def test_the_manifest_says_what_each_member_is(family):
    row, data = export(family, "family", format="BUNDLE")

    reader, fingerprint = bundle_of(data), family.resources.catalogs.load().entity("b_parent").fingerprint
    manifest = reader.manifest
    parent, child = manifest.entities
    assert (manifest.export_type, manifest.snapshot_at) == ("ENTITY", row.snapshot_at and row.snapshot_at.isoformat())
    assert manifest.source["export_id"] == str(row.id)
    assert (parent.entity, parent.file, parent.rows, parent.key) == ("b_parent", "1-b_parent.jsonl", 2, ("id",))
    assert [(f.name, f.type) for f in parent.fields] == [("id", "integer"), ("up", "integer"), ("note", "text")]
    assert (parent.secret_fields, parent.schema_fingerprint) == (("password",), fingerprint)
    content = reader.open("b_parent").read()
    assert content == b'{"id":1,"up":2,"note":"x"}\n{"id":2,"up":null,"note":"line\\nbreak"}\n'
    assert (parent.bytes, parent.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (child.rows, reader.open("a_child").read().count(b"\n")) == (3, 3)
    assert row.entities == [
        {"entity": e.entity, "file_name": e.file, "record_count": e.rows, "sha256": e.sha256} for e in manifest.entities
    ]


def test_groups_expand_in_catalog_order_and_duplicates_count_once(family):
    row = begin(family, "z_root", "family", "b_parent", "z_root", format="BUNDLE")

    assert row.entity_types == ["z_root", "a_child", "b_parent"]


def test_several_entities_need_a_bundle(family):
    for layout in ("CSV", "JSON", "JSON_LINES"):
        with pytest.raises(InvalidRequest) as caught:
            begin(family, "family", format=layout)
        assert caught.value.reason == "OPTION_INVALID"
        assert "BUNDLE" in caught.value.message


SOME: dict[str, Any] = {"format": "BUNDLE", "kind": "PARTIAL"}


REFUSED: list[tuple[tuple[str, ...], dict[str, Any], str]] = [
    ((), {"kind": "ENTITY"}, "OPTION_INVALID"),
    (("a_child",), {"kind": "FULL", "format": "BUNDLE"}, "OPTION_INVALID"),
    ((), {"kind": "FULL", "format": "JSON"}, "OPTION_INVALID"),
    ((), {"kind": "FULL", "format": "BUNDLE", "columns": ("id",)}, "OPTION_INVALID"),
    (("family",), {"format": "BUNDLE", "columns": ("id",)}, "OPTION_INVALID"),
    (("a_child",), {"format": "BUNDLE", "compression": "GZIP"}, "OPTION_INVALID"),
    (("a_child",), {"delimiter": "ab"}, "OPTION_INVALID"),
    (("nothing",), {}, "ENTITY_UNKNOWN"),
    (("",), {}, "ENTITY_UNKNOWN"),
    (("only_secret",), {}, "ENTITY_NOT_EXPORTABLE"),
    (("family",), SOME | {"selection": where("note", "IS_NULL")}, "FILTER_NOT_APPLICABLE"),
    (("family",), SOME | {"selection": Selection(statuses=("x",))}, "FILTER_NOT_APPLICABLE"),
]


def test_what_does_not_fit_together_is_refused_at_the_call(family):
    for entities, asked, reason in REFUSED:
        with pytest.raises((InvalidRequest, NotFound, FailedPrecondition)) as caught:
            begin(family, *entities, **asked)
        assert (entities, asked, caught.value.reason) == (entities, asked, reason)


def test_a_filter_and_a_limit_count_for_each_entity(family):
    selection = Selection(conditions=where("id", "GREATER", "1").conditions, limit=1)
    _, data = export(family, "family", format="BUNDLE", kind="PARTIAL", selection=selection)

    reader = bundle_of(data)
    assert [entity.rows for entity in reader.manifest.entities] == [1, 1]
    assert json.loads(reader.open("a_child").read())["id"] == 2
    assert reader.manifest.export_type == "PARTIAL"


def test_a_full_export_needs_the_right_on_every_entity(family):
    caller = grant(family, "half", "exports.create:a_child")

    with pytest.raises(PermissionDenied) as caught:
        family.exports.create(caller, ask(kind="FULL", format="BUNDLE"), *family.request())
    assert (caught.value.reason, caught.value.metadata["entity"]) == ("PERMISSION_MISSING", "after_ring")
    with pytest.raises(PermissionDenied) as caught:
        family.exports.create(caller, ask("family", format="BUNDLE"), *family.request())
    assert caught.value.metadata["entity"] == "b_parent"
    with pytest.raises(PermissionDenied):  # whether it exists is no business of this caller
        family.exports.create(caller, ask("nothing"), *family.request())


def test_a_right_that_was_taken_away_before_the_job_ran_counts(family):
    row = begin(family, "family", format="BUNDLE")
    with family.resources.db.transaction() as session:
        session.query(GrantRow).delete()
        assert session.query(RoleRow).count()
    family.work()

    found = family.exports.get(family.caller, row.id)
    assert (found.status, found.error["reason"]) == ("FAILED", "PERMISSION_MISSING")
    assert found.artifact_id is None


def test_what_came_after_the_call_is_said_to_be_missing(family):
    row = begin(family, kind="FULL", format="BUNDLE")
    family.sql("CREATE TABLE public.late (id int PRIMARY KEY)")
    family.work()

    found = family.exports.get(family.caller, row.id)
    assert found.status == "COMPLETED"
    assert "late" in [n["metadata"]["entity"] for n in found.options["notices"]]


def test_without_any_entity_a_full_export_is_refused(made):
    world = made("SELECT 1")

    with pytest.raises(FailedPrecondition) as caught:
        begin(world, kind="FULL", format="BUNDLE")
    assert caught.value.reason == "ENTITY_NOT_EXPORTABLE"


def test_json_is_an_array_of_lines(family):
    row, data = export(family, "a_child", format="JSON", columns=("id", "other"))
    assert data == b'[\n{"id":1,"other":null},\n{"id":2,"other":null},\n{"id":3,"other":null}\n]\n'
    assert (row.record_count, row.file_name[-5:]) == (3, ".json")
    assert family.exports.download(family.caller, row.id).media_type == "application/json"
    assert export(family, "z_root", format="JSON")[1] == b"[]\n"
    assert export(family, "a_child", format="JSON_LINES", columns=("id",))[1] == b'{"id":1}\n{"id":2}\n{"id":3}\n'
    assert export(family, "z_root", format="JSON_LINES")[1] == b""


@pytest.mark.parametrize("layout", ["CSV", "JSON", "JSON_LINES"])
def test_a_compressed_file_is_the_file(made, layout):
    world = made("CREATE TABLE public.t (id int PRIMARY KEY, v text)")
    world.sql("INSERT INTO public.t SELECT g, md5(g::text) FROM generate_series(1, 30000) g")
    _, plain = export(world, "t", format=layout)

    zipped_row, zipped = export(world, "t", format=layout, compression="GZIP")
    packed_row, packed = export(world, "t", format=layout, compression="ZSTD")

    assert gzip.decompress(zipped) == plain
    assert zstandard.ZstdDecompressor().decompressobj().decompress(packed) == plain
    assert (zipped_row.file_name[-3:], packed_row.file_name[-4:]) == (".gz", ".zst")
    assert (zipped_row.record_count, zipped_row.file_size_bytes) == (30_000, len(zipped))
    media_types = [world.exports.download(world.caller, row.id).media_type for row in (zipped_row, packed_row)]
    assert media_types == ["application/gzip", "application/zstd"]


def test_a_bundle_of_the_sample_platform_comes_back_equal(world):
    """Every non-secret field, by PostgreSQL's own reading of the objects."""
    generate.load(world.resources.platform.dsn, users=200)
    _, data = export(world, kind="FULL", format="BUNDLE")

    reader = bundle_of(data)
    assert sum(entity.rows for entity in reader.manifest.entities) > 1000
    for entity in reader.manifest.entities:
        names = ", ".join(f'"{field.name}"' for field in entity.fields)
        table = world.resources.catalogs.load().entity(entity.entity)
        types = ", ".join(f'"{field.name}" {field.type}' for field in entity.fields)
        lines = [line.replace("\\", "\\\\") for line in reader.open(entity.entity).read().decode().splitlines()]
        with world.resources.platform.connect("test", autocommit=True) as connection:
            connection.execute("CREATE TEMP TABLE lines (n serial, line text)")
            with connection.cursor().copy("COPY lines (line) FROM STDIN") as copy:
                copy.write("".join(line + "\n" for line in lines))
            rows = f'{names} FROM "{table.schema}"."{table.table}"'
            read = f"FROM lines, json_to_record(line::json) r ({types})"
            both = [
                [r[0] for r in connection.execute(query.encode())]
                for query in (
                    f"SELECT (t.*)::text FROM (SELECT {rows}) t ORDER BY 1",
                    f"SELECT (t.*)::text FROM (SELECT {names} {read}) t ORDER BY 1",
                )
            ]
        assert both[0] == both[1], entity.entity


def test_a_table_without_columns_to_write_is_named(family):
    assert records(export(family, "z_root")[1]) == [["id"]]
    with pytest.raises(FailedPrecondition) as caught:
        begin(family, "only_secret", format="JSON")
    assert caught.value.reason == "ENTITY_NOT_EXPORTABLE"


def test_every_table_is_locked_before_the_snapshot(family, monkeypatch):
    """While the first is written nobody can empty the last."""
    copy_out, tried = export_write._copy_out, []

    def with_truncate(*arguments):
        for table in ("a_child", "b_parent"):
            with psycopg.connect(family.resources.platform.dsn, autocommit=True) as other:
                other.execute("SET lock_timeout = '200ms'")
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    other.execute(f"TRUNCATE public.{table} CASCADE")
                tried.append(table)
        return copy_out(*arguments)

    monkeypatch.setattr(export_write, "_copy_out", with_truncate)
    row, _ = export(family, "family", format="BUNDLE")

    assert (row.record_count, len(tried)) == (5, 4)


def test_a_definition_that_moves_while_the_locks_are_taken_is_seen_in_any_table(family, monkeypatch):
    row = begin(family, "family", format="BUNDLE")
    catalogs, read = family.resources.catalogs, family.resources.catalogs.read

    def moving(connection):
        found = read(connection)
        family.sql("ALTER TABLE public.a_child ADD IF NOT EXISTS more int")
        monkeypatch.setattr(catalogs, "read", read)
        return found

    monkeypatch.setattr(catalogs, "read", moving)
    family.work()

    found = family.exports.get(family.caller, row.id)
    assert (found.status, found.error["reason"]) == ("FAILED", "CATALOG_MOVED")
    assert "a_child" in found.error["message"]
