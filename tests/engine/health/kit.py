"""Asking a process how it is, as a probe or Prometheus does; and taking its databases away."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from examples.stack.servers import PostgresServer

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
Labels = tuple[tuple[str, str], ...]


def ask(address: str, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and body."""
    try:
        with _DIRECT.open(urllib.request.Request(f"http://{address}{path}", method=method), timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode()


def look(address: str, path: str = "/readyz") -> tuple[int, dict[str, Any]]:
    """Status, and each check with what it found."""
    status, body = ask(address, path)
    told = json.loads(body)
    assert told["status"].startswith("not ") == (status == 503)
    return status, told["checks"]


def failing(address: str, path: str = "/readyz") -> tuple[int, set[str]]:
    """Status, and the names of the checks that are not as they should be."""
    status, checks = look(address, path)
    return status, {name for name, check in checks.items() if not check["ok"]}


def parsed(text: str) -> dict[str, dict[Labels, float]]:
    """Samples by name and sorted labels."""
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        found.setdefault(family.name, {})
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def scrape(address: str) -> dict[str, dict[Labels, float]]:
    status, text = ask(address, "/metrics")
    assert status == 200
    return parsed(text)


@contextmanager
def away(postgres: PostgresServer, dsn: str) -> Iterator[None]:
    """The database refuses connections, and has ended those that there were."""
    name = conninfo_to_dict(dsn)["dbname"]
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with postgres.connect() as connection:
        connection.execute(allow.format(sql.Identifier(str(name)), sql.SQL("false")))
        connection.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (name,))
        try:
            yield
        finally:
            connection.execute(allow.format(sql.Identifier(str(name)), sql.SQL("true")))
