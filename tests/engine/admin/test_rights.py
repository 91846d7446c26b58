"""What the service's role lacks, table by table and in the database: told, and mended by the SQL that is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from engine.admin.doctor.finding import OPERATIONS, WRITES, Severity
from engine.admin.prepare import prepare
from tests.engine.admin.kit import Site
from tests.world import World

PLAIN = "CREATE TABLE public.a (id int PRIMARY KEY, v text)"
ALL = "GRANT ALL ON ALL TABLES IN SCHEMA public TO {svc}"


@pytest.fixture
def prepared(site: Site) -> Site:
    prepare(site.owner_dsn, site.role)
    return site


@pytest.fixture
def owner_role(prepared: Site) -> Iterator[str]:
    """A role that owns things, and is no superuser."""
    name = f"owner_of_{prepared.role}"
    prepared.owner(f"CREATE ROLE {name}", f"GRANT CREATE, USAGE ON SCHEMA public TO {name}")
    yield name
    prepared.owner(f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


@pytest.mark.parametrize(
    ("granted", "missing", "works"),
    [
        ("", "SELECT, INSERT, UPDATE, DELETE", ()),
        ("INSERT, UPDATE", "SELECT, DELETE", ()),
        ("SELECT", "INSERT, UPDATE, DELETE", ("export", "backup")),
        ("SELECT, INSERT", "UPDATE, DELETE", ("export", "ADDITIVE", "backup")),
        ("SELECT, INSERT, UPDATE", "DELETE", ("export", "ADDITIVE", "UPSERT", "backup")),
    ],
)
def test_rights_to_a_table(
    prepared: Site, make_world: Callable[..., World], granted: str, missing: str, works: tuple[str, ...]
) -> None:
    rows = "INSERT INTO public.a SELECT n, 'x' FROM generate_series(1, 100) n"
    prepared.owner(PLAIN, rows, f"GRANT {granted} ON public.a TO {{svc}}" if granted else "SELECT 1")
    report = prepared.doctor()

    (finding,) = [f for f in report.findings if f.check == "rights"]
    assert (finding.severity, finding.subject, finding.found) == (Severity.WARNING, "public.a", f"no {missing}")
    assert tuple(report.works("public.a")) == works
    world = make_world(prepared.settings.platform_dsn)
    for mode in ("ADDITIVE", "UPSERT"):
        if "export" in works:
            row = world.plan("a", b"id,v\n1,y\n200,z\n" if mode == "UPSERT" else b"id,v\n201,z\n", import_type=mode)
            assert (world.apply(row).status == "COMPLETED") == (mode in works), row.error
    prepared.mended(finding)


def test_a_role_that_is_no_owner_is_told_once_for_each_owner(prepared: Site, owner_role: str) -> None:
    prepared.owner(
        "CREATE TABLE public.b (id serial PRIMARY KEY); CREATE TABLE public.c (id int PRIMARY KEY);"
        f"ALTER TABLE public.b OWNER TO {owner_role}; ALTER TABLE public.c OWNER TO {owner_role};"
        f"{PLAIN}; CREATE SEQUENCE public.s; ALTER TABLE public.a ALTER id SET DEFAULT nextval('public.s');"
        "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {svc};" + ALL
    )
    first, second = prepared.found("ownership")

    assert [f.subject for f in (first, second)] == [f"role {owner_role}", "role postgres"]
    assert (first.tables, second.tables) == (("public.b", "public.c"), ("public.a",))
    assert first.sql == f"GRANT {owner_role} TO {prepared.role} WITH INHERIT TRUE;"
    assert "public.b_id_seq" in first.means
    assert "GRANT" not in second.sql, "nobody is made a superuser"
    assert second.sql.splitlines() == [
        f"ALTER TABLE public.a OWNER TO {prepared.role};",
        f"ALTER SEQUENCE public.s OWNER TO {prepared.role};",
    ]
    assert "restore" in prepared.doctor().refused("public.c")
    prepared.mended(first)
    prepared.mended(second)
    assert prepared.doctor().works("public.b")[-1] == "restore"


def test_a_sequence_that_may_not_be_used_is_told_and_an_identity_needs_nothing(
    prepared: Site, make_world: Callable[..., World]
) -> None:
    prepared.owner(
        "CREATE TABLE public.a (id serial PRIMARY KEY, v text, n int GENERATED ALWAYS AS IDENTITY);"
        "GRANT SELECT ON public.a_n_seq TO {svc};" + ALL
    )
    (finding,) = prepared.found("sequence")

    assert (finding.subject, finding.tables) == ("public.a_id_seq", ("public.a",))
    assert "USAGE, SELECT" in finding.sql
    world = make_world(prepared.settings.platform_dsn)
    assert world.reason(world.load("a", b"v\nx\n")) == "RIGHT_MISSING"
    assert world.reason(world.load("a", b"id,v\n5,x\n")) == "SEQUENCE_NOT_OWNED"
    prepared.mended(finding)
    assert world.load("a", b"v\nx\n").status == "COMPLETED"
    assert world.reason(world.load("a", b"id,v\n5,x\n")) == "SEQUENCE_NOT_OWNED"
    prepared.mended(*prepared.found("ownership"))
    assert world.load("a", b"id,v\n5,x\n").status == "COMPLETED"


def test_neighbours_that_cannot_be_read(prepared: Site) -> None:
    prepared.owner(
        "CREATE SCHEMA far; CREATE TABLE far.up (id int PRIMARY KEY); CREATE TABLE public.a (id int PRIMARY KEY, up int"
        " REFERENCES far.up); CREATE TABLE far.down (a int REFERENCES public.a);" + ALL
    )
    found = {f.refused: f for f in prepared.found("reference")}

    assert set(found) == {("ADDITIVE", "UPSERT", "REPLACE"), ("REPLACE",)}
    for finding in found.values():
        prepared.owner(finding.sql)
    assert prepared.found("reference") == []


@pytest.mark.parametrize(
    ("check", "data", "schema"),
    [
        ("type", b"id,v\n1,{x}\n", "CREATE TYPE public.m AS ENUM ('x'); REVOKE USAGE ON TYPE public.m FROM PUBLIC;"
                 "CREATE TABLE public.a (id int PRIMARY KEY, v public.m[])"),
        ("type", b"id,v\n1,2\n", "CREATE SCHEMA far; CREATE DOMAIN far.m AS int;"
         "CREATE TABLE public.a (id int PRIMARY KEY, v far.m)"),
        ("function", b"id\n1\n", "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$; REVOKE EXECUTE"
         " ON FUNCTION public.f() FROM PUBLIC; CREATE TABLE public.a (id int PRIMARY KEY, v int DEFAULT public.f())"),
    ],
)  # fmt: skip
def test_what_a_column_needs(
    prepared: Site, make_world: Callable[..., World], check: str, data: bytes, schema: str
) -> None:
    prepared.owner(schema, ALL)
    world = make_world(prepared.settings.platform_dsn)
    (finding,) = prepared.found(check)
    refused = world.plan("a", data)
    if refused.status == "AWAITING_APPROVAL":
        refused = world.apply(refused)

    assert finding.refused == WRITES
    assert refused.status in ("FAILED", "ROLLED_BACK")
    prepared.mended(finding)
    assert world.load("a", data).status == "COMPLETED"


@pytest.mark.parametrize("there", [False, True])
def test_a_database_that_is_not_prepared_takes_exports_and_plans(
    site: Site, make_world: Callable[..., World], there: bool
) -> None:
    if there:
        site.owner("CREATE SCHEMA dataops_work")
    site.owner(PLAIN, "INSERT INTO public.a VALUES (1, 'x')", ALL)
    (finding,) = site.found("work_schema")
    world = make_world(site.settings.platform_dsn)

    assert (finding.severity, finding.refused) == (Severity.ERROR, WRITES)
    assert world.export("a")[0].record_count == 1
    row = world.plan("a", b"id,v\n2,y\n")
    assert row.status == "AWAITING_APPROVAL", row.error
    row = world.apply(row)
    assert world.reason(row) == "PLATFORM_NOT_PREPARED"
    assert row.error is not None
    assert row.error["metadata"]["sql"] == finding.sql
    site.mended(finding)
    assert world.load("a", b"id,v\n2,y\n").status == "COMPLETED"


def test_who_may_make_the_work_schema_is_told_that_the_first_import_does(site: Site) -> None:
    site.owner(f'GRANT CREATE ON DATABASE "{site.owner_dsn.rpartition("/")[2]}" TO {{svc}}')
    (finding,) = site.found("work_schema")
    assert finding.severity is Severity.NOTICE
    site.mended(finding)


def test_temporary_tables_that_may_not_be_made(prepared: Site, make_world: Callable[..., World]) -> None:
    prepared.owner(PLAIN, ALL, f'REVOKE TEMPORARY ON DATABASE "{prepared.owner_dsn.rpartition("/")[2]}" FROM PUBLIC')
    (finding,) = prepared.found("temporary_tables")
    assert (finding.severity, finding.refused) == (Severity.ERROR, WRITES)
    row = make_world(prepared.settings.platform_dsn).plan("a", b"id\n1\n")
    assert row.error is not None
    assert row.error["reason"] == "PLATFORM_NOT_PREPARED"
    prepared.owner(row.error["metadata"]["sql"])
    assert prepared.found("temporary_tables") == []


def test_schemas_that_give_nothing(prepared: Site) -> None:
    prepared.owner("CREATE SCHEMA closed; CREATE TABLE closed.t (id int)", "CREATE SCHEMA bare", PLAIN, ALL)
    prepared.owner("GRANT USAGE ON SCHEMA bare TO {svc}")
    wanted = {"platform_schemas": "public, closed, bare, nowhere"}
    found = {f.subject: f for f in prepared.doctor(**wanted).findings if f.check == "schema"}

    assert {name: f.severity for name, f in found.items()} == {
        "nowhere": Severity.ERROR, "closed": Severity.ERROR, "bare": Severity.WARNING, "public": Severity.OK,
    }  # fmt: skip
    prepared.owner(found["closed"].sql)
    assert prepared.found("schema", "closed", **wanted) == []
    (finding,) = prepared.found("schema", platform_schemas=" , ")
    assert finding.refused == OPERATIONS


def test_a_table_that_is_hidden_from_a_role_that_is_no_owner(prepared: Site) -> None:
    prepared.owner(PLAIN, "ALTER TABLE public.a ENABLE ROW LEVEL SECURITY", ALL,
                   "CREATE TABLE public.b (id int PRIMARY KEY, a int REFERENCES public.a)", ALL)  # fmt: skip
    (finding,) = prepared.found("row_security")
    (reference,) = prepared.found("reference")

    assert (finding.subject, finding.refused) == ("public.a", OPERATIONS)
    assert (reference.subject, reference.sql) == ("public.b", finding.sql)
    prepared.mended(finding)
    assert prepared.found("reference") == []
