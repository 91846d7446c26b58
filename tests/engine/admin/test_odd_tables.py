"""Every odd kind of table: the doctor says whether it works or is refused, and what it says is so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from engine.admin.prepare import prepare
from engine.errors import DataOpsError
from tests.engine.admin.kit import Site
from tests.engine.exports.kit import export
from tests.world import World

ALL = ("export", "ADDITIVE", "UPSERT", "REPLACE", "backup", "restore")
READ = ("export", "backup")
ADDS = ("export", "ADDITIVE", "backup", "restore")


@dataclass(frozen=True)
class Odd:
    """One table and what works with it."""

    table: str
    sql: str
    works: tuple[str, ...] = ALL
    check: str = ""
    """Which check says why something does not work."""
    mends: bool = True
    """Whether that check has SQL for it."""
    entity: str = ""
    """What its entity is called, where that is not the table's name as SQL has it."""
    banged: bool = False
    """Whether a trigger of its own changes what comes in."""

    @property
    def called(self) -> str:
        return self.entity or self.table

    @property
    def relation(self) -> str:
        return f"{'' if 'PARTITION BY' in self.sql else 'ONLY '}public.{self.table}"

    @property
    def rows(self) -> str:
        return f"SELECT (t.*)::text FROM {self.relation} t ORDER BY 1"

    @property
    def emptying(self) -> str:
        return f"DELETE FROM {self.relation}"


BANG = (
    "CREATE FUNCTION public.bang() RETURNS trigger LANGUAGE plpgsql"
    " AS $$ BEGIN NEW.v := NEW.v || '!'; RETURN NEW; END $$;"
)
TYPES = (
    "CREATE TYPE public.mood AS ENUM ('sad', 'it''s \"fine\"'); CREATE TYPE public.pair AS (a int, b text);"
    "CREATE DOMAIN public.short AS varchar(4) CHECK (VALUE <> 'no');"
)
ODD = [
    Odd("plain", "CREATE TABLE public.plain (id int PRIMARY KEY, v text); INSERT INTO public.plain VALUES (1, 'x')"),
    Odd("keyless", "CREATE TABLE public.keyless (v text); INSERT INTO public.keyless VALUES ('x'), ('x')", ADDS, "key"),
    Odd("nullable", "CREATE TABLE public.nullable (v text UNIQUE, w int); INSERT INTO public.nullable VALUES ('x', 1)",
        ADDS, "key"),
    Odd("deferred", "CREATE TABLE public.deferred (id int NOT NULL UNIQUE DEFERRABLE); INSERT INTO public.deferred"
        " VALUES (1)", ADDS, "key"),
    Odd("partial", "CREATE TABLE public.partial (id int NOT NULL); INSERT INTO public.partial VALUES (1);"
        "CREATE UNIQUE INDEX ON public.partial (id) WHERE id > 0", ADDS, "key"),
    Odd("keyless_parted", "CREATE TABLE public.keyless_parted (r int, v text) PARTITION BY LIST (r);"
        "CREATE TABLE public.kp1 PARTITION OF public.keyless_parted FOR VALUES IN (1);"
        "INSERT INTO public.keyless_parted VALUES (1, 'x')", ADDS, "key"),
    Odd("keyless_by_expression", "CREATE TABLE public.keyless_by_expression (r int) PARTITION BY LIST (abs(r));"
        "CREATE TABLE public.ke1 PARTITION OF public.keyless_by_expression DEFAULT;"
        "INSERT INTO public.keyless_by_expression VALUES (1)", ADDS, "key", mends=False),
    Odd("keyless_parent", "CREATE TABLE public.keyless_parent (v text, row_id int);"
        "CREATE TABLE public.heir () INHERITS (public.keyless_parent); INSERT INTO public.keyless_parent VALUES ('x')",
        ADDS, "key"),
    Odd("always", "CREATE TABLE public.always (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);"
        "INSERT INTO public.always (v) VALUES ('a'), ('b')"),
    Odd("parted", "CREATE TABLE public.parted (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);"
        "CREATE TABLE public.parted1 PARTITION OF public.parted FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE public.parted2 PARTITION OF public.parted DEFAULT;"
        "INSERT INTO public.parted VALUES (1, 'a'), (11, 'b')"),
    Odd("parent", "CREATE TABLE public.parent (id int PRIMARY KEY, v text); INSERT INTO public.parent VALUES (1, 'a');"
        "CREATE TABLE public.child (w int) INHERITS (public.parent); INSERT INTO public.child VALUES (1, 'c', 2)"),
    Odd("generated", "CREATE TABLE public.generated (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2)"
        " STORED); INSERT INTO public.generated VALUES (1, 2)"),
    Odd("typed", TYPES + "CREATE TABLE public.typed (id int PRIMARY KEY, d public.short, m public.mood, p public.pair,"
        " r int4range, a text[], aa int[][], ps public.pair[], b bytea, t tsvector);"
        "INSERT INTO public.typed VALUES (1, 'ab', 'it''s \"fine\"', '(1,\"x,y\")', '[1,5)', '{a,NULL,\"\"}',"
        " '{{1},{2}}', ARRAY['(1,a)'::public.pair], '\\x00ff', 'fat:2 cat:1A'),"
        " (2, NULL, NULL, NULL, 'empty', '{}', NULL, NULL, '', '')"),
    Odd("tree", "CREATE TABLE public.tree (id int PRIMARY KEY, up int REFERENCES public.tree);"
        "INSERT INTO public.tree VALUES (1, 2), (2, NULL), (3, 3)"),
    Odd("hen", "CREATE TABLE public.hen (id int PRIMARY KEY, egg int); CREATE TABLE public.egg (id int PRIMARY KEY,"
        " hen int REFERENCES public.hen DEFERRABLE INITIALLY DEFERRED); ALTER TABLE public.hen ADD"
        " FOREIGN KEY (egg) REFERENCES public.egg DEFERRABLE INITIALLY DEFERRED;"
        "INSERT INTO public.egg VALUES (1, NULL); INSERT INTO public.hen VALUES (1, 1)"),
    Odd("triggered", BANG + "CREATE TABLE public.triggered (id int PRIMARY KEY, v text);"
        "INSERT INTO public.triggered VALUES (1, 'x'); CREATE TRIGGER t BEFORE INSERT ON public.triggered FOR EACH ROW"
        " EXECUTE FUNCTION public.bang()", banged=True),
    Odd("ruled", "CREATE TABLE public.ruled (id int PRIMARY KEY); INSERT INTO public.ruled VALUES (1);"
        'CREATE RULE "No way" AS ON DELETE TO public.ruled DO INSTEAD NOTHING', READ, "rules"),
    Odd("hidden", "CREATE TABLE public.hidden (id int PRIMARY KEY); INSERT INTO public.hidden VALUES (1);"
        "ALTER TABLE public.hidden ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", (), "row_security"),
    Odd('"Ünï ""q"", %s {x}"', 'CREATE TABLE public."Ünï ""q"", %s {x}" ("a b" int PRIMARY KEY, "sé" text, "%" int);'
        """INSERT INTO public."Ünï ""q"", %s {x}" VALUES (1, 'x', 2)""", entity='Ünï "q", %s {x}'),
    Odd('"user"', 'CREATE TABLE public."user" ("order" int PRIMARY KEY); INSERT INTO public."user" VALUES (1)',
        entity="user"),
    Odd("excluded", "CREATE TABLE public.excluded (id int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&));"
        "INSERT INTO public.excluded VALUES (1, '[1,2)')"),
    Odd("own_column", 'CREATE TABLE public.own_column (id int PRIMARY KEY, "#row" int); INSERT INTO public.own_column'
        " VALUES (1, 2)", READ, "columns", mends=False),
    Odd("only_secret", "CREATE TABLE public.only_secret (password text PRIMARY KEY)", ALL[1:], "columns", mends=False),
    Odd("seen", "CREATE VIEW public.seen AS SELECT 1 AS id", (), "not_covered", mends=False),
    Odd("kept", "CREATE MATERIALIZED VIEW public.kept AS SELECT 1 AS id", (), "not_covered", mends=False),
    Odd("away", "CREATE FOREIGN TABLE public.away (id int) SERVER odd", (), "not_covered", mends=False),
]  # fmt: skip


@pytest.fixture
def odd(site: Site) -> Site:
    """A database with one table of each kind, all of them the service's own."""
    site.owner(
        "CREATE EXTENSION postgres_fdw", "CREATE SERVER odd FOREIGN DATA WRAPPER postgres_fdw",
        "GRANT USAGE ON FOREIGN SERVER odd TO {svc}", "GRANT CREATE ON SCHEMA public TO {svc}",
    )  # fmt: skip
    prepare(site.owner_dsn, site.role)
    site.service(*(kind.sql for kind in ODD))
    return site


def test_the_doctor_says_of_each_kind_what_works_and_which_check_says_why_not(odd: Site) -> None:
    report = odd.doctor()

    for kind in ODD:
        table = f"public.{kind.table}"
        assert table in report.tables
        assert tuple(report.works(table)) == kind.works, (table, report.refused(table))
        said = {check for checks in report.refused(table).values() for check in checks}
        assert said == ({kind.check} if kind.check else set()), table
    assert not report.failed


def test_the_sql_it_gives_mends_it(odd: Site) -> None:
    for kind in ODD:
        if not kind.check or not kind.mends:
            continue
        table = f"public.{kind.table}"
        (finding,) = odd.found(kind.check, table)
        assert set(finding.refused) == set(ALL) - set(kind.works), table
        odd.mended(finding)
        assert tuple(odd.doctor().works(table)) == ALL, table


def test_what_it_has_no_sql_for_is_told_all_the_same(odd: Site) -> None:
    for kind in ODD:
        if kind.check and not kind.mends:
            table = f"public.{kind.table}"
            findings = [f for f in odd.found(kind.check) if table in (f.subject, *f.tables)]
            assert [f.sql for f in findings] == [""], table


def test_what_it_says_takes_everything_does(odd: Site, make_world: Callable[..., World]) -> None:
    """Out as one bundle and in again by each mode: rows are what they were."""
    kinds = [kind for kind in ODD if kind.works == ALL]
    before = [odd.owner(kind.rows) for kind in kinds]
    world = make_world(odd.settings.platform_dsn)
    _, data = export(world, *(kind.called for kind in kinds), format="BUNDLE")
    for mode in ("REPLACE", "UPSERT", "ADDITIVE"):
        if mode == "ADDITIVE":  # replica: neither triggers nor foreign keys mind
            odd.owner("SET session_replication_role = replica;" + ";".join(kind.emptying for kind in kinds))
        row = world.plan("", data, format="BUNDLE", import_type=mode)
        assert row.status == "AWAITING_APPROVAL", row.error
        row = world.apply(row)
        assert row.status == "COMPLETED", row.error
        assert row.report is not None
        total = sum(map(len, before))
        expected = (total, 0) if mode != "ADDITIVE" else (0, total)
        assert (row.report["unchanged"], row.report["inserted"]) == expected, (mode, row.report)
        for kind, was in zip(kinds, before, strict=True):
            assert kind.banged or odd.owner(kind.rows) == was, (mode, kind.table)


def test_what_it_says_is_refused_is(odd: Site, make_world: Callable[..., World]) -> None:
    report, world = odd.doctor(), make_world(odd.settings.platform_dsn)
    for kind in ODD:
        if kind.works != ALL:
            promised = [name for name in report.works(f"public.{kind.table}") if name not in ("backup", "restore")]
            assert _done(world, kind.called) == promised, kind.table


def _done(world: World, entity: str) -> list[str]:
    """The operations that came to their end."""
    data, done = b'{"password": "x"}\n', []
    with contextlib.suppress(DataOpsError):
        _, data = export(world, entity, format="JSON_LINES")
        done.append("export")
    for mode in ("ADDITIVE", "UPSERT", "REPLACE"):
        with contextlib.suppress(DataOpsError):
            row = world.plan(entity, data, format="JSON_LINES", import_type=mode)
            if row.status == "AWAITING_APPROVAL":
                row = world.apply(row)
                assert row.status == "COMPLETED", (entity, mode, row.error)
                done.append(mode)
            else:
                assert world.reason(row) in ("KEY_NOT_USABLE", "ENTITY_NOT_IMPORTABLE"), (entity, mode, row.error)
    return done
