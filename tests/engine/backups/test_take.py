"""Taking a backup: every row, of every kind of table, and what stands in its manifest and its record."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import psycopg
import pytest

from engine.backups.model import BackupRequest
from engine.backups.service import Backups
from engine.db.models import BackupRow
from engine.errors import FailedPrecondition, NotFound
from tests.engine.backups.bench import Direct, copied, names, read_all, sha256, take_directly
from tests.world import World

Fresh = Callable[[str], World]

pytestmark = pytest.mark.usefixtures("two_sessions")

THINGS = (
    "CREATE TABLE public.things (id int PRIMARY KEY, note text);"
    "INSERT INTO public.things SELECT n, 'row ' || n FROM generate_series(1, 5000) n"
)


# --- what is in it

TABLES = {
    "plain": (THINGS, "things", "SELECT * FROM public.things ORDER BY id"),
    "empty": ("CREATE TABLE public.t (id int PRIMARY KEY)", "t", "SELECT * FROM public.t"),
    "keyless": (
        "CREATE TABLE public.t (a int, b text); INSERT INTO public.t VALUES (1, 'x'), (1, 'x'), (NULL, NULL)",
        "t",
        "SELECT * FROM public.t",
    ),
    "key of several columns": (
        "CREATE TABLE public.t (a int, b int, v text, PRIMARY KEY (b, a));"
        "INSERT INTO public.t SELECT n % 7, n, 'v' FROM generate_series(1, 100) n",
        "t",
        "SELECT * FROM public.t ORDER BY b, a",
    ),
    "partitioned, a part of it partitioned too": (
        "CREATE TABLE public.t (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);"
        "CREATE TABLE public.t1 PARTITION OF public.t FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')"
        " PARTITION BY LIST (id);"
        "CREATE TABLE public.t1a PARTITION OF public.t1 DEFAULT;"
        "CREATE TABLE public.t2 PARTITION OF public.t DEFAULT;"
        "INSERT INTO public.t SELECT n, date '2025-06-01' + n * 5 FROM generate_series(1, 200) n",
        "t",
        "SELECT * FROM public.t ORDER BY id, at",
    ),
    "inherited: a parent stands for its own rows": (
        "CREATE TABLE public.t (id int PRIMARY KEY); CREATE TABLE public.child (v int) INHERITS (public.t);"
        "INSERT INTO public.t VALUES (1), (2); INSERT INTO public.child VALUES (3, 3)",
        "t",
        "SELECT * FROM ONLY public.t ORDER BY id",
    ),
    "generated and identity": (
        "CREATE TABLE public.t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int,"
        " double int GENERATED ALWAYS AS (v * 2) STORED); INSERT INTO public.t (v) VALUES (5), (6)",
        "t",
        "SELECT id, v FROM public.t ORDER BY id",
    ),
    "a dropped column": (
        "CREATE TABLE public.t (id int PRIMARY KEY, gone int, v text); INSERT INTO public.t VALUES (1, 2, 'x');"
        "ALTER TABLE public.t DROP COLUMN gone",
        "t",
        "SELECT id, v FROM public.t",
    ),
    "names that need quotes": (
        'CREATE TABLE public."Odd ""t" ("Id" int PRIMARY KEY, "select" text, "t" int, "f" int, "r" int);'
        """INSERT INTO public."Odd ""t" VALUES (2, 'a', 1, 1, 1), (1, E'tab\\tline\\nback\\\\', 2, 2, 2)""",
        'Odd "t',
        'SELECT * FROM public."Odd ""t"',
    ),
    "nothing but NULL": (
        "CREATE TABLE public.t (a int, b text); INSERT INTO public.t SELECT FROM generate_series(1, 3)",
        "t",
        "SELECT * FROM public.t",
    ),
    "texts that look like COPY's own": (
        r"CREATE TABLE public.t (id int PRIMARY KEY, v text); INSERT INTO public.t VALUES"
        r" (1, '\N'), (2, NULL), (3, ''), (4, '\.'), (5, E'\r\n'), (6, 'NULL'), (7, E'\b\f\v')",
        "t",
        "SELECT * FROM public.t ORDER BY id",
    ),
    "rows that stand in another order than their key": (
        "CREATE TABLE public.t (m int, k text, PRIMARY KEY (m, k));"
        "INSERT INTO public.t VALUES (3, 'b'), (2, 'A'), (2, 'a'), (1, 'ä')",
        "t",
        "SELECT * FROM public.t",
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_stream_is_the_tables_rows_as_copy_gives_them(case: str, fresh: Fresh) -> None:
    schema, name, query = TABLES[case]
    world = fresh(schema)
    archive = take_directly(world, name)

    want = copied(world, query)
    (entity,) = archive.manifest.entities
    assert b"".join(archive.rows(entity)) == want
    assert (entity.rows, entity.bytes, entity.sha256) == (want.count(b"\n"), len(want), sha256(want))
    assert entity.entity == name


def test_the_manifest_says_what_the_tables_are(fresh: Fresh) -> None:
    world = fresh(
        "CREATE TABLE public.parents (id serial PRIMARY KEY, password_hash text);"
        "CREATE DOMAIN public.short AS varchar(5);"
        "CREATE TABLE public.children (id int PRIMARY KEY, parent int REFERENCES public.parents, v public.short);"
        "INSERT INTO public.parents (password_hash) SELECT 'x' FROM generate_series(1, 7);"
        "CREATE VIEW public.seen AS SELECT 1"
    )
    manifest = take_directly(world, "children", "parents").manifest

    parents, children = manifest.entities
    assert (parents.entity, children.entity) == ("parents", "children"), "parents first"
    assert parents.key == ("id",)
    assert [(c.name, c.type, c.secret) for c in parents.columns] == [
        ("id", "integer", False),
        ("password_hash", "text", True),
    ]
    assert [(c.type, c.storage_type) for c in children.columns][2] == ("public.short", "character varying(5)")
    (sequence,) = parents.sequences
    assert (sequence.column, sequence.last_value, sequence.is_called, sequence.increment) == ("id", 7, True, 1)
    (reference,) = children.references
    assert (reference.columns, reference.target_table, reference.target_columns) == (("parent",), "parents", ("id",))
    assert {"seen", "definitions, roles and rights"} <= {other["name"].split(".")[-1] for other in manifest.not_covered}
    assert manifest.database["name"] == world.sql("SELECT current_database()")[0][0]
    seed, seeds = manifest.seed, [(manifest.seed + place) % 2**63 for place in range(2)]
    (rows, total) = world.sql(
        "SELECT count(*), sum(hashint8extended(hashint8extended(id, %s) # hashtextextended(password_hash, %s), %s))"
        " FROM public.parents",
        *seeds,
        seed,
    )[0]
    assert (parents.rows, parents.fingerprint) == (rows, int(total))


def test_a_fingerprint_is_what_the_format_says_it_is(fresh: Fresh) -> None:
    world = fresh(
        "CREATE DOMAIN public.moment AS timestamptz(3); CREATE TABLE public.t (id int, a timestamp, b timestamp(0),"
        " c timestamptz, d public.moment, e timestamp[], f time, g date, t text)"
    )
    at = "'2024-02-29 23:59:59.999999+03'"
    world.sql(f"INSERT INTO public.t VALUES (1, {at}, {at}, {at}, {at}, ARRAY[{at}::timestamp], {at}, {at}, E'\\\\')")
    world.sql(
        "INSERT INTO public.t VALUES (2, 'infinity', '-infinity', '4713-01-01 BC', NULL, '{NULL}', NULL, 'infinity')"
    )
    manifest = take_directly(world, "t").manifest

    (entity,) = manifest.entities
    seeds = [(manifest.seed + place) % 2**63 for place in range(9)]
    own = ["hashint8extended(id, {})", "timestamp_hash_extended(a, {})", "timestamp_hash_extended(b, {})"]
    own += ["timestamptz_hash_extended(c, {})", "timestamptz_hash_extended(d, {})"]
    own += [f'hashtextextended({c}::text COLLATE "C", {{}})' for c in "efgt"]
    hashes = [f"coalesce({text.format(seed)}, {seed})" for text, seed in zip(own, seeds, strict=True)]
    (total,) = world.sql(f"SELECT sum(hashint8extended({' # '.join(hashes)}, {manifest.seed})) FROM public.t")[0]
    assert (entity.rows, entity.fingerprint) == (2, int(total))


def test_settings_ride_along(fresh: Fresh) -> None:
    archive = take_directly(fresh(THINGS), "things", rows=[b'{"a": 1}\n', b'{"a": 2}\n'])

    assert read_all(archive)["settings"] == b'{"a": 1}\n{"a": 2}\n'
    assert archive.manifest.settings["rows"] == 2


def test_a_row_of_20_megabytes(fresh: Fresh) -> None:
    world = fresh(
        "CREATE TABLE public.t (id int PRIMARY KEY, v text); INSERT INTO public.t VALUES (1, 'before'), (3, 'behind');"
        "INSERT INTO public.t SELECT 2, string_agg(md5(n::text), '') FROM generate_series(1, 625000) n"
    )
    archive = take_directly(world, "t")

    (entity,) = archive.manifest.entities
    assert b"".join(archive.rows(entity)) == copied(world, "SELECT * FROM public.t")
    assert len(archive.manifest.numbered("0")) == 3


def test_a_role_that_may_only_read_is_enough(fresh: Fresh) -> None:
    world = fresh("CREATE TABLE public.t (id serial PRIMARY KEY); INSERT INTO public.t DEFAULT VALUES")
    role = f"reader_{uuid.uuid4().hex[:8]}"
    world.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT SELECT ON public.t TO {role}")
    world.sql(f"GRANT USAGE ON SCHEMA public TO {role}")
    try:
        dsn = psycopg.conninfo.make_conninfo(world.resources.platform.dsn)
        info = psycopg.conninfo.conninfo_to_dict(dsn)
        address = f"postgresql://{role}:x@{info['host']}:{info['port']}/{info['dbname']}"
        manifest = take_directly(world, "t", work=Direct(address)).manifest
    finally:
        world.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")

    assert manifest.entities[0].rows == 1
    assert manifest.entities[0].sequences == (), "it may not look at the sequence, so nothing is said of it"


# --- refusals


def test_what_cannot_be_backed_up_is_refused_by_name(fresh: Fresh) -> None:
    world = fresh("CREATE TABLE public.t (); CREATE TABLE public.u (id int)")
    for name, error, reason in (
        ("t", FailedPrecondition, "ENTITY_NOT_BACKED_UP"),
        ("none", NotFound, "ENTITY_UNKNOWN"),
    ):
        with pytest.raises(error) as caught:
            take_directly(world, name)
        assert caught.value.reason == reason


# --- records


def test_a_backup_of_everything_is_recorded_as_its_manifest_says(world: World) -> None:
    backups = Backups(world.resources)
    row = backups.create(world.caller, BackupRequest(name="the first", hold=True), *world.request())
    world.work()
    row = backups.get(world.caller, row.id)
    archive = backups.archive(row)

    assert (row.status, row.name, row.held, row.trigger_type) == ("COMPLETED", "the first", True, "MANUAL")
    assert row.entity_types == [entity.entity for entity in archive.manifest.entities]
    assert row.file_size_bytes == sum(entity["size_bytes"] for entity in row.entities) + sum(
        segment.stored for _, segment in archive.manifest.numbered("settings")
    )
    assert archive.manifest.backup_id == row.id
    assert archive.manifest.requested_by == {
        "principal_id": str(world.caller.principal_id),
        "issuer": "tests",
        "subject": "root",
    }
    assert b'"table": "grants"' in read_all(archive)["settings"]


def test_a_published_backup_whose_record_was_not_completed_is_not_taken_again_unless_it_is_damaged(
    made: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = made(THINGS)
    backups = Backups(world.resources)

    def attempt(row: BackupRow) -> BackupRow:
        """The job once more, as after the loss of its worker behind `backups.published`."""
        with world.resources.db.transaction() as session:
            again = session.get(BackupRow, row.id)
            assert again is not None
            again.status, again.manifest_sha256 = "PENDING", None
            job = world.job(row.job_id)
            job.state, job.attempt, job.finished_at = "PENDING", 1, None
            session.merge(job)
        world.work()
        return backups.get(world.caller, row.id)

    row = backups.create(world.caller, BackupRequest(("things",)), *world.request())
    world.work()
    first = backups.get(world.caller, row.id)
    again = attempt(first)
    assert (again.status, again.artifact_id) == ("COMPLETED", first.artifact_id)

    storage = world.resources.repository._storage
    storage.delete(names(storage, "segments/")[0])
    again = attempt(first)
    assert again.status == "COMPLETED"
    assert again.artifact_id != first.artifact_id
    assert len(list(world.resources.repository.artifact_ids())) == 1
    backups.archive(again).require_present()
