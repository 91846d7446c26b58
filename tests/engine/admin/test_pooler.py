"""A pooler between us and the database is told, whatever it does to hide."""

from __future__ import annotations

import pytest

from engine.admin.doctor.finding import OPERATIONS, Severity
from engine.admin.doctor.reach import check_reach
from tests.engine.admin.kit import Site
from tests.engine.admin.pooler import pooled


@pytest.mark.parametrize(
    ("in_turn", "own_key", "told"),
    [
        (False, True, "answers in the server's place"),
        (True, True, "answers in the server's place"),
        (False, False, "sessions share a backend"),
        (True, False, "backend changes between statements"),
    ],
)
def test_a_transaction_pooler_is_an_error_by_name(site: Site, in_turn: bool, own_key: bool, told: str) -> None:
    with pooled(site.owner_dsn, in_turn=in_turn, own_key=own_key) as dsn:
        report = site.doctor(platform_dsn=dsn)

    (finding,) = [f for f in report.findings if f.check == "pooler"]
    assert (finding.severity, finding.refused) == (Severity.ERROR, OPERATIONS)
    assert told in finding.found
    assert report.failed
    assert report.tables == (), "nothing that it says could be relied on"


def test_a_direct_connection_is_none(site: Site) -> None:
    found = {f.check: f.severity for f in check_reach(site.settings.platform_dsn)}
    assert found == {"server_version": Severity.OK, "pooler": Severity.OK}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda dsn: dsn.replace(":pass-of-the-service@", ":wrong@"), "the password is refused"),
        (lambda dsn: dsn + "_none", "the role or database does not exist"),
        (lambda _: "postgresql://u:pass-of-the-service@127.0.0.1:1/d", "nobody listens at that address"),
    ],
)
def test_a_database_that_cannot_be_had_is_told_with_why_and_without_the_address(site: Site, change, told) -> None:
    (finding,) = check_reach(change(site.settings.platform_dsn))

    assert (finding.check, finding.severity) == ("connection", Severity.ERROR)
    assert told in finding.found
    assert "pass-of-the-service" not in str(finding)
    assert "127.0.0.1" not in str(finding)


def test_an_older_server_is_refused_by_name(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """No older server is at hand: the limit is moved above the one there is."""
    monkeypatch.setattr("engine.admin.doctor.reach.MIN_VERSION", 990000)
    (finding,) = check_reach(site.settings.platform_dsn)
    assert (finding.check, finding.severity, finding.refused) == ("server_version", Severity.ERROR, OPERATIONS)


def test_a_newer_server_is_worked_with_and_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.admin.doctor.reach.NEWEST_TESTED", 15)
    found = {f.check: f.severity for f in check_reach(site.settings.platform_dsn)}
    assert found == {"server_version": Severity.WARNING, "pooler": Severity.OK}
