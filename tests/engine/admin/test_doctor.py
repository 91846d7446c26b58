"""`dataops-admin doctor`: the server's settings, what is the service's own, and what people and programs are shown."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from engine.admin.cli import app
from engine.admin.doctor import Finding, Report, Severity
from engine.admin.doctor.finding import OPERATIONS, WRITES
from engine.admin.doctor.text import as_text, one_line
from engine.admin.prepare import prepare
from engine.errors import PlatformNotPrepared
from engine.webhooks.model import WebhookRequest
from engine.webhooks.service import Webhooks
from examples.stack.servers import PostgresServer
from tests.engine.admin.conftest import PASSWORD
from tests.engine.admin.kit import Site
from tests.world import World

ROOT = Path(__file__).resolve().parents[3]
PLAIN = "CREATE TABLE public.a (id int PRIMARY KEY, v text)"


@pytest.fixture
def well(site: Site) -> Site:
    """A site with nothing to complain of: prepared, and the owner of its one table."""
    prepare(site.owner_dsn, site.role)
    site.owner(PLAIN, "ALTER TABLE public.a OWNER TO {svc}")
    return site


@pytest.fixture
def command(well: Site, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs `dataops-admin doctor` with the site's settings."""
    for name in ("control_dsn", "platform_dsn", "artifacts", "keys"):
        monkeypatch.setenv(f"DATAOPS_{name.upper()}", str(getattr(well.settings, name)))
    return lambda *arguments: CliRunner().invoke(app, ["doctor", *arguments])


def test_a_sound_installation_has_no_error_and_nothing_to_mend(well: Site) -> None:
    report = well.doctor()

    assert {f.check for f in report.findings if f.severity is Severity.NOTICE} == {"doorbell"}
    assert not report.of_severity(Severity.ERROR, Severity.WARNING)
    assert report.works("public.a") == list(OPERATIONS)


def test_the_doctor_changes_nothing(well: Site) -> None:
    contents = (
        "SELECT sum(c.relpages), count(*), sum(c.oid::bigint), (SELECT count(*) FROM pg_namespace),"
        " (SELECT count(*) FROM pg_shdepend) FROM pg_class c WHERE c.relnamespace > 16384 OR c.relkind = 'S'"
    )
    before, files = well.owner(contents), _files(well)
    well.doctor()
    assert well.owner(contents) == before
    assert _files(well) == files | {".tmp"}, "the probe object is gone"


def _files(site: Site) -> set[str]:
    return {str(path.relative_to(site.settings.artifacts)) for path in Path(site.settings.artifacts).rglob("*")}


# --- the server


def test_sessions_that_only_read_are_an_error_that_the_sql_mends(well: Site) -> None:
    well.owner("ALTER ROLE {svc} SET default_transaction_read_only = on")
    (finding,) = well.found("read_only")
    assert (finding.severity, finding.refused) == (Severity.ERROR, WRITES)
    well.mended(finding)


def test_time_limits_are_told_with_what_takes_them_back(well: Site) -> None:
    database = well.owner_dsn.rpartition("/")[2]
    well.owner(
        "ALTER ROLE {svc} SET statement_timeout = '5s'",
        f"ALTER DATABASE {database} SET idle_session_timeout = '1min'",
        f"ALTER ROLE {{svc}} IN DATABASE {database} SET lock_timeout = '1s'",
        "ALTER ROLE {svc} SET temp_file_limit = '1GB'",
    )
    found = {f.subject: f for f in well.found("timeouts")}

    assert set(found) == {"statement_timeout", "idle_session_timeout", "lock_timeout"}
    assert {f.severity for f in found.values()} == {Severity.NOTICE}, "our sessions set their own"
    for finding in [*found.values(), *well.found("temp_file_limit")]:
        well.mended(finding)
    assert well.found("temp_file_limit") == []


def test_a_limit_that_our_sessions_would_have_is_an_error(well: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.db import platform

    well.owner("ALTER ROLE {svc} SET statement_timeout = '9s'")
    monkeypatch.delitem(platform.SESSION_SETTINGS, "statement_timeout")
    errors = [f for f in well.found("timeouts") if f.severity is Severity.ERROR]
    assert [(f.subject, f.found) for f in errors] == [("statement_timeout", "9000 ms in our own sessions")]


def test_a_standby_takes_exports_alone(well: Site) -> None:
    """A server of its own, which believes that it follows another one."""
    with PostgresServer() as server:
        server.create_database("followed")
        server.halt()
        signal = server._data / "standby.signal"
        signal.touch()
        if server.account is not None:
            os.chown(signal, server.account.uid, server.account.gid)
        server.start()
        found = {f.check: f for f in well.doctor(platform_dsn=server.dsn("followed")).findings}
        with pytest.raises(PlatformNotPrepared):
            prepare(server.dsn("followed"), "postgres")
    assert (found["standby"].severity, found["standby"].refused) == (Severity.ERROR, WRITES)


def test_what_could_not_be_looked_at_is_not_said_to_work(well: Site) -> None:
    with psycopg.connect(well.owner_dsn) as other:
        other.execute("LOCK TABLE public.a IN ACCESS EXCLUSIVE MODE")
        report = well.doctor()
    (finding,) = [f for f in report.findings if f.check == "catalog"]
    assert (finding.severity, finding.found) == (Severity.WARNING, "the check failed itself (55P03)")
    assert report.tables == ()


def test_an_encoding_that_is_none_is_told(well: Site, postgres: PostgresServer) -> None:
    with postgres.connect() as connection:
        connection.execute("CREATE DATABASE doctor_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
        connection.execute("CREATE DATABASE doctor_latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    try:
        found = [
            well.found("encoding", platform_dsn=well.settings.platform_dsn.rpartition("/")[0] + f"/{name}")
            for name in ("doctor_ascii", "doctor_latin")
        ]
    finally:
        for name in ("doctor_ascii", "doctor_latin"):
            postgres.drop_database(name)
    assert [(f.severity, f.found) for (f,) in found] == [(Severity.WARNING, "SQL_ASCII"), (Severity.NOTICE, "LATIN1")]


def test_an_event_trigger_at_ddl_is_told(well: Site) -> None:
    well.owner(
        "CREATE FUNCTION public.no() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$",
        "CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION public.no()",
        "CREATE EVENT TRIGGER drops ON sql_drop EXECUTE FUNCTION public.no()",
    )
    assert [f.subject for f in well.found("event_trigger")] == ["watch"]


def test_a_superuser_is_more_than_is_needed(well: Site) -> None:
    (finding,) = well.found("role", platform_dsn=well.owner_dsn)
    assert finding.severity is Severity.NOTICE


def test_a_foreign_part_and_a_type_without_its_library_are_told(well: Site) -> None:
    well.owner(
        "CREATE EXTENSION postgres_fdw; CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw;"
        "CREATE TABLE public.p (id int) PARTITION BY LIST (id); CREATE FOREIGN TABLE public.p1 PARTITION OF public.p"
        " FOR VALUES IN (1) SERVER away; CREATE TABLE public.x (id int PRIMARY KEY, doc xml);"
        "GRANT SELECT ON public.x TO {svc}"
    )
    (finding,) = well.found("partition")
    assert "public.p1" in finding.found
    with psycopg.connect(well.owner_dsn) as connection:
        try:
            connection.execute("SELECT '<a/>'::xml")
        except psycopg.errors.FeatureNotSupported:
            (finding,) = well.found("type")
            assert finding.subject == "xml"


# --- what is the service's own


@pytest.mark.parametrize(
    ("settings", "check"),
    [
        ({"keys": "", "key_file": None}, "keys"),
        ({"keys": "one bad"}, "keys"),
        ({"key_file": Path("/none/of/it")}, "keys"),
        ({"catalog_file": Path("/none/of/it")}, "catalog"),
        ({"artifacts": "s3://bucket/x"}, "store"),
        ({"artifacts": "memory:"}, "store"),
        ({"tls_key_file": Path("/none/of/it")}, "file_mode"),
    ],
)
def test_what_keeps_a_process_from_its_work_is_an_error(well: Site, settings: dict[str, Any], check: str) -> None:
    errors = well.doctor(**settings).of_severity(Severity.ERROR)
    assert {f.check for f in errors} >= {check}
    assert {f.check for f in errors} <= {check, "file_mode"}


def test_a_control_database_that_is_no_control_database(well: Site) -> None:
    (finding,) = well.found("control_schema", control_dsn=well.owner_dsn)
    assert "dataops-admin upgrade" in finding.found
    (finding,) = well.found("control_schema", control_dsn="postgresql://u:hunter2@127.0.0.1:1/d")
    assert "CONTROL_UNREACHABLE" in finding.found
    assert "hunter2" not in str(finding)


def test_a_key_file_that_others_may_read(well: Site, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(well.settings.keys)
    severities = []
    for mode in (0o600, 0o640, 0o644):
        file.chmod(mode)
        found = well.found("file_mode", keys="", key_file=file)
        severities += [f.severity for f in found] or [Severity.OK]
    assert severities == [Severity.OK, Severity.NOTICE, Severity.WARNING]


def test_a_key_that_stored_parts_need_and_the_ring_lacks(well: Site, make_world: Callable[..., World]) -> None:
    make_world(well.settings.platform_dsn).upload(b"id\n1\n")
    (finding,) = well.found("keys", keys=well.settings.keys.replace("test ", "other "))
    assert (finding.severity, finding.subject) == (Severity.ERROR, "key test")
    assert "stored parts" in finding.found


def test_a_key_that_webhooks_need_and_the_ring_lacks(well: Site, make_world: Callable[..., World]) -> None:
    world = make_world(well.settings.platform_dsn)
    webhooks, request = Webhooks(world.resources), WebhookRequest("https://hooks.example.org/")
    made, _ = webhooks.create(world.caller, request, *world.request())
    lacking = well.settings.keys.replace("test ", "other ")
    (finding,) = well.found("keys", keys=lacking)
    assert (finding.severity, finding.subject) == (Severity.ERROR, "key test")
    assert "signing keys of 1 webhooks" in finding.found

    webhooks.delete(world.caller, made.id)
    assert well.found("keys", keys=lacking) == []


def test_a_store_that_is_not_there_yet_is_not_made(well: Site, tmp_path: Path) -> None:
    (finding,) = well.found("store", artifacts=str(tmp_path / "later" / "on"))
    assert finding.severity is Severity.NOTICE
    assert not (tmp_path / "later").exists()


def test_a_store_that_cannot_be_written(well: Site, tmp_path: Path) -> None:
    """A file stands where a folder should: root could write into one without the right."""
    (tmp_path / "artifacts" / ".tmp").write_text("in the way")
    (finding,) = well.found("store")
    assert (finding.severity, finding.refused) == (Severity.ERROR, OPERATIONS)
    assert "STORAGE_FAILED" in finding.found


def test_room_on_the_disk(well: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    severities = []
    for free in (100 << 20, 1 << 30, 1 << 40):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: Usage(free))
        severities += [f.severity for f in well.found("disk")] or [Severity.OK]
    assert severities == [Severity.ERROR, Severity.WARNING, Severity.OK]


class Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_a_doorbell_that_is_away_loses_nothing(well: Site) -> None:
    (finding,) = well.found("doorbell", redis_url="redis://:hunter2@127.0.0.1:1/0")
    assert finding.severity is Severity.WARNING
    assert "hunter2" not in str(finding)


# --- what is shown


def test_a_catalog_file_that_names_nothing_is_an_error_and_the_tables_are_judged(well: Site, tmp_path: Path) -> None:
    file = tmp_path / "catalog.toml"
    file.write_text('[entities.gone]\ntable = "public.gone"')
    report = well.doctor(catalog_file=file)
    assert [f.check for f in report.of_severity(Severity.ERROR)] == ["catalog"]
    assert [f.subject for f in report.findings if f.check == "table"] == ["public.a"]


def test_a_catalog_file_decides_what_is_covered_and_secret(well: Site, tmp_path: Path) -> None:
    well.service("ALTER TABLE public.a ADD password text NOT NULL")
    well.owner('CREATE TABLE public."Out" (id int); ALTER TABLE public."Out" OWNER TO {svc}')
    (finding,) = well.found("secrets")
    assert "[entities.a.secrets] with password" in finding.means
    file = tmp_path / "catalog.toml"
    file.write_text('[entities.a.secrets]\npassword = { fill = "!" }\n[exclude]\ntables = ["public.Out"]')
    report = well.doctor(catalog_file=file)
    assert not [f for f in report.findings if f.check == "secrets"]
    assert report.works('public."Out"') == []


def test_the_document_is_stable_and_the_exit_code_tells(well: Site, command: Callable[..., Any]) -> None:
    sound = command("-o", "json")
    well.owner("CREATE TABLE public.b (v text); ALTER TABLE public.b OWNER TO {svc}")
    well.owner("DROP SCHEMA dataops_work CASCADE")
    sick = command("--output", "json")

    assert (sound.exit_code, sick.exit_code) == (0, 1)
    document = json.loads(sick.stdout)
    assert set(document) == {"format", "database", "role", "summary", "findings", "tables"}
    assert document["format"] == 1
    assert document["summary"]["ERROR"] == 1
    first = document["findings"][0]
    assert set(first) == {"check", "severity", "subject", "found", "means", "sql", "refused", "tables"}
    assert (first["check"], first["severity"]) == ("work_schema", "ERROR")
    assert document["tables"][1] == {
        "table": "public.b",
        "works": ["export", "backup"],
        "refused": {
            "ADDITIVE": ["work_schema"], "UPSERT": ["key", "work_schema"], "REPLACE": ["key", "work_schema"],
            "restore": ["work_schema"],
        },
    }  # fmt: skip


def test_people_see_the_gravest_first_with_the_sql_under_it(well: Site, command: Callable[..., Any]) -> None:
    well.owner("DROP SCHEMA dataops_work CASCADE")
    shown = command().stdout

    assert shown.index("ERROR") < shown.index("work_schema") < shown.index("CREATE SCHEMA") < shown.index("NOTICE")
    assert "      GRANT USAGE ON SCHEMA dataops_work" in shown
    assert shown.splitlines()[-1] == "1 ERROR, 0 WARNING, 1 NOTICE"
    assert "table: public.a" not in shown
    assert "table: public.a" in command("--all").stdout


def test_no_secret_is_shown(well: Site, command: Callable[..., Any]) -> None:
    key = well.settings.keys.split()[1]
    for arguments in (("--all",), ("-o", "json")):
        shown = command(*arguments).stdout
        assert PASSWORD not in shown
        assert key not in shown
        assert well.owner_dsn.split(":")[2].split("@")[0] not in shown


def test_one_line_names_the_checks_that_matter() -> None:
    def finding(check: str, severity: Severity) -> Finding:
        return Finding(check, severity, "x", "found", "means")

    report = Report.of([finding("key", Severity.NOTICE), finding("rights", Severity.WARNING),
                        finding("rights", Severity.WARNING), finding("pooler", Severity.ERROR)])  # fmt: skip
    assert one_line(report) == "1 ERROR (pooler) and 2 WARNING (rights)"
    assert "  rights: x, x\n    found\n    means\n" in as_text(report), "what is alike stands together"
    assert one_line(Report.of([])) == ""
    assert as_text(Report.of([])).endswith("0 ERROR, 0 WARNING, 0 NOTICE\n")


def test_every_check_stands_on_the_page_of_operations_and_none_besides() -> None:
    code = "".join(path.read_text() for path in (ROOT / "engine" / "admin" / "doctor").glob("*.py"))
    checks = set(re.findall(r'(?:Finding|_cannot)\(\s*"([a-z_]+)"', code))
    page = (ROOT / "docs" / "operations.md").read_text().partition("## The doctor")[2].partition("\n## ")[0]
    listed = [
        name for row in re.findall(r"^\| (`[a-z_`, ]+) \|", page, re.MULTILINE) for name in re.findall(r"[a-z_]+", row)
    ]
    assert sorted(listed) == sorted(checks)
