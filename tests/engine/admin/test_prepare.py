"""`dataops-admin prepare`: what it makes, for whom, and what it says where it may not."""

from __future__ import annotations

import pytest
from psycopg import sql
from typer.testing import CliRunner, Result

from engine.admin.cli import app
from engine.admin.prepare import prepare
from engine.errors import InvalidRequest, NotFound
from engine.jobs.fence import temporary_sql
from tests.engine.admin.kit import Site

THERE = "SELECT count(*) FROM pg_class WHERE relnamespace = 'dataops_work'::regnamespace AND relkind = 'r'"
SCHEMA = "SELECT count(*) FROM pg_namespace WHERE nspname = 'dataops_work'"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def installed(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site's settings as variables."""
    for name in ("control_dsn", "platform_dsn", "artifacts", "keys"):
        monkeypatch.setenv(f"DATAOPS_{name.upper()}", str(getattr(site.settings, name)))
    return site


def test_a_more_powerful_login_prepares_for_the_services_role_and_may_do_it_again(installed: Site) -> None:
    first, second = run("prepare", "--dsn", installed.owner_dsn), run("prepare", "--dsn", installed.owner_dsn)

    assert (first.exit_code, second.exit_code) == (0, 0), first.output
    assert first.stdout.splitlines() == [
        "made schema dataops_work",
        "made table dataops_work.applied",
        f"granted USAGE ON SCHEMA dataops_work to {installed.role}",
        f"granted SELECT, INSERT, UPDATE, DELETE ON dataops_work.applied to {installed.role}",
    ]
    assert second.stdout == f"nothing to do: {installed.role} has all it needs\n"
    assert installed.found("work_schema") == []
    assert installed.owner(THERE) == [(1,)], "and nothing else"


def test_without_the_right_it_gives_the_sql_that_an_owner_can_run(installed: Site) -> None:
    result = run("prepare")

    assert result.exit_code == 1
    assert "PLATFORM_NOT_PREPARED" in result.stderr
    assert installed.owner(SCHEMA) == [(0,)]
    installed.owner(result.stdout)
    assert run("prepare").stdout.startswith("nothing to do")


def test_the_service_itself_prepares_where_it_may(installed: Site) -> None:
    installed.owner(f"GRANT CREATE ON DATABASE {database(installed)} TO {{svc}}")
    assert run("prepare").stdout.splitlines() == ["made schema dataops_work", "made table dataops_work.applied"]


def test_the_sql_alone_asks_neither_a_setting_nor_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATAOPS_CONTROL_DSN", raising=False)
    result = run("prepare", "--sql", "--role", 'Odd "one"')

    assert result.exit_code == 0
    assert result.stdout.startswith("CREATE SCHEMA IF NOT EXISTS dataops_work;")
    assert 'TO "Odd ""one""";' in result.stdout


def test_the_sql_alone_is_for_the_login_of_the_setting_and_makes_nothing(installed: Site) -> None:
    assert f'TO "{installed.role}";' in run("prepare", "--sql").stdout
    assert installed.owner(SCHEMA) == [(0,)]


def test_the_sql_alone_gives_all_that_is_needed(installed: Site) -> None:
    installed.owner(f"REVOKE TEMPORARY ON DATABASE {database(installed)} FROM PUBLIC")
    installed.owner(run("prepare", "--sql").stdout)

    assert run("prepare").stdout.startswith("nothing to do")


@pytest.mark.parametrize("dsn", ["garbage", "host=127.0.0.1 dbname=odd user=postgres"])
def test_a_login_that_is_no_dsn_is_refused_by_name(dsn: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        prepare(dsn, "svc")
    assert caught.value.reason == "CONFIG_INVALID"


def test_the_sql_alone_is_for_a_role_of_any_name(site: Site) -> None:
    name = """it's $$ "odd" \\ one"""
    site.owner(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)).as_string())
    try:
        site.owner(
            f"REVOKE TEMPORARY ON DATABASE {database(site)} FROM PUBLIC", run("prepare", "--sql", "--role", name).stdout
        )
        assert prepare(site.owner_dsn, name) == []
    finally:
        site.owner(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)).as_string())


def test_a_half_prepared_database_is_completed(site: Site) -> None:
    prepare(site.owner_dsn, site.role)
    site.owner(
        "REVOKE UPDATE ON dataops_work.applied FROM {svc}",
        f"REVOKE TEMPORARY ON DATABASE {database(site)} FROM PUBLIC",
    )
    assert prepare(site.owner_dsn, site.role) == [
        f"granted UPDATE ON dataops_work.applied to {site.role}",
        f'granted TEMPORARY ON DATABASE "{site.owner_dsn.rpartition("/")[2]}" to {site.role}',
    ]
    site.owner("DROP TABLE dataops_work.applied")
    assert prepare(site.owner_dsn, site.role)[0] == "made table dataops_work.applied"


def test_a_role_that_is_not_there_is_told_and_nothing_made(site: Site) -> None:
    with pytest.raises(NotFound) as caught:
        prepare(site.owner_dsn, "nobody_at_all")
    assert caught.value.reason == "PLATFORM_ROLE_UNKNOWN"
    assert site.owner(SCHEMA) == [(0,)]


def test_a_login_that_may_make_it_and_not_grant_leaves_nothing_half_done(site: Site) -> None:
    """It owns what is there but the right to temporary tables is another's to give."""
    site.owner(
        f"REVOKE TEMPORARY ON DATABASE {database(site)} FROM PUBLIC",
        f"GRANT CREATE ON DATABASE {database(site)} TO {{svc}}",
    )
    result = CliRunner(env={"DATAOPS_CONTROL_DSN": ""}).invoke(
        app, ["prepare", "--dsn", site.settings.platform_dsn, "--role", site.role]
    )
    assert result.exit_code == 1, result.output
    assert "GRANT TEMPORARY ON DATABASE" in result.stdout
    assert site.owner(SCHEMA) == [(0,)]


def test_names_that_need_quotes_have_them() -> None:
    assert temporary_sql('the "db"', "Svc") == 'GRANT TEMPORARY ON DATABASE "the ""db""" TO "Svc";\n'


def database(site: Site) -> str:
    return sql.Identifier(site.owner_dsn.rpartition("/")[2]).as_string(None)
