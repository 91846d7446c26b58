"""`dataops-admin` against a real control database, and the page it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from engine.admin import cli
from engine.admin.cli import app, main
from engine.admin.configuration import document
from engine.config import Settings
from engine.db.database import Database
from engine.errors import FailedPrecondition, Violation

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def settings_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[object]:
    def given(control_dsn: str) -> None:
        values = {"CONTROL_DSN": control_dsn, "PLATFORM_DSN": control_dsn, "ARTIFACTS": str(tmp_path)}
        for name, value in (values | {"JWT_ISSUER": "iss"}).items():
            monkeypatch.setenv(f"DATAOPS_{name}", value)

    yield given


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_page_of_settings_is_the_one_the_code_makes() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == document(), "make it with `dataops-admin config docs --output docs/configuration.md`"


def test_every_setting_says_what_it_decides() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_settings_that_hold_an_address_with_a_password_are_not_shown() -> None:
    settings = Settings(
        control_dsn="postgresql://u:hunter2@h/d", platform_dsn="postgresql://u:hunter2@h/d", artifacts="x"
    )
    assert "hunter2" not in repr(settings)


def test_upgrade_brings_an_empty_database_to_head_and_may_run_again(settings_for, empty_dsn: str) -> None:
    settings_for(empty_dsn)
    for _ in range(2):
        assert "at revision 0004" in _run("upgrade")


def test_a_super_admin_can_be_made_without_a_server_and_is_listed(settings_for, control_dsn: str) -> None:
    settings_for(control_dsn)
    assert "is super_admin now" in _run("grants", "bootstrap", "sam")
    assert "was super_admin already" in _run("grants", "bootstrap", "sam")
    assert "super_admin  iss  sam" in _run("grants", "list", "--subject", "sam")


def test_a_refusal_is_one_line_and_exit_code_1(
    settings_for, empty_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings_for(empty_dsn)
    monkeypatch.setattr("sys.argv", ["dataops-admin", "grants", "list"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("dataops-admin: SCHEMA_REVISION")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[Callable[[], object]], str]:
    """What `main` says of a command that does this."""

    def run(command: Callable[[], object]) -> str:
        monkeypatch.setattr(cli, "app", command)
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 1
        return capsys.readouterr().err

    return run


def test_every_violation_is_a_line(told) -> None:
    def refuse() -> None:
        violations = [Violation("users", "the column a is gone"), Violation("orders", "two\nlines")]
        raise FailedPrecondition("restore: does not fit", reason="SCHEMA_INCOMPATIBLE", violations=violations)

    assert told(refuse).splitlines() == [
        "dataops-admin: SCHEMA_INCOMPATIBLE: restore: does not fit",
        "  users: the column a is gone",
        "  orders: two lines",
    ]


def test_a_lock_that_is_not_had_and_a_lost_connection_are_told_in_a_line(told, empty_dsn: str) -> None:
    def wait() -> None:
        with psycopg.connect(empty_dsn) as one, psycopg.connect(empty_dsn) as other:
            one.execute("CREATE TABLE public.t (); LOCK TABLE public.t")
            one.commit()
            one.execute("SELECT FROM public.t")
            other.execute("SET lock_timeout = '10ms'; LOCK TABLE public.t")

    def lose() -> None:
        with psycopg.connect(empty_dsn) as connection:
            connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    lock = "dataops-admin: the database: canceling statement due to lock timeout (SQLSTATE 55P03)\n"
    assert told(wait) == lock
    lost = told(lose)
    assert (lost.count("\n"), "SQLSTATE 57P01" in lost) == (1, True)
    nobody = told(lambda: psycopg.connect("postgresql://u:hunter2@127.0.0.1:1/d"))
    assert (nobody.count("\n"), "127.0.0.1" in nobody, "hunter2" in nobody) == (1, True, False)


def test_what_a_table_refuses_is_told_without_a_value(told, empty_dsn: str) -> None:
    def directly() -> None:
        with psycopg.connect(empty_dsn) as connection:
            connection.execute("CREATE TABLE public.t (id int, CONSTRAINT small CHECK (id < 9))")
            connection.execute("INSERT INTO public.t VALUES (4711)")

    def by_alchemy() -> None:
        db = Database(empty_dsn, pool_size=1, application_name="tests")
        try:
            with db.transaction() as session:
                session.execute(text("SELECT CAST(:value AS int)"), {"value": "x4711"})
        finally:
            db.close()

    def reading() -> None:
        psycopg.connect("postgresql//u:hunter4711@h")

    for command, what in ((directly, "SQLSTATE 23514"), (by_alchemy, "SQLSTATE 22P02"), (reading, "ProgrammingError")):
        line = told(command)
        assert (line.count("\n"), "4711" in line, what in line) == (1, False, True), line


def test_an_unknown_setting_is_refused_by_name(
    settings_for, control_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings_for(control_dsn)
    monkeypatch.setenv("DATAOPS_LISTNE", "x")
    monkeypatch.setattr("sys.argv", ["dataops-admin", "config", "check"])
    with pytest.raises(SystemExit):
        main()
    assert "listne" in capsys.readouterr().err
