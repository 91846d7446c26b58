"""What `doctor` says as a whole: the findings, and for each table which operations they leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.admin.doctor.finding import OPERATIONS, Finding, Severity

FORMAT = 1
"""Of the document; it grows only by names that a reader may ignore."""


@dataclass(frozen=True)
class Report:
    """Findings, the gravest first, in the order of the checks. `tables` are those of the configured schemas."""

    findings: Sequence[Finding]
    tables: Sequence[str] = ()
    database: str = ""
    role: str = ""
    _by_table: dict[str, list[Finding]] = field(default_factory=dict)

    @classmethod
    def of(cls, findings: Sequence[Finding], tables: Sequence[str] = (), database: str = "", role: str = "") -> Report:
        order = list(Severity)
        made = cls(sorted(findings, key=lambda f: order.index(f.severity)), tables, database, role)
        for finding in made.findings:
            for table in finding.tables or (finding.subject,):
                made._by_table.setdefault(table, []).append(finding)
        return made

    def count(self, severity: Severity) -> int:
        return sum(f.severity is severity for f in self.findings)

    @property
    def failed(self) -> bool:
        return self.count(Severity.ERROR) > 0

    def of_severity(self, *severities: Severity) -> list[Finding]:
        return [f for f in self.findings if f.severity in severities]

    def refused(self, table: str) -> dict[str, list[str]]:
        """The operations that do not work with `table`, each with the checks that say so."""
        about = [*self._by_table.get(table, ()), *self._everywhere]
        found = {operation: sorted({f.check for f in about if operation in f.refused}) for operation in OPERATIONS}
        return {operation: checks for operation, checks in found.items() if checks}

    def works(self, table: str) -> list[str]:
        refused = self.refused(table)
        return [operation for operation in OPERATIONS if operation not in refused]

    @property
    def _everywhere(self) -> list[Finding]:
        """What concerns the database as a whole, and so each of its tables."""
        known = set(self.tables)
        return [f for f in self.findings if f.refused and not f.tables and f.subject not in known]

    def as_document(self) -> dict[str, Any]:
        """The stable form for programs."""
        return {
            "format": FORMAT,
            "database": self.database,
            "role": self.role,
            "summary": {severity.value: self.count(severity) for severity in Severity},
            "findings": [asdict(f) | {"severity": f.severity.value} for f in self.findings],
            "tables": [
                {"table": table, "works": self.works(table), "refused": self.refused(table)} for table in self.tables
            ],
        }
