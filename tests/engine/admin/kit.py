"""A platform database whose service is an ordinary role, and the doctor that looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from engine.admin.doctor import Finding, Report, Severity, diagnose
from engine.config import Settings


@dataclass
class Site:
    """`owner_dsn` is a superuser's, `settings` are the service's."""

    owner_dsn: str
    role: str
    settings: Settings

    def owner(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run as the superuser, each statement by itself; `{svc}` is the service's role."""
        found: list[tuple[Any, ...]] = []
        with psycopg.connect(self.owner_dsn, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.replace("{svc}", self.role).encode())
                found = cursor.fetchall() if cursor.description else []
        return found

    def service(self, *statements: str) -> None:
        """Run as the service's role."""
        with psycopg.connect(self.settings.platform_dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def doctor(self, **settings: Any) -> Report:
        return diagnose(self.settings.model_copy(update=settings))

    def found(self, check: str, subject: str = "", **settings: Any) -> list[Finding]:
        """What a check says that is not OK."""
        findings = self.doctor(**settings).findings
        return [
            f for f in findings if f.check == check and f.severity is not Severity.OK and subject in ("", f.subject)
        ]

    def mended(self, finding: Finding) -> None:
        """The owner runs the finding's SQL, and it is gone."""
        assert finding.sql, finding
        self.owner(finding.sql)
        assert finding.subject not in [f.subject for f in self.found(finding.check)], finding
