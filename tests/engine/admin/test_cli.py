"""`dataops-admin` against a real control database, and the page it makes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.admin.cli import app, main
from engine.admin.configuration import document
from engine.config import Settings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


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
        assert "at revision 0003" in _run("upgrade")


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


def test_an_unknown_setting_is_refused_by_name(
    settings_for, control_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings_for(control_dsn)
    monkeypatch.setenv("DATAOPS_LISTNE", "x")
    monkeypatch.setattr("sys.argv", ["dataops-admin", "config", "check"])
    with pytest.raises(SystemExit):
        main()
    assert "listne" in capsys.readouterr().err
