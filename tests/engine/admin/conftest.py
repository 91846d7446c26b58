"""The doctor's patient."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from engine.config import Settings
from tests.engine.admin.kit import Site

PASSWORD = "pass-of-the-service"
_numbers = itertools.count(1)


@pytest.fixture
def site(control_dsn: str, empty_dsn: str, tmp_path: Path) -> Iterator[Site]:
    """An empty platform whose service may connect and use the schema public, no more."""
    role = f"svc_{next(_numbers)}"
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(PASSWORD))
        )
    parts = urlsplit(empty_dsn)
    (tmp_path / "artifacts").mkdir()
    settings = Settings(
        control_dsn=control_dsn,
        platform_dsn=urlunsplit(parts._replace(netloc=f"{role}:{PASSWORD}@{parts.hostname}:{parts.port}")),
        artifacts=str(tmp_path / "artifacts"),
        keys="test " + base64.b64encode(bytes(range(32))).decode(),
    )
    yield Site(empty_dsn, role, settings)
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(role)))
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
