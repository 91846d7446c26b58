"""Settings: unknown names are refused, secrets may stand in files, and no message tells a value."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from engine.config import load_settings
from engine.db.database import libpq_dsn
from engine.errors import InvalidRequest

REQUIRED = {
    "DATAOPS_CONTROL_DSN": "postgresql://u:hunter2@h/c",
    "DATAOPS_PLATFORM_DSN": "postgresql://u:hunter2@h/p",
    "DATAOPS_ARTIFACTS": "somewhere",
}


def _refusal(environ: dict[str, str]) -> str:
    with pytest.raises(InvalidRequest, match="CONFIG_INVALID") as caught:
        load_settings(environ)
    assert "hunter2" not in str(caught.value)
    return caught.value.message


def test_every_missing_and_unknown_name_is_told_at_once() -> None:
    message = _refusal({"DATAOPS_JWT_ISUER": "hunter2"})

    assert all(name in message for name in ("control_dsn", "platform_dsn", "artifacts", "jwt_isuer"))


def test_a_wrong_value_is_named_by_its_setting_and_not_shown() -> None:
    assert "lease_seconds" in _refusal(REQUIRED | {"DATAOPS_LEASE_SECONDS": "hunter2"})
    assert "log_format" in _refusal(REQUIRED | {"DATAOPS_LOG_FORMAT": "hunter2"})


@pytest.mark.parametrize("name", ["control_dsn", "platform_dsn"])
@pytest.mark.parametrize(
    "dsn",
    [
        "host=h user=u password=hunter2 dbname=c",
        "",
        "hunter2",
        "mysql://u:hunter2@h/c",
        "postgresql+psycopg://u:hunter2@h/c",
        "postgresql://u:hunter2@h:port/c",
        "postgresql://u:hunter2@h1:5432,h2:5432/c",
        "postgresql://u:hunter2@h:99999999/c",
        "postgresql://u:hunter2@[::1/c",
        "postgresql://u:hunter2@h/c?no_such_parameter=1",
    ],
)
def test_a_dsn_that_is_no_libpq_uri_of_one_host_is_refused_by_the_settings_name(name: str, dsn: str) -> None:
    assert f"{name}: expected a libpq uri" in _refusal(REQUIRED | {f"DATAOPS_{name.upper()}": dsn})


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://h/d",
        "postgres://u:p%40%2F@h:5433/d?sslmode=require&application_name=x",
        "postgresql://u@[::1]:5432/d",
        "postgresql:///d?host=/run/postgresql",
        "postgresql://",
    ],
)
def test_every_form_of_a_libpq_uri_is_taken(dsn: str) -> None:
    settings = load_settings(REQUIRED | {"DATAOPS_CONTROL_DSN": dsn})

    assert settings.control_dsn == dsn
    assert conninfo_to_dict(libpq_dsn(dsn)) == conninfo_to_dict(dsn)


def test_a_secret_may_stand_in_a_file_and_its_line_end_is_no_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text("postgresql://u:p@h/d\n")
    environ = {name: value for name, value in REQUIRED.items() if name != "DATAOPS_CONTROL_DSN"}

    assert load_settings(environ | {"DATAOPS_CONTROL_DSN_FILE": str(file)}).control_dsn == "postgresql://u:p@h/d"


@pytest.mark.parametrize("name", ["DATAOPS_CONTROL_DSN_FILE", "DATAOPS_CONFIG"])
def test_a_file_that_cannot_be_read_is_named_by_its_variable(name: str, tmp_path: Path) -> None:
    environ = {key: value for key, value in REQUIRED.items() if key + "_FILE" != name}

    assert name in _refusal(environ | {name: str(tmp_path / "absent")})


def test_a_value_beside_a_file_for_it_is_refused_lest_chance_decides(tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text("postgresql://u:hunter2@other/d")

    assert "DATAOPS_CONTROL_DSN_FILE" in _refusal(REQUIRED | {"DATAOPS_CONTROL_DSN_FILE": str(file)})


def test_variables_win_over_the_file_whose_unknown_names_are_refused_too(tmp_path: Path) -> None:
    file = tmp_path / "dataops.toml"
    file.write_text("lease_seconds = 7\nlook_seconds = 9\n")
    settings = load_settings(REQUIRED | {"DATAOPS_CONFIG": str(file), "DATAOPS_LOOK_SECONDS": "1"})
    assert (settings.lease_seconds, settings.look_seconds) == (7, 1)

    file.write_text("leese_seconds = 7\n")
    assert "leese_seconds" in _refusal(REQUIRED | {"DATAOPS_CONFIG": str(file)})
    file.write_text("lease_seconds = \n")
    assert "DATAOPS_CONFIG" in _refusal(REQUIRED | {"DATAOPS_CONFIG": str(file)})


def test_variables_of_the_client_are_no_settings_of_ours() -> None:
    assert load_settings(REQUIRED | {"DATAOPS_TOKEN": "t", "DATAOPS_ADDRESS": "a"}).artifacts == "somewhere"
